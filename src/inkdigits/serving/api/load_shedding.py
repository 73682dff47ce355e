"""Load shedding: how many pictures a worker reads at once, and how long the others wait.

A request takes a slot when its picture has arrived, and gives it back before the log is written. A
slow client and a slow database therefore hold no slot. Health checks, metrics and pages need none.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from flask import g, request

from inkdigits.errors import ClientDisconnectedError, DeadlineExceededError, OverloadedError
from inkdigits.serving.api.access import OPEN_PATHS

if TYPE_CHECKING:
    from inkdigits.decision.prediction import Reader
    from inkdigits.serving.monitoring.metrics import Metrics

SPARED_PATHS: Final = OPEN_PATHS | {"/metrics"}
"""Paths that are answered however many requests wait for a slot."""

# Offset and size of tcpi_last_data_recv in struct tcp_info of <linux/tcp.h>, in milliseconds.
_LAST_DATA_AT: Final = 52
_TCP_INFO_BYTES: Final = 56
# The kernel counts in ticks of up to 10 ms; a shorter wait cannot be told from none.
_LEAST_WAIT_S: Final = 0.02


def elapsed_ms() -> float:
    """Return the milliseconds since the request began, to the microsecond.

    >>> from flask import Flask
    >>> with Flask("example").app_context():
    ...     g.began = time.perf_counter()
    ...     elapsed_ms() >= 0
    True
    """
    began: float = g.began
    return round((time.perf_counter() - began) * 1000, 3)


def seconds_since_last_data(connection: socket.socket | None) -> float:
    """Return for how long a request has waited in the kernel and in the server's queue.

    That is the time since the last bytes of its TCP connection; 0 where nobody tells.

    >>> seconds_since_last_data(None)
    0.0
    """
    if connection is None or sys.platform != "linux":
        return 0.0
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        (milliseconds,) = struct.unpack_from("@I", info, _LAST_DATA_AT)
    except (OSError, struct.error):
        return 0.0
    seconds: float = milliseconds / 1000
    return seconds if seconds >= _LEAST_WAIT_S else 0.0


def is_disconnected(connection: socket.socket | None) -> bool:
    """Return whether the client has closed its side of a connection. Only Linux tells.

    >>> is_disconnected(None)
    False
    """
    if connection is None or not hasattr(select, "POLLRDHUP"):
        return False
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


class ServedReader:
    """What reads now, and the slots in which it reads. It is safe for threads.

    Its methods are called inside a request, which keeps ``g.began`` and ``g.waited``.

    Args:
        reader: what reads until ``current`` is replaced.
        slots: pictures or batches that are read at once.
        deadline: seconds from a request's arrival within which its reading must begin.
        metrics: counts arrivals and waits.
    """

    def __init__(self, reader: Reader, slots: int, deadline: float, metrics: Metrics) -> None:
        self.current = reader
        self._free = threading.Semaphore(slots)
        self._deadline = deadline
        self._metrics = metrics

    @property
    def model_version(self) -> str:
        """The version of the model that answers."""
        return self.current.model_version

    def admit(self, path: str) -> None:
        """Let a request in that a thread has taken up.

        Raises:
            OverloadedError: it has waited for the thread until its deadline.
        """
        if g.waited >= self._deadline and path not in SPARED_PATHS:
            raise self._overloaded()

    @contextmanager
    def slot(self) -> Iterator[Reader]:
        """Wait for a slot, and hold it while the reader that is yielded reads.

        Raises:
            DeadlineExceededError: the picture took longer than the deadline to arrive.
            OverloadedError: no slot was free before the deadline.
            ClientDisconnectedError: nobody waits for the answer any more.
        """
        receiving = time.perf_counter() - g.began
        self._metrics.count_arrival(receiving)
        if receiving >= self._deadline:
            raise DeadlineExceededError(
                f"The picture did not arrive within {self._deadline:g} s. Send it again."
            )
        if not self._free.acquire(blocking=False):
            self._wait(self._deadline - receiving - g.waited)
        try:
            if g.waited > 0 and is_disconnected(request.environ.get("gunicorn.socket")):
                raise ClientDisconnectedError("The client has closed the connection.")
            yield self.current
        finally:
            self._free.release()

    def _wait(self, seconds: float) -> None:
        began = time.perf_counter()
        self._metrics.change_waiting(1)
        try:
            is_free = seconds > 0 and self._free.acquire(timeout=seconds)
        finally:
            self._metrics.change_waiting(-1)
            g.waited += time.perf_counter() - began
        if not is_free:
            raise self._overloaded()

    def _overloaded(self) -> OverloadedError:
        return OverloadedError(
            f"The request has waited {self._deadline:g} s behind others. Send it again later."
        )
