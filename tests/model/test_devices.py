import pytest
import torch

from inkdigits.errors import BackendUnavailableError
from inkdigits.model.devices import resolve_device


def test_missing_device_is_an_error_that_names_the_present_ones():
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(BackendUnavailableError, match=r"it has .*cpu"):
        resolve_device(missing)
    with pytest.raises(BackendUnavailableError, match="none of auto, cuda, mps, cpu"):
        resolve_device("tpu")
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in {"cpu", "cuda", "mps"}
