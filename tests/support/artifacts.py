"""Artifacts that differ from the shipped one in what they say and how sure they are."""

import json
from pathlib import Path

import pytest

from inkdigits.model.artifact import (
    read_artifact,
    read_metadata,
    seal,
    with_metadata,
    write_atomically,
)


def variant(path: Path, version: str, temperature: float = 1.0) -> Path:
    """Write the shipped artifact under another version, and with its temperature multiplied."""
    onnx = pytest.importorskip("onnx")
    # The seal is one more metadata entry, so ONNX reads it along.
    model = onnx.load_model_from_string(read_artifact())
    (sealed,) = (entry for entry in model.metadata_props if entry.key == "sha256")
    model.metadata_props.remove(sealed)
    for entry in model.metadata_props:
        if entry.key == "model_version":
            entry.value = json.dumps(version)
        elif entry.key == "temperature":
            entry.value = json.dumps(json.loads(entry.value) * temperature)
    write_atomically(path, seal(model.SerializeToString()))
    return path


def worse(path: Path, digit: int = 3, by: float = 8.0) -> Path:
    """Write the shipped artifact with a bias for one digit, in float32 alone."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(read_artifact())
    kept = [entry for entry in model.metadata_props if entry.key not in ("sha256", "int8_model")]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    (bias,) = (one for one in model.graph.initializer if one.name == "fc2.bias")
    values = onnx.numpy_helper.to_array(bias).copy()
    values[digit] += by
    bias.CopyFrom(onnx.numpy_helper.from_array(values, "fc2.bias"))
    content = seal(model.SerializeToString())
    write_atomically(path, with_metadata(content, read_metadata(content), renew=True))
    return path


def corrupt(path: Path) -> Path:
    """Write the shipped artifact with one bit turned."""
    content = bytearray(read_artifact())
    content[len(content) // 2] ^= 1
    write_atomically(path, bytes(content))
    return path
