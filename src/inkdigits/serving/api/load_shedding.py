"""Load shedding: how many pictures a worker reads at once, and how long the others wait.

A request holds a slot from when its picture has arrived until before the log is written, so slow
clients and databases hold none.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from inkdigits.decision.prediction import Prediction, Reader
from inkdigits.errors import (
    ArtifactError,
    ClientDisconnectedError,
    ClientError,
    DeadlineExceededError,
    OverloadedError,
)
from inkdigits.model.artifact import ArtifactMetadata
from inkdigits.serving.api.access import OPEN_PATHS
from inkdigits.serving.api.requests import ServedRequest, current
from inkdigits.serving.monitoring.metrics import Metrics
from inkdigits.settings import Settings

if TYPE_CHECKING:
    from inkdigits.serving.shadow import Shadow

SPARED_PATHS: Final = OPEN_PATHS | {"/metrics"}
"""Paths that are answered however many requests wait for a slot."""


def connection_state(connection: socket.socket | None) -> tuple[bool, float]:
    """Return whether the client keeps a connection open, and the seconds since its last bytes.

    >>> connection_state(None)
    (True, 0.0)

    Systems other than Linux do not tell.
    """
    if connection is None or sys.platform != "linux":
        return True, 0.0
    try:
        # tcpi_state, 1 while open, and tcpi_last_data_recv of struct tcp_info in <linux/tcp.h>.
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 56)
        state, milliseconds = struct.unpack("@B51xI", info)
    except (OSError, struct.error):
        return True, 0.0
    # The kernel counts in ticks of up to 10 ms; a shorter wait cannot be told from none.
    return state == 1, milliseconds / 1000 if milliseconds >= 20 else 0.0


def stated_risk(reader: Reader, settings: Settings) -> float | None:
    """Return the share of the accepted readings that may be wrong, as was stated.

    It is the settings', or else the model's own; None where a model service does not tell.

    >>> from inkdigits.client import Client
    >>> stated_risk(Client("http://127.0.0.1:9", retries=0), Settings(risk=0.01))
    0.01
    """
    if settings.risk is not None:
        return settings.risk
    try:
        metadata: ArtifactMetadata | None = getattr(reader, "metadata", None)
    except (ClientError, ArtifactError):
        return None
    return None if metadata is None else metadata.policy.risk


class ServedReader:
    """What reads now, and the slots in which it reads. It is safe for threads.

    Args:
        reader: what reads first.
        slots: pictures or batches that are read at once.
        deadline: seconds from a request's arrival within which its reading must begin.
        metrics: where arrivals and the requests that wait are counted.
    """

    def __init__(self, reader: Reader, slots: int, deadline: float, metrics: Metrics) -> None:
        self._free = threading.Semaphore(slots)
        self._deadline = deadline
        self._too_busy = (
            f"The request has waited {deadline:g} s behind others. Send it again later."
        )
        self._metrics = metrics
        self.shadow: Shadow | None = None
        self.current = reader
        metrics.show_model(reader.model_version)

    def use(self, reader: Reader) -> None:
        """Read by this model from now on, and compare its pictures with those of its training."""
        self.current = reader
        self._metrics.show_model(reader.model_version)
        self._metrics.compare_with_reference(getattr(reader, "metadata", None))

    def offer(self, record_id: str, picture: bytes | None, prediction: Prediction) -> None:
        """Have a second model read a picture too, if there is one; returns at once."""
        if self.shadow is not None and picture is not None:
            self.shadow.offer(record_id, picture, prediction)

    @property
    def model_version(self) -> str:
        """The version of the model that answers."""
        return self.current.model_version

    def admit(self, asked: ServedRequest) -> None:
        """Let a request in; OverloadedError if it has waited for a thread until its deadline."""
        asked.began = time.perf_counter()
        _, asked.waited = connection_state(asked.environ.get("gunicorn.socket"))
        if asked.waited >= self._deadline and asked.path not in SPARED_PATHS:
            raise OverloadedError(self._too_busy)

    @contextmanager
    def slot(self) -> Iterator[Reader]:
        """Wait for a slot, and hold it while the reader that is yielded reads.

        Raises:
            DeadlineExceededError: the picture took longer than the deadline to arrive.
            OverloadedError: no slot was free before the deadline.
            ClientDisconnectedError: nobody waits for the answer any more.
        """
        asked = current()
        receiving = time.perf_counter() - asked.began
        self._metrics.count_arrival(receiving)
        if receiving >= self._deadline:
            raise DeadlineExceededError(
                f"The picture did not arrive within {self._deadline:g} s. Send it again."
            )
        if not self._free.acquire(blocking=False):
            self._wait(asked, self._deadline - receiving - asked.waited)
        try:
            if asked.waited > 0 and not connection_state(asked.environ.get("gunicorn.socket"))[0]:
                raise ClientDisconnectedError("The client has closed the connection.")
            yield self.current
        finally:
            self._free.release()

    def _wait(self, asked: ServedRequest, seconds: float) -> None:
        began = time.perf_counter()
        self._metrics.change_waiting(1)
        try:
            is_free = seconds > 0 and self._free.acquire(timeout=seconds)
        finally:
            self._metrics.change_waiting(-1)
            asked.waited += time.perf_counter() - began
        if not is_free:
            raise OverloadedError(self._too_busy)
