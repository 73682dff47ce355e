"""What the service counts and times, for Prometheus; right under several worker processes.

Each worker writes its figures to memory-mapped files in one folder, and whoever is asked adds them
up (the multiprocess mode of prometheus_client). A worker that dies leaves its counts behind.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from inkdigits.decision.drift import DriftReference
    from inkdigits.decision.prediction import Prediction
    from inkdigits.serving.monitoring.drift import DriftFigures

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text format (prometheus.io/docs/instrumenting/exposition_formats)."""

# prometheus_client decides by it, once and for all, when it is first imported.
_FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_CONFIDENCES: Final = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder for the figures of a server's processes, removed at the end.

    To be entered before any process of the server makes its ``Metrics``.
    """
    folder = Path(tempfile.mkdtemp(prefix="inkdigits-metrics-"))
    before = os.environ.get(_FOLDER_VARIABLE)
    os.environ[_FOLDER_VARIABLE] = str(folder)
    maker = os.getpid()
    try:
        yield folder
    finally:
        # A forked worker leaves through here too.
        if os.getpid() == maker:
            shutil.rmtree(folder, ignore_errors=True)
            if before is None:
                del os.environ[_FOLDER_VARIABLE]
            else:
                os.environ[_FOLDER_VARIABLE] = before


def forget_process(folder: Path, pid: int) -> None:
    """Take a process that has ended out of the figures of those that live; its counts stay.

    Args:
        folder: of ``shared_folder``.
        pid: of the process.
    """
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
    for path in folder.glob(f"*_{pid}.db"):
        # Killed between making the file and giving it its size: it could never be read.
        if path.stat().st_size == 0:
            path.unlink()


class Metrics:
    """The service's figures. Safe for threads; one for each process and application.

    Args:
        folder: of ``shared_folder``, to add up the figures of several processes; None keeps them
            in this process.
    """

    def __init__(self, folder: Path | None = None) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._folder = folder
        self._registry = CollectorRegistry()
        own = self._registry
        self._requests = Counter(
            "inkdigits_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=own,
        )
        self._in_flight = Gauge(
            "inkdigits_requests_in_flight",
            "Requests being answered now.",
            multiprocess_mode="livesum",
            registry=own,
        )
        self._waiting = Gauge(
            "inkdigits_requests_waiting",
            "Requests that wait for a thread.",
            multiprocess_mode="livesum",
            registry=own,
        )
        stages = Histogram(
            "inkdigits_stage_duration_seconds",
            "Seconds of a stage: queue, receiving and total of a request, preprocessing and "
            "inference of a picture.",
            ["stage"],
            buckets=_SECONDS,
            registry=own,
        )
        self._queue, self._receiving, self._total, self._preprocessing, self._inference = (
            # Looked up once: a lookup costs as much as an observation.
            stages.labels(stage)
            for stage in ("queue", "receiving", "total", "preprocessing", "inference")
        )
        self._errors = Counter(
            "inkdigits_errors",
            "Requests, and pictures of a batch, that got an error, by its code.",
            ["code"],
            registry=own,
        )
        self._decisions = Counter(
            "inkdigits_decisions", "Pictures read, by decision.", ["decision"], registry=own
        )
        self._rejects = Counter(
            "inkdigits_rejects", "Pictures rejected, by reason.", ["reason"], registry=own
        )
        self._confidence = Histogram(
            "inkdigits_confidence",
            "Calibrated confidence of the pictures read that have ink.",
            buckets=_CONFIDENCES,
            registry=own,
        )
        self._model = Gauge(
            "inkdigits_model_info",
            "1 for the model that answers.",
            ["model_version", "version"],
            multiprocess_mode="livemax",
            registry=own,
        )
        self._model_version: str | None = None
        # Finding the figure of some labels takes longer than counting.
        self._request_of = cache(self._requests.labels)
        self._error_of = cache(self._errors.labels)
        self._decision_of = cache(self._decisions.labels)
        self._reject_of = cache(self._rejects.labels)
        self._drift: DriftFigures | None = None
        self._listeners: list[Callable[[Prediction], None]] = []

    def show_waiting(self, number: int) -> None:
        """Say how many requests wait for a thread of this process."""
        self._waiting.set(number)

    def begin_request(self) -> None:
        """Count a request among those in flight."""
        self._in_flight.inc()

    def end_request(self) -> None:
        """Count it no more."""
        self._in_flight.dec()

    def count_request(
        self, method: str, route: str, status: int, *, waited: float, seconds: float
    ) -> None:
        """Count an answer.

        Args:
            method: one that the route takes, or "other".
            route: the rule of the path, never the path itself: strangers choose paths.
            status: of the answer.
            waited: seconds that the request waited for a thread.
            seconds: from the request's headers to the answer.
        """
        self._request_of(method, route, str(status)).inc()
        if method == "POST":
            # Pages and probes would drown what people wait for.
            self._queue.observe(waited)
            self._total.observe(seconds)

    def count_arrival(self, seconds: float) -> None:
        """Count the pictures of a request that are here: seconds since its headers were."""
        self._receiving.observe(seconds)

    def count_error(self, code: str) -> None:
        """Count a refused request, or a refused picture of a batch."""
        self._error_of(code).inc()

    def count_prediction(self, prediction: Prediction) -> None:
        """Count a picture that was read."""
        self._preprocessing.observe(prediction.preprocessing_ms / 1000)
        self._decision_of(prediction.decision).inc()
        if prediction.reason is not None:
            self._reject_of(prediction.reason).inc()
        if prediction.digit is not None:
            self._inference.observe(prediction.inference_ms / 1000)
            self._confidence.observe(prediction.confidence)
        for listener in self._listeners:
            listener(prediction)
        self.show_model(prediction.model_version)

    def tell(self, listener: Callable[[Prediction], None]) -> None:
        """Have a listener called with every picture that was read, in the thread that read it."""
        self._listeners.append(listener)

    def compare_with(self, reference: DriftReference) -> None:
        """Compare the pictures that are read with a reference from now on."""
        from inkdigits.serving.monitoring.drift import DriftFigures

        self._drift = DriftFigures(reference, self._registry)
        self.tell(self._drift.observe)

    def show_model(self, model_version: str) -> None:
        """Say which model answers."""
        former = self._model_version
        if model_version == former:
            return
        package_version = version("inkdigits")
        if former is not None:
            self._model.labels(former, package_version).set(0)
        self._model.labels(model_version, package_version).set(1)
        self._model_version = model_version

    def render(self) -> bytes:
        """The figures of all processes in Prometheus's text format."""
        from prometheus_client import generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        if self._drift is not None:
            self._drift.flush()
        source: Any = self._registry
        if self._folder is not None:
            source = MultiProcessCollector(None, str(self._folder))  # type: ignore[no-untyped-call]
        families = _Families(source.collect())
        if self._drift is not None:
            families += self._drift.derived(families)
        return generate_latest(families)


class _Families(list[Any]):
    """What was collected, as if it were to be collected."""

    def collect(self) -> list[Any]:
        return self
