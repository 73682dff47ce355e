import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import inkdigits
from inkdigits.decision.policy import DecisionPolicy
from inkdigits.decision.risk import AcceptThreshold
from inkdigits.errors import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactNotFoundError,
    ArtifactVersionError,
)
from inkdigits.model import artifact
from inkdigits.model.artifact import ArtifactMetadata, read_artifact, seal, shipped_artifact
from inkdigits.model.backends import OnnxBackend
from inkdigits.model.networks import DigitNet, MNISTClassifier, TeacherNet, load_weights
from inkdigits.training.export import export, with_provenance

POLICY = DecisionPolicy(0.9, 0.002, 0.95)


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    model = MNISTClassifier()
    with torch.no_grad():  # running statistics unlike the initial ones
        for _ in range(3):
            model(torch.randn(16, 1, 28, 28))
    return model.state_dict()


@pytest.fixture(scope="module")
def content(weights) -> bytes:
    return export(weights, 1.5, POLICY, {"seed": 7})


@pytest.fixture
def path(content, tmp_path):
    target = tmp_path / "model.onnx"
    target.write_bytes(content)
    return target


def test_sealed_file_is_plain_onnx_that_carries_everything(content):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    properties = session.get_modelmeta().custom_metadata_map
    metadata = ArtifactMetadata.from_properties(properties)
    assert metadata.temperature == 1.5
    assert metadata.policy == POLICY
    assert metadata.labels == tuple(range(10))
    assert metadata.provenance == {"seed": 7}
    assert metadata.architecture == "MNISTClassifier"
    assert metadata.novelty_method == "energy"
    assert [output.name for output in session.get_outputs()] == ["logits", "features"]
    assert len(properties["sha256"]) == 64


def test_nothing_of_the_exporting_machine_is_in_the_file(content):
    assert b"site-packages" not in content
    assert b"stack_trace" not in content
    assert b".py" not in content


def test_weights_come_back_bit_for_bit(content, weights):
    back = load_weights(content)
    assert back.keys() == {n for n in weights if not n.endswith("num_batches_tracked")}
    assert all(torch.equal(back[name], weights[name]) for name in back)


def test_version_changes_with_whatever_changes_an_answer(weights, content):
    def version(artifact_bytes):
        session = onnxruntime.InferenceSession(artifact_bytes)
        properties = session.get_modelmeta().custom_metadata_map
        return ArtifactMetadata.from_properties(properties).model_version

    first = version(content)
    assert version(with_provenance(content, {"other": 1})) == first
    assert version(export(weights, 1.6, POLICY, {})) != first
    assert version(export(weights, 1.5, POLICY, {}, second_look_margin=0.0)) != first
    other = {**weights, "fc2.bias": weights["fc2.bias"] + 1e-3}
    assert version(export(other, 1.5, POLICY, {})) != first


def test_policy_with_choices_comes_back_whole():
    choices = (
        AcceptThreshold(None, 0.001, 0.95, 0.0, 10, 0, 0),
        AcceptThreshold(0.9, 0.01, 0.95, 0.5, 10, 5, 0),
    )
    policy = DecisionPolicy(0.9, 0.01, 0.95, choices, 0.25)
    metadata = ArtifactMetadata("v", "MNISTClassifier", 1.5, policy)
    assert ArtifactMetadata.from_properties(metadata.to_properties()) == metadata


def test_artifact_of_the_first_version_is_refused_by_its_version():
    old = properties(artifact_version=1)
    del old["novelty_method"]
    with pytest.raises(
        ArtifactVersionError, match=r"version 1; .* version 3\. Calibrate and export"
    ):
        ArtifactMetadata.from_properties(old)


def test_provenance_is_replaced_and_the_seal_renewed(content, tmp_path):
    target = tmp_path / "again.onnx"
    target.write_bytes(with_provenance(content, {"test": {"n": 3}}))
    reader = inkdigits.load(target)
    assert reader.metadata.provenance == {"test": {"n": 3}}


def test_missing_artifact_is_named(tmp_path):
    with pytest.raises(ArtifactNotFoundError, match=r"nowhere\.onnx"):
        inkdigits.load(tmp_path / "nowhere.onnx")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9999])
def test_truncated_artifact_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ArtifactCorruptError, match="truncated"):
        inkdigits.load(path)


@pytest.mark.parametrize("place", [0, 100, 1_000_000, -200, -1])
def test_one_altered_bit_is_refused(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactCorruptError, match="altered"):
        inkdigits.load(path)


def test_onnx_of_somebody_else_is_refused(path):
    path.write_bytes(path.read_bytes()[:-76])
    with pytest.raises(ArtifactCorruptError, match="not an Inkdigits artifact"):
        inkdigits.load(path)


def test_sealed_garbage_is_refused(path):
    path.write_bytes(seal(b"this is no protocol buffer"))
    with pytest.raises(ArtifactCorruptError, match="ONNX Runtime"):
        inkdigits.load(path)


def test_folder_is_not_an_artifact(tmp_path):
    with pytest.raises(ArtifactError):
        read_artifact(tmp_path)


def properties(**changes) -> dict[str, str]:
    metadata = ArtifactMetadata("v", "MNISTClassifier", 1.5, POLICY)
    return {**metadata.to_properties(), **{k: json.dumps(v) for k, v in changes.items()}}


@pytest.mark.parametrize(
    ("changes", "error", "problem"),
    [
        ({"preprocessing_version": 0}, ArtifactVersionError, "preprocessing version 0"),
        ({"mean": 0.5}, ArtifactVersionError, "mean 0.5"),
        ({"artifact_version": 99}, ArtifactVersionError, "99"),
        ({"temperature": 0.0}, ArtifactCorruptError, "temperature"),
        ({"temperature": None}, ArtifactCorruptError, "temperature"),
        ({"second_look_margin": -1.0}, ArtifactCorruptError, "second_look_margin is -1.0"),
        ({"second_look_margin": None}, ArtifactCorruptError, "second_look_margin"),
        ({"novelty_method": "nearest"}, ArtifactVersionError, "supports .energy. alone"),
        ({"labels": [1, 0]}, ArtifactCorruptError, "labels"),
        ({"policy": {"accept_threshold": 7}}, ArtifactCorruptError, "metadata"),
        ({"policy": None}, ArtifactCorruptError, "metadata"),
        ({"policy": {"choices": [{"risk": 0.1}]}}, ArtifactCorruptError, "metadata"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(changes, error, problem):
    with pytest.raises(error, match=problem):
        ArtifactMetadata.from_properties(properties(**changes))


def test_missing_metadata_is_named():
    incomplete = properties()
    del incomplete["temperature"]
    with pytest.raises(ArtifactCorruptError, match="lacks temperature"):
        ArtifactMetadata.from_properties(incomplete)


def test_foreign_weights_are_named(weights):
    with pytest.raises(RuntimeError, match=r"fc1\.weight"):
        export({n: v for n, v in weights.items() if n != "fc1.weight"}, 1.0, POLICY, {})


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "file"
    artifact.write_atomically(target, b"old")

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(artifact.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        artifact.write_atomically(target, b"new")
    assert target.read_bytes() == b"old"


def test_shipped_artifact_is_sound_and_says_what_it_scores():
    reader = inkdigits.load()
    test = reader.metadata.provenance["test"]
    assert test["n"] == 10_000
    assert test["accuracy"]["low"] < test["accuracy"]["value"] < test["accuracy"]["high"]
    run = json.loads((shipped_artifact().parent / "run.json").read_text())
    assert run["model_version"] == reader.model_version
    assert DecisionPolicy.from_dict(run["policy"]) == reader.metadata.policy
    assert np.isclose(run["test"]["accuracy"]["value"], test["accuracy"]["value"])


def with_computed_biases(content: bytes) -> bytes:
    """As PyTorch exports convolutions without a bias: with zeros that are computed each time."""
    proto = onnx.load_model_from_string(content)
    convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
    shapes = {tensor.name: tensor.dims[0] for tensor in proto.graph.initializer if tensor.dims}
    for i, node in enumerate(convolutions):
        shape = onnx.numpy_helper.from_array(np.array([shapes[node.input[1]]]))
        zero = onnx.numpy_helper.from_array(np.zeros((), dtype=np.float32))
        made = [
            onnx.helper.make_node("Constant", [], [f"shape{i}"], value=shape),
            onnx.helper.make_node("Constant", [], [f"zero{i}"], value=zero),
            onnx.helper.make_node("CastLike", [f"zero{i}", "ink"], [f"cast{i}"]),
            onnx.helper.make_node("Expand", [f"cast{i}", f"shape{i}"], [f"zeros{i}"]),
        ]
        for one in reversed(made):
            proto.graph.node.insert(0, one)
        node.input.append(f"zeros{i}")
    del proto.metadata_props[-1:]
    return seal(proto.SerializeToString(deterministic=True))


def folded(content: bytes, folder) -> set[str]:
    """The kinds of nodes that ONNX Runtime makes of an artifact."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    proto = onnx.load(options.optimized_model_filepath)
    return {node.op_type for node in proto.graph.node}


@pytest.mark.parametrize("network", [DigitNet, TeacherNet])
def test_batch_normalisation_is_folded_where_convolutions_have_no_bias(network, tmp_path):
    torch.manual_seed(0)
    model = network()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 1, 28, 28))
    content = export(model.state_dict(), 1.0, POLICY, {})
    assert "BatchNormalization" not in folded(content, tmp_path)
    batch = np.random.default_rng(0).standard_normal((5, 1, 28, 28)).astype(np.float32)
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(OnnxBackend(content, 1).logits(batch), expected, atol=1e-4)
    # An artifact that was exported before is mended whenever it is written anew.
    before = with_computed_biases(content)
    assert "BatchNormalization" in folded(before, tmp_path)
    np.testing.assert_allclose(OnnxBackend(before, 1).logits(batch), expected, atol=1e-4)
    assert with_provenance(before, {}) == content
