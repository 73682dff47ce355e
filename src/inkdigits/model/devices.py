"""Where a network runs, and in which precision it is fastest there. Needs torch."""

from __future__ import annotations

import time
from functools import cache

import torch

from inkdigits.errors import BackendUnavailableError
from inkdigits.model.networks import MNISTClassifier
from inkdigits.types import Device


def resolve_device(name: Device = "auto") -> torch.device:
    """Return a device of this machine; "auto" is the first present of cuda, mps, cpu.

    Raises:
        BackendUnavailableError: the device is not on this machine.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(device for device, present in available.items() if present))
    if name not in available:
        raise BackendUnavailableError(f"device {name!r} is none of auto, {', '.join(available)}")
    if not available[name]:
        here = ", ".join(device for device, present in available.items() if present)
        raise BackendUnavailableError(f"device {name!r} is not on this machine; it has {here}")
    return torch.device(name)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the type to multiply in, or None for float32.

    bfloat16 needs no loss scaling. Among CPUs that have instructions for it, some are more than
    twice as fast with it and some are slower (docs/experiments/), so it is tried.

    >>> autocast_dtype(torch.device("mps")) is None
    True
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    if device.type == "cpu" and _faster_in_bfloat16():
        return torch.bfloat16
    return None


@cache
def _faster_in_bfloat16() -> bool:
    """Return whether this CPU trains at least 1.2 times as fast in bfloat16, in about a second."""
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return False
    with torch.random.fork_rng(devices=[]):
        model = MNISTClassifier().to(memory_format=torch.channels_last)
        batch = torch.zeros(128, 1, 28, 28).contiguous(memory_format=torch.channels_last)

        def seconds(*, reduced: bool) -> float:
            started = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=reduced):
                output = model(batch)
            torch.autograd.backward(output.float().sum())
            return time.perf_counter() - started

        # The first of each makes the kernels.
        times = [(seconds(reduced=False), seconds(reduced=True)) for _ in range(5)][1:]
    return min(t[0] for t in times) >= 1.2 * min(t[1] for t in times)
