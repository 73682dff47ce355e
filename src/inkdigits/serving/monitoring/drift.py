"""The drift of what is read, as figures for Prometheus; right under several worker processes.

Each worker keeps a window of its own and shows its bins. Whoever is asked adds the bins of all
workers up and compares the sums with the reference.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from inkdigits.decision.drift import (
    PROVENANCE,
    DriftReference,
    Window,
    population_stability_index,
)
from inkdigits.errors import DataError
from inkdigits.serving.monitoring.logging import fields

if TYPE_CHECKING:
    from inkdigits.decision.prediction import Prediction, Reader
    from inkdigits.serving.monitoring.metrics import Metrics

WINDOW: Final = 1000
"""Pictures of a worker after which a picture's weight has fallen to 1/e."""

PERIOD_S: Final = 1.0
"""Seconds between two looks at the ink; it is looked at in batches, for one by one costs more."""

MOST_A_PERIOD: Final = 64
"""Pictures that are looked at in that time; a busier worker looks at a part of its pictures."""

logger = logging.getLogger(__name__)


def compare_with_reference(metrics: Metrics, reader: Reader) -> None:
    """Have the readings compared with the reference in the reader's artifact, if it has one."""
    provenance = getattr(getattr(reader, "metadata", None), "provenance", {})
    if PROVENANCE not in provenance:
        return
    try:
        metrics.compare_with(DriftReference.from_dict(provenance[PROVENANCE]))
    except DataError as error:
        # The model reads as well without it.
        logger.warning("no figures of drift", extra=fields(error=error))


class DriftFigures:
    """Takes readings in, and says how far they are from the reference. Safe for threads.

    Args:
        reference: to compare with.
        registry: of the other figures.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        reference: DriftReference,
        registry: Any,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from prometheus_client import Gauge

        self._reference = reference
        self._clock = clock
        self._window = Window(reference, WINDOW)
        self._taking, self._counting = threading.Lock(), threading.Lock()
        self._inks: list[npt.NDArray[np.uint8]] = []
        self._confidences: list[float] = []
        self._due = clock()
        self._bins = Gauge(
            "inkdigits_drift_window",
            "Weight of the pictures last read, by statistic and bin.",
            ["statistic", "bin"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._sums = Gauge(
            "inkdigits_drift_window_total",
            "Weighted sum of a statistic over the pictures last read.",
            ["statistic"],
            multiprocess_mode="livesum",
            registry=registry,
        )

    def observe(self, prediction: Prediction) -> None:
        """Take a reading in; now and then, count those that have been taken in."""
        if prediction.digit is None:
            return
        with self._taking:
            if len(self._inks) < MOST_A_PERIOD:
                self._inks.append(prediction.ink)
                self._confidences.append(prediction.confidence)
            is_due = self._clock() >= self._due
        if is_due:
            self.flush()

    def flush(self) -> None:
        """Count the readings that have been taken in."""
        with self._taking:
            self._due = self._clock() + PERIOD_S
            inks, confidences = self._inks, self._confidences
            self._inks, self._confidences = [], []
        with self._counting:
            stacked = np.array(inks, np.uint8).reshape(-1, 28, 28)
            has_ink = stacked.any(axis=(1, 2))
            if not has_ink.any():
                return
            self._window.add(stacked[has_ink], np.array(confidences)[has_ink])
            for name, counts in self._window.counts.items():
                for number, weight in enumerate(counts.tolist()):
                    self._bins.labels(name, str(number)).set(weight)
                self._sums.labels(name).set(self._window.sums[name])

    def derived(self, families: Iterable[Any]) -> Iterator[Any]:
        """The comparison, of what was collected of all processes.

        Args:
            families: of prometheus_client, the two of this object among them.
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
        for family in families:
            for sample in family.samples:
                name = sample.labels.get("statistic")
                if sample.name == "inkdigits_drift_window":
                    number = int(sample.labels["bin"])
                    # While a model is being replaced, a worker may have bins of another reference.
                    if number < len(counts[name]):
                        counts[name][number] += sample.value
                elif sample.name == "inkdigits_drift_window_total":
                    sums[name] += sample.value
        weight = max(float(one.sum()) for one in counts.values())
        pictures.add_metric([], weight)
        for name, one in self._reference.statistics.items():
            if counts[name].sum() > 0:
                psi.add_metric([name], population_stability_index(counts[name], one.shares))
                if one.deviation > 0:
                    mean = sums[name] / float(counts[name].sum())
                    shift.add_metric([name], (mean - one.mean) / one.deviation)
        yield from (psi, shift, pictures)
