import json

import numpy as np
import pytest

import inkdigits
from inkdigits.decision.policy import DecisionPolicy
from inkdigits.decision.risk import AcceptThreshold
from inkdigits.errors import ArtifactCorruptError, ArtifactNotFoundError, ArtifactVersionError
from inkdigits.model import artifact
from inkdigits.model.artifact import ArtifactMetadata, read_artifact, seal, shipped_artifact

POLICY = DecisionPolicy(0.9, 0.002, 0.95)


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "model.onnx"
    target.write_bytes(read_artifact())
    return target


def test_policy_with_choices_comes_back_whole():
    choices = (
        AcceptThreshold(None, 0.001, 0.95, 0.0, 10, 0, 0),
        AcceptThreshold(0.9, 0.01, 0.95, 0.5, 10, 5, 0),
    )
    policy = DecisionPolicy(0.9, 0.01, 0.95, choices, 0.25)
    metadata = ArtifactMetadata("v", "MNISTClassifier", 1.5, policy)
    assert ArtifactMetadata.from_properties(metadata.to_properties()) == metadata


def test_missing_artifact_and_a_folder_are_errors(tmp_path):
    with pytest.raises(ArtifactNotFoundError, match=r"nowhere\.onnx"):
        read_artifact(tmp_path / "nowhere.onnx")
    with pytest.raises(ArtifactCorruptError, match="cannot be read"):
        read_artifact(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9999])
def test_truncated_artifact_is_rejected(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ArtifactCorruptError, match="truncated or not an Inkdigits artifact"):
        read_artifact(path)


@pytest.mark.parametrize("place", [0, 100, 1_000_000, -200, -1])
def test_one_altered_bit_is_found(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactCorruptError, match="altered"):
        read_artifact(path)


def test_sealed_garbage_is_rejected(path):
    path.write_bytes(seal(b"this is no protocol buffer"))
    with pytest.raises(ArtifactCorruptError, match="ONNX Runtime"):
        inkdigits.load(path)


def properties(**changes):
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
def test_invalid_metadata_is_rejected(changes, error, problem):
    with pytest.raises(error, match=problem):
        ArtifactMetadata.from_properties(properties(**changes))


def test_missing_metadata_is_named_unless_the_version_is_another():
    incomplete = properties()
    del incomplete["novelty_method"]
    with pytest.raises(ArtifactCorruptError, match="lacks novelty_method"):
        ArtifactMetadata.from_properties(incomplete)
    incomplete["artifact_version"] = "1"
    with pytest.raises(ArtifactVersionError, match=r"version 1; .* version 3\. Calibrate and"):
        ArtifactMetadata.from_properties(incomplete)


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
