"""How glibc keeps this process's memory. Without glibc these functions do nothing."""

from __future__ import annotations

import ctypes
import sys

# mallopt's parameters, as glibc's malloc.h numbers them.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks instead of returning them to the system after each step.

    Activations of tens of MB are otherwise mapped, zeroed by the kernel and unmapped at every
    step; keeping them made an epoch about 1.4 times as fast (docs/experiments/).

    >>> keep_freed_memory()
    """
    _call("mallopt", _MMAP_MAX, 0)
    _call("mallopt", _TRIM_THRESHOLD, 2**31 - 1)


def use_one_heap() -> None:
    """Ask glibc for one heap for all threads of this process, before it has several.

    Each thread otherwise gets a heap of its own and keeps what it has freed for itself, though
    threads that hold Python's lock hardly allocate at once.

    >>> use_one_heap()
    """
    _call("mallopt", _ARENA_MAX, 1)


def return_freed_memory() -> None:
    """Return what loading has freed to the system: some 5 MB per worker, once it has its model.

    >>> return_freed_memory()
    """
    _call("malloc_trim", 0)


def _call(name: str, *values: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*values)
