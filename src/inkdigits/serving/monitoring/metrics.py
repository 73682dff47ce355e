"""What the service counts and times, for Prometheus; exact under several worker processes.

The workers write to memory-mapped files of one folder (prometheus_client's multiprocess mode). They
write what they have counted every tenth of a second, which takes a fifth of the time of writing it
with each request.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from inkdigits.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

    from inkdigits.decision.prediction import NumberReading, Prediction
    from inkdigits.log.review import Audit
    from inkdigits.serving.monitoring.drift import DriftMetrics

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text format (prometheus.io/docs/instrumenting/exposition_formats)."""

# prometheus_client decides by it, once and for all, when it is first imported.
_FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
_FOLDER_PREFIX: Final = "inkdigits-run-"
# Times that the files of all processes are read, if one changes meanwhile.
_ATTEMPTS: Final = 5
# Seconds until what was counted is in the files, where other processes find it.
_DELAY_S: Final = 0.1
# Bytes of the file that prometheus_client makes per process and kind of metric.
_FILE_BYTES: Final = 1 << 16
_SECONDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_CONFIDENCES: Final = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)
_IN_FLIGHT: Final = {
    "requests_in_flight": "Requests being answered now.",
    "requests_waiting": "Requests that wait for a reading slot.",
}
_COUNTERS: Final = {
    "requests": ("Requests answered.", "method", "route", "status"),
    "errors": ("Requests, and pictures of a batch, that got an error, by its code.", "code"),
    "decisions": ("Pictures read, by decision.", "decision"),
    "rejects": ("Pictures rejected, by reason.", "reason"),
    "model_readings": (
        "Pictures and numbers read, by model and decision.",
        "model_version",
        "decision",
    ),
    "model_seconds": ("Seconds from encoded pictures to readings.", "model_version"),
    "shadow": (
        "Pictures that a second model read too: the same, or with another digit or decision.",
        *("model_version", "outcome"),
    ),
    "rate_limits": (
        "Requests counted for rate limits, by redis, or by the process while that is unavailable.",
        "counter",
    ),
}


class Readings(NamedTuple):
    """How many pictures were read, how many of them rejected, and the seconds that it took."""

    total: int = 0
    rejected: int = 0
    seconds: float = 0.0

    def since(self, before: Readings) -> Readings:
        """Return what was read since."""
        total, rejected = self.total - before.total, self.rejected - before.rejected
        return Readings(total, rejected, self.seconds - before.seconds)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Make a folder for a server's processes, before any of them makes its metrics.

    It is locked while the service runs, so that no program that cleans up temporary files empties
    it (systemd-tmpfiles(8)). Folders of services that were killed are removed.

    >>> with shared_folder() as folder:
    ...     folder.is_dir()
    True
    """
    _remove_abandoned()
    made = Path(tempfile.mkdtemp(prefix=f".{_FOLDER_PREFIX}"))
    lock = os.open(made, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    # It has this name, by which others find it, only when it is locked.
    folder = made.rename(made.with_name(made.name[1:]))
    os.environ[_FOLDER_VARIABLE] = str(folder)
    maker = os.getpid()
    try:
        yield folder
    finally:
        # A forked worker leaves through here too.
        if os.getpid() == maker:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
            os.environ.pop(_FOLDER_VARIABLE, None)


def _remove_abandoned() -> None:
    for former in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        # An error says that it is another user's, or that a service has locked it.
        with suppress(OSError):
            lock = os.open(former, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(former)
            finally:
                os.close(lock)


def forget_process(folder: Path, pid: int) -> None:
    """Add the counts of a process that has ended to those of its predecessors.

    >>> with shared_folder() as folder:
    ...     forget_process(folder, 12345)
    """
    from prometheus_client.mmap_dict import MmapedDict
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
    for path in folder.glob(f"*_{pid}.db"):
        # A process killed between making the file and giving it its size left it empty.
        if path.stat().st_size > 0:
            past = MmapedDict(str(folder / f"{path.name.partition('_')[0]}_past.db"))  # type: ignore[no-untyped-call]
            for key, value, stamp, _ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
                past.write_value(key, past.read_value(key)[0] + value, stamp)  # type: ignore[no-untyped-call]
            past.close()  # type: ignore[no-untyped-call]
        path.unlink()


class Metrics:
    """The metrics of one process and application. They are safe for threads.

    With the folder of ``shared_folder`` those of several processes are added up; a ConfigError says
    that its disk is full.
    """

    def __init__(self, folder: Path | None = None) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        if folder is not None:
            _reserve(folder)
        self._folder = folder
        self._registry = CollectorRegistry()
        versions = ("model_version", "version")
        self._model = self._gauge(
            "model_info", "1 for the model that answers.", *versions, mode="livemax"
        )
        stages = Histogram(
            "inkdigits_stage_duration_seconds",
            "Seconds of a stage: queue, receiving and total of a request, preprocessing and "
            "inference of a picture.",
            ["stage"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        # Finding a metric by its labels takes longer than counting.
        self._stage = cache(stages.labels)
        self._confidence = Histogram(
            "inkdigits_confidence",
            "Calibrated confidence of the pictures read that have ink.",
            registry=self._registry,
            buckets=_CONFIDENCES,
        )
        self._counted: dict[str, Callable[..., Counter | Gauge]] = {
            name: cache(Counter(f"inkdigits_{name}", text, labels, registry=self._registry).labels)
            for name, (text, *labels) in _COUNTERS.items()
        }
        for name, text in _IN_FLIGHT.items():
            self._counted[name] = partial(lambda gauge: gauge, self._gauge(name, text))
        # Changes of counters and gauges, and values of histograms, that are not written yet.
        self._changes: deque[tuple[Counter | Gauge, float]] = deque()
        self._values: deque[tuple[Histogram, float]] = deque()
        self._writing = threading.Lock()
        self._timer: threading.Timer | None = None
        self._audit: dict[str, Gauge] = {}
        self._model_version: str | None = None
        self._drift: DriftMetrics | None = None
        self._listeners: list[Callable[[Prediction], None]] = []

    def _gauge(self, name: str, meaning: str, *labels: str, mode: Any = "livesum") -> Gauge:
        from prometheus_client import Gauge

        name = f"inkdigits_{name}"
        return Gauge(name, meaning, labels, registry=self._registry, multiprocess_mode=mode)

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Add to a counter, or to what is in flight, with the next ``flush``."""
        self._changes.append((self._counted[name](*labels), by))
        if self._timer is None:
            self._timer = threading.Timer(_DELAY_S, self.flush)
            self._timer.daemon = True
            self._timer.start()

    def flush(self) -> None:
        """Write what was counted until now."""
        # What is counted from here on starts a timer of its own.
        self._timer = None
        with self._writing:
            while self._values:
                histogram, value = self._values.popleft()
                histogram.observe(value)
            changes: defaultdict[Counter | Gauge, float] = defaultdict(float)
            while self._changes:
                metric, by = self._changes.popleft()
                changes[metric] += by
            for metric, by in changes.items():
                metric.inc(by)
            if self._drift is not None and time.monotonic() >= self._drift.due:
                self._drift.flush()

    def count_request(
        self, method: str, route: str, status: int, *, waited: float, seconds: float
    ) -> None:
        """Count an answer to a method that the route allows, or to "other".

        Strangers choose paths, so ``route`` is the rule. ``waited`` are the seconds that the
        request waited for a thread and a slot, ``seconds`` those from its headers to the answer.
        """
        self.count("requests", method, route, str(status))
        if method == "POST":
            # Pages and probes would hide the times that people wait for.
            self._values += ((self._stage("queue"), waited), (self._stage("total"), seconds))

    def count_arrival(self, seconds: float) -> None:
        """Count the seconds from a request's headers until its pictures were here."""
        self._values.append((self._stage("receiving"), seconds))

    def count_prediction(self, prediction: Prediction) -> None:
        """Count a picture that was read."""
        self._values.append((self._stage("preprocessing"), prediction.preprocessing_ms / 1000))
        if prediction.digit is not None:
            self._values.append((self._stage("inference"), prediction.inference_ms / 1000))
            self._values.append((self._confidence, prediction.confidence))
            if self._drift is not None:
                self._drift.recent.append(prediction)
        milliseconds = prediction.preprocessing_ms + prediction.inference_ms
        self._count_decision(prediction, milliseconds / 1000)
        for listener in self._listeners:
            listener(prediction)

    def count_number(self, reading: NumberReading) -> None:
        """Count a number that was read."""
        self._count_decision(reading, reading.total_ms / 1000)

    def _count_decision(self, reading: Prediction | NumberReading, seconds: float) -> None:
        if reading.reason is not None:
            self.count("rejects", reading.reason)
        self.count("decisions", reading.decision)
        self.count("model_readings", reading.model_version, reading.decision)
        self.count("model_seconds", reading.model_version, by=seconds)
        if reading.model_version != self._model_version:
            self.show_model(reading.model_version)

    def readings(self) -> dict[str, Readings]:
        """Return what all processes have read with each model since the service was started."""
        self.flush()
        found: defaultdict[str, Readings] = defaultdict(Readings)
        for sample in (sample for family in self._collected() for sample in family.samples):
            version = sample.labels.get("model_version", "")
            total, rejected, seconds = found[version]
            if sample.name == "inkdigits_model_readings_total":
                is_reject = sample.labels["decision"] == "reject"
                total, rejected = total + sample.value, rejected + is_reject * sample.value
            elif sample.name == "inkdigits_model_seconds_total":
                seconds += sample.value
            found[version] = Readings(int(total), int(rejected), seconds)
        return found

    def tell(self, listener: Callable[[Prediction], None]) -> None:
        """Call a listener with every picture that is read from now on, in its thread."""
        self._listeners.append(listener)

    def compare_with_reference(self, metadata: Any) -> None:
        """Compare the pictures that are read with the reference of an artifact, if it has one."""
        from inkdigits.serving.monitoring.drift import DriftMetrics, reference_of

        reference = reference_of(metadata)
        if reference is not None and self._drift is not None:
            self._drift.follow(reference)
        elif reference is not None:
            self._drift = DriftMetrics(reference, self._gauge)

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

    def show_audit(self, audit: Audit, risk: float | None) -> None:
        """Say what the random audit of the accepted readings found; one process does so."""
        shown = {
            "labelled": (audit.labelled, "Accepted readings of the model that reviewers audited."),
            "wrong": (audit.wrong, "Of these, how many were read wrong."),
            "waiting": (audit.waiting, "Accepted readings of the model that wait for their audit."),
            "risk_low": (audit.low, "Share of the accepted that is wrong, at least (95 %)."),
            "risk_high": (audit.high, "Share of the accepted that is wrong, at most (95 %)."),
            "risk_stated": (risk or 0.0, "Share of the accepted that may be wrong; 0 if unknown."),
            "broken": (
                risk is not None and audit.breaks(risk),
                "1 if more of the accepted are wrong than was stated.",
            ),
        }
        for name, (value, meaning) in shown.items():
            if name not in self._audit:
                self._audit[name] = self._gauge(f"audit_{name}", meaning, mode="livemostrecent")
            self._audit[name].set(value)

    def render(self) -> bytes:
        """Return the metrics of all processes in Prometheus's text format."""
        from prometheus_client import generate_latest

        self.flush()
        if self._drift is not None:
            self._drift.flush()
        return generate_latest(self)

    def collect(self) -> list[Any]:
        """Return the families of all processes, as prometheus_client collects them."""
        families = self._collected()
        return families if self._drift is None else [*families, *self._drift.derived(families)]

    def _collected(self) -> list[Any]:
        from prometheus_client.multiprocess import MultiProcessCollector

        if self._folder is None:
            return list(self._registry.collect())
        collector = MultiProcessCollector(None, str(self._folder))  # type: ignore[no-untyped-call]
        for _ in range(_ATTEMPTS - 1):
            try:
                return list(collector.collect())  # type: ignore[no-untyped-call]
            except (FileNotFoundError, struct.error):
                # Since the files were listed a worker ended, or began and has made an empty one.
                time.sleep(0.01)
        return list(collector.collect())  # type: ignore[no-untyped-call]


def _reserve(folder: Path) -> None:
    """Allocate this process's files: writing to a hole in a mapped file on a full disk kills it."""
    if not hasattr(os, "posix_fallocate"):
        return
    kinds = ("counter", "histogram", "gauge_livesum", "gauge_livemax", "gauge_livemostrecent")
    try:
        for kind in kinds:
            with (folder / f"{kind}_{os.getpid()}.db").open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, _FILE_BYTES)
    except OSError as error:
        raise ConfigError(
            f"there is no room for the metrics in {folder}: {error.strerror}; free some space "
            "or name another folder in TMPDIR"
        ) from error
