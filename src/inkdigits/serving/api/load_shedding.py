"""Load shedding: how many pictures a worker reads at once, and how long the others wait.

A request holds a slot from when its picture has arrived until before the log is written, so slow
clients and databases hold none.
"""

from __future__ import annotations

import logging
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from PIL import Image, ImageDraw

from inkdigits.client import Client
from inkdigits.decision.policy import DecisionPolicy
from inkdigits.decision.prediction import Prediction, Reader
from inkdigits.errors import (
    ArtifactError,
    ClientDisconnectedError,
    ClientError,
    DeadlineExceededError,
    ImageError,
    ImageTooLargeError,
    InkdigitsError,
    NotReadyError,
    OverloadedError,
)
from inkdigits.ink.png import encode_png
from inkdigits.model.artifact import ArtifactMetadata
from inkdigits.serving.api.access import OPEN_PATHS
from inkdigits.serving.api.requests import ServedRequest, current
from inkdigits.serving.monitoring.logging import fields
from inkdigits.serving.monitoring.metrics import Metrics
from inkdigits.settings import Settings

if TYPE_CHECKING:
    from inkdigits.serving.shadow import Shadow

SPARED_PATHS: Final = OPEN_PATHS | {"/metrics"}
"""Paths that are answered however many requests wait for a slot."""
PICTURES_PER_SLOT: Final = 8
"""Pictures of a batch that are read before others may have the slot."""
CPU_SECONDS: Final = 4.0
"""A batch that has taken so long has the rest of its pictures rejected: 25 megapixels take 0.14."""
_TOO_EXPENSIVE: Final = (
    f"The other pictures used the {CPU_SECONDS:g} seconds of CPU time of this request. "
    "Send this picture in another request."
)

logger = logging.getLogger(__name__)


def _connection_state(connection: socket.socket | None) -> tuple[bool, float]:
    """Return whether the client keeps a connection open, and the seconds since its last bytes."""
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


def warm_up(reader: Reader) -> None:
    """Have a reader read a drawn picture; NotReadyError if it fails, or finds no digit.

    >>> warm_up(Client("http://127.0.0.1:9", retries=0))
    Traceback (most recent call last):
    inkdigits.errors.NotReadyError: The model cannot read pictures yet. The log has the reason.
    """
    image = Image.new("L", (56, 56), 255)
    ImageDraw.Draw(image).line((28, 10, 28, 46), fill=0, width=6)
    try:
        prediction = reader.predict(encode_png(image))
    except InkdigitsError as error:
        logger.warning("warm-up failed", extra=fields(error=error))
        raise NotReadyError(
            "The model cannot read pictures yet. The log has the reason."
        ) from error
    if prediction.digit is None:
        raise NotReadyError("The model found no digit in its warm-up picture.")


class ServedReader:
    """What reads now, and the slots in which it reads. It is safe for threads."""

    def __init__(self, reader: Reader, settings: Settings, metrics: Metrics) -> None:
        self._is_remote = isinstance(reader, Client)
        # Where another service reads, every thread may wait for it.
        self._free = threading.Semaphore(settings.threads if self._is_remote else settings.slots)
        self._deadline, self._risk = settings.deadline, settings.risk
        self._metrics = metrics
        self.shadow: Shadow | None = None
        self._warming = threading.Lock()
        self.use(reader)
        self._is_ready = False

    def use(self, reader: Reader) -> None:
        """Read from now on by this model, which is warm; its pictures are watched for drift."""
        self.current, self._is_ready = reader, True
        self._metrics.show_model(reader.model_version)
        if not self._is_remote:
            self._metrics.compare_with_reference(getattr(reader, "metadata", None))

    def check(self) -> None:
        """Make sure that pictures can be read; once a model has read one, it stays ready.

        NotReadyError if its warm-up fails, ClientError if a model service cannot read now.
        """
        if isinstance(self.current, Client):
            self.current.check()
        elif not self._is_ready:
            with self._warming:
                if not self._is_ready:
                    warm_up(self.current)
                    self._is_ready = True

    def offer(self, record_id: str, picture: bytes | None, prediction: Prediction) -> None:
        """Have a second model read a picture too, if there is one; returns at once."""
        if self.shadow is not None and picture is not None:
            self.shadow.offer(record_id, picture, prediction)

    @property
    def model_version(self) -> str:
        """The version of the model that answers."""
        return self.current.model_version

    @property
    def policy(self) -> DecisionPolicy | None:
        """The thresholds of the model in this process; None where another service reads."""
        metadata = None if self._is_remote else getattr(self.current, "metadata", None)
        return None if metadata is None else metadata.policy

    @property
    def stated_risk(self) -> float | None:
        """The settings' risk, or else the model's; None where a model service does not tell."""
        if self._risk is not None:
            return self._risk
        try:
            metadata: ArtifactMetadata | None = getattr(self.current, "metadata", None)
        except (ClientError, ArtifactError):
            return None
        return None if metadata is None else metadata.policy.risk

    def admit(self, asked: ServedRequest) -> None:
        """Let a request in; OverloadedError if it has waited for a thread until its deadline."""
        asked.began = time.perf_counter()
        _, asked.waited = _connection_state(asked.environ.get("gunicorn.socket"))
        if asked.waited >= self._deadline and asked.path not in SPARED_PATHS:
            self._shed()

    def predict_each(
        self, pictures: Sequence[bytes], risk: float | None = None
    ) -> list[Prediction | ImageError]:
        """Read a batch, a few pictures per slot; errors are those of ``slot``."""
        size = max(1, len(pictures)) if self._is_remote else PICTURES_PER_SLOT
        results: list[Prediction | ImageError] = []
        began = time.thread_time()
        for start in range(0, len(pictures), size):
            part = pictures[start : start + size]
            if time.thread_time() - began >= CPU_SECONDS:
                results += [ImageTooLargeError(_TOO_EXPENSIVE)] * len(part)
                continue
            with self.slot() as reader:
                results += reader.predict_batch(part, on_error="return", risk=risk)
        return results

    @contextmanager
    def slot(self) -> Iterator[Reader]:
        """Wait for a slot, and hold it while the reader that is yielded reads.

        A NotReadyError, DeadlineExceededError, OverloadedError or ClientDisconnectedError says why
        it is not worth while.
        """
        if not self._is_remote:
            self.check()  # A model service says so itself when it is asked to read.
        asked = current()
        spent = time.perf_counter() - asked.began
        if not asked.has_arrived:
            asked.has_arrived = True
            self._metrics.count_arrival(spent)
        if spent >= self._deadline:
            raise DeadlineExceededError(
                f"Receiving and reading the pictures took longer than {self._deadline:g} s. Send "
                "fewer pictures per request."
            )
        if not self._free.acquire(blocking=False):
            self._wait(asked, self._deadline - spent - asked.waited)
        try:
            if asked.waited > 0 and not _connection_state(asked.environ.get("gunicorn.socket"))[0]:
                raise ClientDisconnectedError("The client has closed the connection.")
            yield self.current
        finally:
            self._free.release()

    def _wait(self, asked: ServedRequest, seconds: float) -> None:
        began = time.perf_counter()
        self._metrics.count("requests_waiting")
        try:
            is_free = seconds > 0 and self._free.acquire(timeout=seconds)
        finally:
            self._metrics.count("requests_waiting", by=-1)
            asked.waited += time.perf_counter() - began
        if not is_free:
            self._shed()

    def _shed(self) -> NoReturn:
        raise OverloadedError(
            f"The request waited {self._deadline:g} s for other requests. Send it again later."
        )
