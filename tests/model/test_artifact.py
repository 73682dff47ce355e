import json
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

import inkdigits
from inkdigits.decision.policy import DecisionPolicy
from inkdigits.decision.risk import AcceptThreshold
from inkdigits.errors import ArtifactCorruptError, ArtifactNotFoundError, ArtifactVersionError
from inkdigits.model import artifact
from inkdigits.model.artifact import (
    ArtifactMetadata,
    read_artifact,
    read_metadata,
    seal,
    shipped_artifact,
    with_metadata,
)
from inkdigits.model.backends import OnnxBackend

POLICY = DecisionPolicy(0.9, 0.002, 0.95)


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "model.onnx"
    target.write_bytes(read_artifact())
    return target


def test_policy_with_choices_comes_back_whole():
    none = AcceptThreshold(None, 0.001, 0.95, 0.0, 10, 0, 0)
    some = AcceptThreshold(0.9, 0.01, 0.95, 0.5, 10, 5, 0)
    policy = DecisionPolicy(0.9, 0.01, 0.95, (none, some), 0.25)
    metadata = ArtifactMetadata("v", "MNISTClassifier", 1.5, policy)
    assert ArtifactMetadata.from_properties(metadata.to_properties()) == metadata


def test_missing_artifact_and_a_folder_without_one_are_errors(tmp_path):
    with pytest.raises(ArtifactNotFoundError, match=r"nowhere\.onnx"):
        read_artifact(tmp_path / "nowhere.onnx")
    with pytest.raises(ArtifactNotFoundError, match=r"mnist_classifier\.onnx"):
        read_artifact(tmp_path)
    (tmp_path / "mnist_classifier.onnx").mkdir()
    with pytest.raises(ArtifactCorruptError, match="cannot be read"):
        read_artifact(tmp_path)


def test_truncated_artifact_is_rejected_and_one_altered_bit_is_found(path):
    content = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9999):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ArtifactCorruptError, match="truncated or not an Inkdigits artifact"):
            read_artifact(path)
    for place in (0, 100, 1_000_000, -200, -1):
        altered = bytearray(content)
        altered[place] ^= 1
        path.write_bytes(altered)
        with pytest.raises(ArtifactCorruptError, match="altered"):
            read_artifact(path)


def test_sealed_garbage_is_rejected(path):
    path.write_bytes(seal(b"this is no protocol buffer"))
    with pytest.raises(ArtifactCorruptError, match="ONNX Runtime"):
        inkdigits.load(path)


PROPERTIES = ArtifactMetadata("v", "MNISTClassifier", 1.5, POLICY).to_properties()
WRONG_POLICIES = [{"accept_threshold": 7}, None, {"choices": [{"risk": 0.1}]}]


@pytest.mark.parametrize(
    ("name", "value", "error", "problem"),
    [
        ("preprocessing_version", 0, ArtifactVersionError, "preprocessing version 0"),
        ("mean", 0.5, ArtifactVersionError, "mean 0.5"),
        ("artifact_version", 99, ArtifactVersionError, "99"),
        ("novelty_method", "nearest", ArtifactVersionError, "supports .energy. alone"),
        ("second_look_margin", -1.0, ArtifactCorruptError, "second_look_margin is -1.0"),
        ("second_look_margin", None, ArtifactCorruptError, "second_look_margin"),
        *(("temperature", value, ArtifactCorruptError, "temperature") for value in (0.0, None)),
        ("labels", [1, 0], ArtifactCorruptError, "labels"),
        *(("policy", value, ArtifactCorruptError, "metadata") for value in WRONG_POLICIES),
    ],
)
def test_invalid_metadata_is_rejected(name, value, error, problem):
    with pytest.raises(error, match=problem):
        ArtifactMetadata.from_properties({**PROPERTIES, name: json.dumps(value)})


def test_missing_metadata_is_named_unless_the_version_is_another():
    incomplete = {name: PROPERTIES[name] for name in PROPERTIES if name != "novelty_method"}
    with pytest.raises(ArtifactCorruptError, match="lacks novelty_method"):
        ArtifactMetadata.from_properties(incomplete)
    with pytest.raises(
        ArtifactVersionError, match=r"version 1; .* version 4\. Export or train it again"
    ):
        ArtifactMetadata.from_properties(incomplete | {"artifact_version": "1"})


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "file"
    artifact.write_atomically(target, b"old")
    monkeypatch.setattr(artifact.os, "fsync", Mock(side_effect=OSError("disk full")))
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


def test_metadata_is_replaced_without_onnx_and_the_network_stays():
    artifact = read_artifact()
    known = read_metadata(artifact)
    warm = replace(known, temperature=2.0)
    changed = with_metadata(artifact, warm, renew=True)
    backends = [OnnxBackend(content, threads=1) for content in (artifact, changed)]
    ink = np.ones((1, 1, 28, 28), np.float32)
    np.testing.assert_array_equal(*(backend.logits(ink) for backend in backends))
    version = read_metadata(changed).model_version
    assert read_metadata(changed) == replace(warm, model_version=version)
    assert version != known.model_version
    assert read_metadata(with_metadata(changed, warm, renew=True)).model_version == version


@pytest.mark.parametrize("damaged", [b"\x72\xff", b"\x73", b"\x08\x80"])
def test_what_is_no_protocol_buffer_is_corrupt(damaged):
    with pytest.raises(ArtifactCorruptError):
        read_metadata(damaged)
