import numpy as np
import onnx
import pytest
import torch

from inkdigits.errors import ArtifactCorruptError, BackendUnavailableError
from inkdigits.ink.normalize import standardise
from inkdigits.model.artifact import read_artifact
from inkdigits.model.backends import OnnxBackend, TorchBackend


def test_onnx_runtime_and_pytorch_agree(digits):
    batch = standardise(digits[0][:1000])
    for theirs, ours in zip(
        TorchBackend(read_artifact(), "cpu").forward(batch),
        OnnxBackend(read_artifact(), threads=1).forward(batch),
        strict=True,
    ):
        assert ours.dtype == theirs.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_missing_device_is_an_error():
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(BackendUnavailableError, match=missing):
        TorchBackend(read_artifact(), missing)


def test_artifact_with_other_outputs_is_rejected():
    proto = onnx.load_model_from_string(read_artifact())
    del proto.graph.output[1]
    with pytest.raises(ArtifactCorruptError, match="outputs are logits, not logits and features"):
        OnnxBackend(proto.SerializeToString(), threads=1)
