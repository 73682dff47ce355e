"""Processes of the tests: started together, or killed half-way; and waiting for them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

SPAWN = multiprocessing.get_context("spawn")
# How long a test waits for what must happen; never how fast it must be.
PATIENCE = 120.0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@contextmanager
def running_together(
    target: Callable[..., None], calls: Sequence[Any]
) -> Iterator[Callable[..., bool]]:
    """Make each call in a process; yield whether some still run; all must end well."""
    processes = [SPAWN.Process(target=target, args=call) for call in calls]
    for process in processes:
        process.start()
    yield lambda: any(process.is_alive() for process in processes)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


@contextmanager
def killed_afterwards(target: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Make a call in a process until it sets the event, its last argument; kill it at the end."""
    is_there = SPAWN.Event()
    process = SPAWN.Process(target=target, args=(*arguments, is_there))
    process.start()
    assert is_there.wait(PATIENCE)
    yield
    process.kill()
    process.join()
