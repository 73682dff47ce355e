"""The drift of what is read, as metrics for Prometheus.

Each worker shows the bins of its own window; whoever is asked adds them up and compares the sums.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
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
"""Pictures that are measured in that time: the last ones of a busier worker."""

_DERIVED: Final[tuple[tuple[str, str, list[str]], ...]] = (
    ("psi", "Population stability index of the pictures last read.", ["statistic"]),
    ("mean_shift", "Shift of the mean from the reference, in its deviations.", ["statistic"]),
    ("pictures", "Weight of the pictures last read, all together.", []),
)

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

    ``gauge`` makes a gauge of the workers' sum from its name, meaning and labels.
    """

    def __init__(self, reference: DriftReference, gauge: Callable[..., Any]) -> None:
        # Predictions with a digit that have not been measured.
        self.recent: deque[Prediction] = deque(maxlen=MOST_PER_PERIOD)
        # When to call ``flush`` again, by ``time.monotonic``.
        self.due = 0.0
        self._reference = reference
        self._window = Window(reference, WINDOW)
        self._lock = threading.Lock()
        self._bins = gauge(
            "drift_window",
            "Weight of the pictures last read, by statistic and bin.",
            *("statistic", "bin"),
        )
        self._sums = gauge(
            "drift_window_total",
            "Weighted sum of a statistic over the pictures last read.",
            "statistic",
        )

    def follow(self, reference: DriftReference) -> None:
        """Compare with the reference of another model, and forget what was read before."""
        with self._lock:
            self.recent.clear()
            # An empty window shows zeros in all bins of the former reference.
            self._window = Window(self._reference, WINDOW)
            self._show_window()
            self._reference, self._window = reference, Window(reference, WINDOW)

    def _show_window(self) -> None:
        for name, counts in self._window.counts.items():
            for number, weight in enumerate(counts.tolist()):
                self._bins.labels(name, str(number)).set(weight)
            self._sums.labels(name).set(self._window.sums[name])

    def flush(self) -> None:
        """Measure the recent predictions."""
        self.due = time.monotonic() + PERIOD_S
        with self._lock:
            recent = [self.recent.popleft() for _ in range(len(self.recent))]
            stacked = np.array([p.ink for p in recent], np.uint8).reshape(-1, 28, 28)
            has_ink = stacked.any(axis=(1, 2))
            if has_ink.any():
                confidences = np.array([p.confidence for p in recent])
                self._window.add(stacked[has_ink], confidences[has_ink])
                self._show_window()

    def derived(self, families: Iterable[Any]) -> tuple[Any, ...]:
        """Return the comparison with the reference, given the families of all processes."""
        from prometheus_client.core import GaugeMetricFamily

        psi, shift, pictures = (
            GaugeMetricFamily(f"inkdigits_drift_{name}", meaning, labels=labels)
            for name, meaning, labels in _DERIVED
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
        return psi, shift, pictures
