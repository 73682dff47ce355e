"""The network in int8: what is in the artifact, and that it decides as float32 does."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from support.commands import run
from support.training import noise

import inkdigits
from inkdigits.calibration.temperature import probabilities
from inkdigits.data.mnist import Splits
from inkdigits.decision.policy import ACCEPT_NOVELTY, energy
from inkdigits.errors import ArtifactCorruptError, TrainingError
from inkdigits.ink.normalize import standardise
from inkdigits.model.artifact import (
    INT8_MODEL,
    read_artifact,
    shipped_artifact,
    with_provenance,
    write_atomically,
)
from inkdigits.model.backends import OnnxBackend, TorchBackend
from inkdigits.training import quantise
from inkdigits.training.config import Folders
from inkdigits.training.quantise import Int8Changes, int8_changes, quantise_run, with_int8


@pytest.fixture(scope="module")
def artifact(digits) -> bytes:
    return with_int8(read_artifact(), digits[0][:200])


def properties(artifact: bytes) -> dict[str, str]:
    proto = onnx.load_model_from_string(artifact)
    return {entry.key: entry.value for entry in proto.metadata_props}


def with_property(artifact: bytes, key: str, value: str) -> bytes:
    proto = onnx.load_model_from_string(artifact)
    onnx.helper.set_model_props(proto, {**properties(artifact), key: value})
    return proto.SerializeToString()


def test_all_but_the_first_and_the_last_layer_are_in_int8(artifact):
    model = base64.b64decode(properties(artifact)[INT8_MODEL])
    graph = onnx.load_model_from_string(model).graph
    quantised = {name for node in graph.node if node.op_type == "DequantizeLinear"
                 for name in node.output}  # fmt: skip
    layers = [node for node in graph.node if node.op_type in {"Conv", "Gemm"}]
    assert [node.input[1] in quantised for node in layers] == [False, *[True] * 6, False]
    weights = [tensor for tensor in graph.initializer if len(tensor.dims) == 4]
    int8 = [onnx.numpy_helper.to_array(t) for t in weights if t.data_type == onnx.TensorProto.INT8]
    # Seven bits, so that sums of products do not overflow on processors without VNNI.
    assert len(int8) == 5
    assert all(w.min() >= -64 and w.max() <= 64 for w in int8)
    assert not any(node.op_type == "BatchNormalization" for node in graph.node)


def test_int8_answers_what_is_far_from_each_threshold_and_float32_the_rest(artifact, digits):
    inks = np.concatenate([digits[0][:600], noise(20).inks.numpy()])
    exact, fast = OnnxBackend(artifact, 1, int8=False), OnnxBackend(artifact, 1)
    theirs, ours = exact.forward(standardise(inks)), fast.forward(standardise(inks))
    by_float32 = np.isclose(ours[0], theirs[0], atol=1e-4).all(axis=1)
    assert 100 < by_float32.sum() < 500
    assert by_float32[-20:].all()
    np.testing.assert_allclose(ours[1][by_float32], theirs[1][by_float32], atol=1e-4)
    policy, temperature = fast.metadata.policy, fast.metadata.temperature
    by_int8 = ours[0][~by_float32]
    # 0.75 nats above the strictest threshold, and as much below the score to accept.
    strictest = policy.choices[0].threshold
    needed = strictest / (1 - strictest) * np.exp(0.75 / temperature)
    assert probabilities(by_int8, temperature).max(axis=1).min() >= needed / (1 + needed) - 1e-6
    assert energy(by_int8).max() <= min(policy.novelty_threshold, ACCEPT_NOVELTY) - 0.75
    assert 0 < np.abs(by_int8 - theirs[0][~by_float32]).max() < 1
    assert int8_changes(artifact, inks) == Int8Changes(620, 0, 0)


@pytest.mark.parametrize("threshold", [None, 0.0, 1.0])
def test_extreme_thresholds_can_be_served(artifact, threshold):
    metadata = OnnxBackend(artifact, 1).metadata
    policy = replace(metadata.policy, accept_threshold=threshold, choices=(), unreadable_below=0.0)
    policy = replace(policy, novelty_threshold=None)
    text = replace(metadata, policy=policy).to_properties()["policy"]
    blank = np.zeros((1, 1, 28, 28), np.float32)
    assert OnnxBackend(with_property(artifact, "policy", text), 1).logits(blank).shape == (1, 10)


def test_version_changes_with_the_network_and_is_the_same_for_the_same(artifact, digits):
    version = OnnxBackend(artifact, 1).metadata.model_version
    again = with_int8(artifact, digits[0][:200])
    others = (read_artifact(), with_int8(artifact, digits[0][:20]))
    assert OnnxBackend(again, 1).metadata.model_version == version
    assert version not in {OnnxBackend(other, 1).metadata.model_version for other in others}


def test_file_stays_a_sealed_onnx_model_of_float32(artifact, tmp_path):
    write_atomically(tmp_path / "a.onnx", artifact)
    assert read_artifact(tmp_path / "a.onnx") == artifact
    inks = standardise(np.zeros((2, 28, 28), np.uint8))
    logits = OnnxBackend(artifact, 1, int8=False).logits(inks)
    np.testing.assert_allclose(TorchBackend(artifact, "cpu").logits(inks), logits, atol=1e-3)
    again = with_provenance(artifact, {"n": 1})
    assert OnnxBackend(again, 1).metadata.provenance == {"n": 1}
    assert properties(again)[INT8_MODEL] == properties(artifact)[INT8_MODEL]


@pytest.mark.parametrize(
    ("entry", "problem"), [("not base64!", "no sound int8_model"), ("AAAA", "cannot load")]
)
def test_invalid_int8_entry_is_corrupt(entry, problem):
    damaged = with_property(read_artifact(), INT8_MODEL, entry)
    with pytest.raises(ArtifactCorruptError, match=problem):
        OnnxBackend(damaged, threads=1)
    assert OnnxBackend(damaged, threads=1, int8=False).metadata


def test_command_adds_int8_to_the_artifact_of_a_run(mnist_with_writers, tmp_path):
    path, saved = tmp_path / "mnist_classifier.onnx", tmp_path / "run.json"
    for file in (path, saved):
        shutil.copy(shipped_artifact().with_name(file.name), file)
    before = inkdigits.load(path)
    run(
        *("quantise", "--data", mnist_with_writers, "--no-download", "--run", tmp_path),
        *("--figures", tmp_path / "figures"),
    )
    described = json.loads(saved.read_text())
    scores = described["test"]
    reader = inkdigits.load(path)
    assert reader.model_version == described["model_version"] != before.model_version
    assert described["int8_changes"] == {"n": 720, "readings": 0, "decisions": 0}
    assert reader.metadata.provenance["test"]["n_correct"] == scores["n_correct"]
    assert scores["n"] == 297
    assert reader.metadata.provenance["data"] == before.metadata.provenance["data"]


def test_network_that_answers_otherwise_in_int8_is_left_in_float32(
    splits: Splits, tmp_path, monkeypatch
):
    path = tmp_path / "mnist_classifier.onnx"
    shutil.copy(shipped_artifact(), path)
    for changes in (Int8Changes(10_000, 3, 0), Int8Changes(10_000, 0, 6)):
        monkeypatch.setattr(quantise, "int8_changes", lambda *_, found=changes: found)
        with pytest.raises(TrainingError, match="allowed are"):
            quantise_run(Folders(tmp_path, tmp_path, tmp_path), splits)
    assert path.read_bytes() == read_artifact()
    Int8Changes(10_000, 2, 5).check()
