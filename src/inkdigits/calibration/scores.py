"""How good probabilities are, before and after calibration: scores, reliability. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from inkdigits.calibration.intervals import Estimate, bootstrap_interval
from inkdigits.calibration.temperature import check_labels, check_scores, fit_temperature
from inkdigits.calibration.temperature import probabilities as softmax
from inkdigits.errors import DataError
from inkdigits.types import Doubles, Labels

_N_BINS = 15
# Rounding of a float32 softmax stays well below this; a row of logits does not.
_SUM_TOLERANCE = 1e-4


def nll(p: Doubles, y: Labels) -> float:
    """Return the mean of -ln(probability of the true digit), in nats; 0 is perfect.

    A probability that underflowed to 0 counts as 2.2e-308 (a loss of 708), so that no picture
    makes the mean infinite. The probabilities are (N, 10), the labels (N,).

    >>> round(nll(np.full((3, 10), 0.1), np.array([1, 2, 3])), 4)
    2.3026
    """
    likelihood = np.maximum(p[np.arange(len(y)), y], np.finfo(np.float64).tiny)
    return float(-np.log(likelihood).mean())


def brier(p: Doubles, y: Labels) -> float:
    """Return the Brier score as a sum over the ten digits, from 0 (perfect) to 2.

    It is the mean over pictures of the sum over digits of (probability - indicator)^2 (Brier,
    "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78, 1950,
    page 1). Libraries that average over the digits report a tenth of it.

    >>> brier(np.eye(10)[[3, 4]], np.array([3, 5]))
    1.0
    """
    # sum (p - e)^2 = sum p^2 - 2 p_true + 1, without building the (N, 10) indicators.
    return float(np.mean((p * p).sum(axis=1) - 2 * p[np.arange(len(y)), y] + 1))


@dataclass(frozen=True, slots=True, eq=False)
class ReliabilityCurve:
    """Confidence against accuracy in each of M bins; those that hold no picture are left out."""

    lower: Doubles  # edges, excluded
    upper: Doubles  # edges, included
    confidence: Doubles  # mean
    accuracy: Doubles  # share read right
    count: Labels  # pictures

    @property
    def n(self) -> int:
        """Number of pictures."""
        return int(self.count.sum())

    @property
    def ece(self) -> float:
        """Mean of |accuracy - confidence| over the bins, weighted by their pictures; 0 to 1."""
        return float(np.sum(self.count * np.abs(self.accuracy - self.confidence)) / self.n)


def reliability_curve(p: Doubles, y: Labels, *, adaptive: bool = False) -> ReliabilityCurve:
    """Bin the pictures by the confidence of the digit read, and compare with the accuracy.

    The 15 bins cut [0, 1] evenly (Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al. 2017,
    section 2). If ``adaptive``, each has the same number of pictures (Nixon et al., "Measuring
    Calibration in Deep Learning", CVPR workshops 2019, section 3); equal confidences share a bin,
    so that order does not matter. The ECE is biased upwards where bins hold few pictures.

    >>> curve = reliability_curve(np.eye(10)[[3, 4]], np.array([3, 5]))
    >>> curve.confidence, curve.accuracy, curve.ece
    (array([1.]), array([0.5]), 0.5)
    """
    confidence = p.max(axis=1)
    if adaptive:
        # The k-th upper edge is the confidence of the last of the first k/15 pictures.
        last = -(-len(y) * np.arange(1, _N_BINS + 1) // _N_BINS) - 1
        edges = np.concatenate(([0.0], np.unique(np.sort(confidence)[np.maximum(last, 0)])))
    else:
        edges = np.linspace(0, 1, _N_BINS + 1)
        edges[-1] = max(1.0, confidence.max())  # a float32 row may round to a little over 1
    bins = np.searchsorted(edges[1:-1], confidence, side="left")
    size = len(edges) - 1
    count = np.bincount(bins, minlength=size)
    used = count > 0
    right = np.bincount(bins, weights=p.argmax(axis=1) == y, minlength=size)
    total = np.bincount(bins, weights=confidence, minlength=size)
    return ReliabilityCurve(
        lower=edges[:-1][used],
        upper=edges[1:][used],
        confidence=total[used] / count[used],
        accuracy=right[used] / count[used],
        count=count[used],
    )


def _ece(p: Doubles, y: Labels, *, adaptive: bool) -> float:
    return reliability_curve(p, y, adaptive=adaptive).ece


@dataclass(frozen=True, slots=True)
class ProbabilityScores:
    """How good probabilities are: NLL (nats), Brier (0 to 2), and both kinds of ECE (0 to 1)."""

    nll: Estimate
    brier: Estimate
    ece: Estimate
    ece_adaptive: Estimate


def score_probabilities(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, writers: npt.ArrayLike | None = None
) -> ProbabilityScores:
    """Return NLL, Brier and both ECEs (15 bins), each with its bootstrap interval.

    Arguments are those of ``bootstrap_interval``; DataError as in ``check_probabilities``.

    >>> score_probabilities(np.eye(10)[[3, 4]], [3, 4]).brier
    Estimate(value=0.0, low=0.0, high=0.0)
    """
    p, y = check_probabilities(probabilities, labels)
    metrics = (nll, brier, partial(_ece, adaptive=False), partial(_ece, adaptive=True))
    return ProbabilityScores(
        *(Estimate(metric(p, y), *bootstrap_interval(metric, p, y, writers)) for metric in metrics)
    )


def check_probabilities(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[Doubles, Labels]:
    """Return probabilities as (N, 10) float64 and labels as (N,) int64.

    Raises:
        DataError: empty; another shape; not finite; negative; rows that do not sum to 1 within
            1e-4; labels that are not integers from 0 to 9.

    >>> p, y = check_probabilities([[0.1] * 10], [7])
    >>> p.shape, y.dtype
    ((1, 10), dtype('int64'))
    """
    p = check_scores(probabilities, "probabilities")
    if p.min() < 0:
        raise DataError(f"probabilities must not be negative; the lowest is {p.min():g}")
    furthest = float(np.abs(p.sum(axis=1) - 1).max())
    if furthest > _SUM_TOLERANCE:
        raise DataError(
            f"probabilities must sum to 1 within {_SUM_TOLERANCE:g}; a row is {furthest:g} off"
        )
    return p, check_labels(labels, len(p))


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """What temperature scaling did to the pictures that it was fitted on."""

    temperature: float
    n: int
    accuracy_before: float  # share read right at T = 1
    accuracy_after: float  # and at the fitted T, which is the same
    before: ProbabilityScores
    after: ProbabilityScores  # a little optimistic, for T was fitted on the same pictures


def calibrate(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    also: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    writers: npt.ArrayLike | None = None,
) -> CalibrationReport:
    """Fit the temperature and measure the probabilities before and after it.

    The logits (N, 10) and labels (N,) are of pictures that neither trained the network nor chose
    it. ``also`` has logits and labels of other pictures that the temperature is fitted to beside
    these; they are not scored. ``writers`` (N,) says who wrote each digit, for the bootstrap.

    Raises:
        DataError: as ``fit_temperature``; or the temperature changed a reading, which only
            logits too close for float64 can do.

    >>> calibrate(4 * np.eye(10)[[1, 2, 3, 4]], [1, 2, 3, 0]).accuracy_after
    0.75
    """
    sets = [(logits, labels)] if also is None else [(logits, labels), also]
    temperature = fit_temperature(*(np.concatenate(parts) for parts in zip(*sets, strict=True)))
    before, after = softmax(logits, 1.0), softmax(logits, temperature)
    y = check_labels(labels, len(before))
    if not np.array_equal(before.argmax(axis=1), after.argmax(axis=1)):
        raise DataError("dividing by the temperature changed which digit is read: logits tie")
    return CalibrationReport(
        temperature=temperature,
        n=len(y),
        accuracy_before=float(np.mean(before.argmax(axis=1) == y)),
        accuracy_after=float(np.mean(after.argmax(axis=1) == y)),
        before=score_probabilities(before, y, writers=writers),
        after=score_probabilities(after, y, writers=writers),
    )
