import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from inkdigits.decision.policy import DecisionPolicy
from inkdigits.model.artifact import ArtifactMetadata, with_provenance
from inkdigits.model.backends import OnnxBackend
from inkdigits.model.networks import DigitNet, MNISTClassifier, load_network
from inkdigits.training.export import export

POLICY = DecisionPolicy(0.9, 0.002, 0.95)


def used(network):
    """Return a network whose running statistics are unlike the initial ones."""
    torch.manual_seed(0)
    model = network()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 1, 28, 28))
    return model


@pytest.fixture(scope="module")
def weights():
    return used(MNISTClassifier).state_dict()


@pytest.fixture(scope="module")
def content(weights):
    return export(weights, 1.5, POLICY, {"seed": 7})


def metadata_of(artifact):
    return OnnxBackend(artifact, threads=1).metadata


def version(artifact):
    return metadata_of(artifact).model_version


def test_sealed_file_is_plain_onnx_that_carries_everything(content):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    properties = session.get_modelmeta().custom_metadata_map
    metadata = ArtifactMetadata.from_properties(properties)
    assert (metadata.temperature, metadata.policy) == (1.5, POLICY)
    assert (metadata.labels, metadata.provenance) == (tuple(range(10)), {"seed": 7})
    assert (metadata.architecture, metadata.novelty_method) == ("MNISTClassifier", "energy")
    assert [output.name for output in session.get_outputs()] == ["logits", "features"]
    assert len(properties["sha256"]) == 64


def test_nothing_of_the_exporting_machine_is_in_the_file(content):
    assert not any(text in content for text in (b"site-packages", b"stack_trace", b".py"))


def test_weights_come_back_bit_for_bit(content, weights):
    for name, value in load_network(content).state_dict().items():
        # ONNX has no place for the count of training batches.
        assert torch.equal(value, weights[name]) or name.endswith("num_batches_tracked")


def test_version_changes_with_whatever_changes_a_prediction(weights, content):
    assert version(with_provenance(content, {"other": 1})) == version(content)
    assert version(export(weights, 1.6, POLICY, {})) != version(content)
    without_margin = export(weights, 1.5, POLICY, {}, second_look_margin=0.0)
    assert version(without_margin) != version(content)
    other = {**weights, "fc2.bias": weights["fc2.bias"] + 1e-3}
    assert version(export(other, 1.5, POLICY, {})) != version(content)


def folded(content, folder):
    """The kinds of nodes that ONNX Runtime makes of an artifact."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    proto = onnx.load(options.optimized_model_filepath)
    return {node.op_type for node in proto.graph.node}


def test_batch_normalisation_is_folded_where_convolutions_have_no_bias(tmp_path):
    model = used(DigitNet)
    content = export(model.state_dict(), 1.0, POLICY, {})
    assert "BatchNormalization" not in folded(content, tmp_path)
    batch = np.random.default_rng(0).standard_normal((5, 1, 28, 28)).astype(np.float32)
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(OnnxBackend(content, 1).logits(batch), expected, atol=1e-4)
