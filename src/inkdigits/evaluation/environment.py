"""What a figure was measured on: the machine, and the versions of the software.

Nothing here raises an error: what cannot be read is "unknown", since a training run of hours must
not fail because of a processor's name.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeAlias

UNKNOWN = "unknown"
NOT_INSTALLED = "not installed"
PACKAGES = ("inkdigits", "numpy", "onnx", "onnxruntime", "pillow", "torch", "torchvision")
CPUINFO = Path("/proc/cpuinfo")

Hardware: TypeAlias = dict[str, str | int | float | None]


def hardware() -> Hardware:
    """Describe the machine, with the cores that this process may use and all its memory, for JSON.

    PyTorch is imported, which takes about a second.

    >>> list(hardware())
    ['cpu', 'cores', 'memory_gib', 'accelerator']
    """
    return {
        "cpu": _cpu_name(),
        "cores": _cores(),
        "memory_gib": _memory_gib(),
        "accelerator": accelerator_name(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, the system and, from their metadata, the packages.

    >>> list(versions())[:2]
    ['python', 'system']
    """
    return {
        "python": platform.python_version(),
        "system": platform.platform() or UNKNOWN,
        **{package: _version(package) for package in PACKAGES},
    }


def accelerator_name() -> str | None:
    """Return the GPU that PyTorch would use, None without one, "unknown" without PyTorch.

    >>> isinstance(accelerator_name(), str | None)
    True
    """
    try:
        import torch

        if torch.cuda.is_available():
            return str(torch.cuda.get_device_name(0))
        if torch.backends.mps.is_available():
            return f"Apple GPU ({platform.machine()}, MPS)"
    # A PyTorch whose libraries or driver do not load raises one of the latter two.
    except (ImportError, OSError, RuntimeError):
        return UNKNOWN
    return None


def _cpu_name() -> str:
    try:
        for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    except OSError:
        pass  # only Linux has the file; platform knows the others
    return platform.processor() or platform.machine() or UNKNOWN


def _cores() -> int | str:
    # A container or taskset may leave a process fewer cores than the machine has.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or UNKNOWN


def _memory_gib() -> float | str:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return UNKNOWN


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return NOT_INSTALLED
