"""The drift of what is read, as metrics for Prometheus; exact under several worker processes.

Each worker keeps a window of its own and shows its bins. Whoever is asked adds up the bins of all
workers and compares the sums with the reference.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from inkdigits.decision.drift import (
    PROVENANCE,
    DriftReference,
    Window,
    population_stability_index,
)
from inkdigits.errors import DataError
from inkdigits.serving.monitoring.logging import fields

if TYPE_CHECKING:
    from inkdigits.decision.prediction import Prediction

WINDOW: Final = 1000
"""Pictures of a worker after which a picture's weight has fallen to 1/e."""

PERIOD_S: Final = 1.0
"""Seconds between two measurements of the ink; a batch costs less than one by one."""

MOST_PER_PERIOD: Final = 64
"""Pictures that are measured in that time; of a busier worker they are the last ones."""

logger = logging.getLogger(__name__)


def reference_of(metadata: Any) -> DriftReference | None:
    """Return the reference in an artifact's metadata, if it has a valid one.

    >>> reference_of(None) is None
    True
    """
    provenance = getattr(metadata, "provenance", {})
    if PROVENANCE not in provenance:
        return None
    try:
        return DriftReference.from_dict(provenance[PROVENANCE])
    except DataError as error:
        # The model reads as well without it.
        logger.warning("drift is not measured", extra=fields(error=error))
        return None


class DriftMetrics:
    """Says how far recent predictions are from the reference. It is safe for threads.

    Args:
        reference: to compare with.
        gauge: makes a gauge from its name, meaning, multiprocess mode and labels.

    Attributes:
        recent: predictions with a digit that have not been measured.
        due: when to call ``flush`` again, by ``time.monotonic``.
    """

    def __init__(self, reference: DriftReference, gauge: Callable[..., Any]) -> None:
        self.recent: deque[Prediction] = deque(maxlen=MOST_PER_PERIOD)
        self.due = 0.0
        self._reference = reference
        self._window = Window(reference, WINDOW)
        self._lock = threading.Lock()
        self._bins = gauge(
            "inkdigits_drift_window",
            "Weight of the pictures last read, by statistic and bin.",
            *("livesum", "statistic", "bin"),
        )
        self._sums = gauge(
            "inkdigits_drift_window_total",
            "Weighted sum of a statistic over the pictures last read.",
            *("livesum", "statistic"),
        )

    def follow(self, reference: DriftReference) -> None:
        """Compare with the reference of another model, and forget what was read before."""
        with self._lock:
            self.recent.clear()
            for name, counts in self._window.counts.items():
                for number in range(len(counts)):
                    self._bins.labels(name, str(number)).set(0)
                self._sums.labels(name).set(0)
            self._reference = reference
            self._window = Window(reference, WINDOW)

    def flush(self) -> None:
        """Measure the recent predictions."""
        self.due = time.monotonic() + PERIOD_S
        with self._lock:
            recent = [self.recent.popleft() for _ in range(len(self.recent))]
            stacked = np.array([p.ink for p in recent], np.uint8).reshape(-1, 28, 28)
            has_ink = stacked.any(axis=(1, 2))
            if not has_ink.any():
                return
            confidences = np.array([p.confidence for p in recent])
            self._window.add(stacked[has_ink], confidences[has_ink])
            for name, counts in self._window.counts.items():
                for number, weight in enumerate(counts.tolist()):
                    self._bins.labels(name, str(number)).set(weight)
                self._sums.labels(name).set(self._window.sums[name])

    def derived(self, families: Iterable[Any]) -> Iterator[Any]:
        """Yield the comparison with the reference.

        Args:
            families: of prometheus_client, collected of all processes.
        """
        from prometheus_client.core import GaugeMetricFamily

        psi = GaugeMetricFamily(
            "inkdigits_drift_psi",
            "Population stability index of the pictures last read against the reference.",
            labels=["statistic"],
        )
        shift = GaugeMetricFamily(
            "inkdigits_drift_mean_shift",
            "Mean of the pictures last read less that of the reference, in its deviations.",
            labels=["statistic"],
        )
        pictures = GaugeMetricFamily(
            "inkdigits_drift_pictures", "Weight of the pictures last read, all together."
        )
        counts = {n: np.zeros(len(one.shares)) for n, one in self._reference.statistics.items()}
        sums = dict.fromkeys(counts, 0.0)
        for sample in (sample for family in families for sample in family.samples):
            name = sample.labels.get("statistic")
            if sample.name == "inkdigits_drift_window":
                number = int(sample.labels["bin"])
                # While a model is being replaced, a worker may have bins of another reference.
                if number < len(counts[name]):
                    counts[name][number] += sample.value
            elif sample.name == "inkdigits_drift_window_total":
                sums[name] += sample.value
        pictures.add_metric([], max(float(one.sum()) for one in counts.values()))
        for name, one in self._reference.statistics.items():
            weight = float(counts[name].sum())
            if weight == 0:
                continue
            psi.add_metric([name], population_stability_index(counts[name], one.shares))
            if one.deviation > 0:
                shift.add_metric([name], (sums[name] / weight - one.mean) / one.deviation)
        yield from (psi, shift, pictures)
