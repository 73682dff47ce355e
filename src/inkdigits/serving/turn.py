"""Whose turn it is in this thread: what a worker knows of the request that it serves."""

from __future__ import annotations

import threading
from dataclasses import dataclass

_here = threading.local()


@dataclass(slots=True)
class Turn:
    """One request's turn at a worker.

    Attributes:
        arrived: when its first bytes were there (``time.perf_counter``).
        is_refused: whether those that refuse answer it, there being no room for it.
        started: when a thread took it up; None while it waits.
        is_reading: whether it may still be arriving.
        is_short: whether all of it was here when it was looked at, and nothing else is needed.
    """

    arrived: float
    is_refused: bool = False
    started: float | None = None
    is_reading: bool = True
    is_short: bool = False

    @property
    def waited(self) -> float:
        """Seconds that it waited for a thread; 0 while it does."""
        return 0.0 if self.started is None else self.started - self.arrived


def set_turn(turn: Turn | None) -> None:
    """Say whose turn it is in this thread."""
    _here.turn = turn


def current_turn() -> Turn | None:
    """Whose turn it is in this thread; None where no worker of ours has said so."""
    turn: Turn | None = getattr(_here, "turn", None)
    return turn
