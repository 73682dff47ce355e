"""How good probabilities are, before and after calibration: scores, reliability. NumPy only."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from inkdigits.calibration.intervals import LEVEL, N_RESAMPLES, Estimate, bootstrap_interval
from inkdigits.calibration.temperature import check_labels, check_scores, fit_temperature
from inkdigits.calibration.temperature import probabilities as softmax
from inkdigits.errors import ConfigError, DataError
from inkdigits.types import Doubles, Json, Labels

Scheme: TypeAlias = Literal["equal_width", "adaptive"]

N_BINS = 15
# Rounding of a float32 softmax stays well below this; a row of logits does not.
_SUM_TOLERANCE = 1e-4


def nll(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the mean of -ln(probability of the true digit), in nats; 0 is perfect.

    A probability that underflowed to 0 counts as 2.2e-308 (a loss of 708), so that no picture
    makes the mean infinite. Shapes and errors are those of ``check_probabilities``.

    >>> round(nll(np.full((3, 10), 0.1), [1, 2, 3]), 4)
    2.3026
    """
    p, y = check_probabilities(probabilities, labels)
    likelihood = np.maximum(p[np.arange(len(y)), y], np.finfo(np.float64).tiny)
    return float(-np.log(likelihood).mean())


def brier(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the Brier score as a sum over the ten digits, from 0 (perfect) to 2.

    It is the mean over pictures of the sum over digits of (probability - indicator)^2 (Brier,
    "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78, 1950,
    page 1). Libraries that average over the digits report a tenth of it. Shapes and errors are
    those of ``check_probabilities``.

    >>> brier(np.eye(10)[[3, 4]], [3, 5])
    1.0
    """
    p, y = check_probabilities(probabilities, labels)
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


def reliability_curve(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    n_bins: int = N_BINS,
    scheme: Scheme = "equal_width",
) -> ReliabilityCurve:
    """Bin the pictures by the confidence of the digit read, and compare with the accuracy.

    Args:
        probabilities: (N, 10), rows summing to 1.
        labels: (N,) integers from 0 to 9.
        n_bins: how many bins, at least 1.
        scheme: "equal_width" cuts [0, 1] evenly (Naeini, Cooper and Hauskrecht, AAAI 2015; Guo
            et al. 2017, section 2). "adaptive" gives each bin the same number of pictures
            (Nixon et al., "Measuring Calibration in Deep Learning", CVPR workshops 2019,
            section 3); equal confidences share a bin, so that order does not matter.

    Raises:
        DataError: as ``check_probabilities``.
        ConfigError: an unknown scheme, or fewer than 1 bin.

    >>> curve = reliability_curve(np.eye(10)[[3, 4]], [3, 5])
    >>> curve.confidence, curve.accuracy
    (array([1.]), array([0.5]))
    """
    p, y = check_probabilities(probabilities, labels)
    if n_bins < 1:
        raise ConfigError(f"n_bins is {n_bins}; at least 1 is needed")
    confidence = p.max(axis=1)
    if scheme == "equal_width":
        edges = np.linspace(0, 1, n_bins + 1)
        edges[-1] = max(1.0, confidence.max())  # a float32 row may round to a little over 1
    elif scheme == "adaptive":
        # The k-th upper edge is the confidence of the last of the first k/n_bins pictures.
        last = -(-len(y) * np.arange(1, n_bins + 1) // n_bins) - 1
        edges = np.concatenate(([0.0], np.unique(np.sort(confidence)[np.maximum(last, 0)])))
    else:
        raise ConfigError(f"scheme is {scheme!r}; it must be 'equal_width' or 'adaptive'")
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


def expected_calibration_error(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    n_bins: int = N_BINS,
    scheme: Scheme = "equal_width",
) -> float:
    """Return the ECE of the digit read, from 0 to 1; arguments are ``reliability_curve``'s.

    It is biased upwards where bins hold few pictures: a perfectly calibrated reader scores a
    little over 0 (Nixon et al. 2019, section 3).

    >>> expected_calibration_error(np.eye(10)[[3, 4]], [3, 5])
    0.5
    """
    return reliability_curve(probabilities, labels, n_bins, scheme).ece


@dataclass(frozen=True, slots=True)
class ProbabilityScores:
    """How good probabilities are: NLL (nats), Brier (0 to 2), and both kinds of ECE (0 to 1)."""

    nll: Estimate
    brier: Estimate
    ece: Estimate
    ece_adaptive: Estimate


def score_probabilities(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    n_resamples: int = N_RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    writers: npt.ArrayLike | None = None,
) -> ProbabilityScores:
    """Return NLL, Brier and both ECEs (15 bins), each with its bootstrap interval.

    Arguments are those of ``bootstrap_interval``; DataError as in ``check_probabilities``.

    >>> score_probabilities(np.eye(10)[[3, 4]], [3, 4], n_resamples=9).brier
    Estimate(value=0.0, low=0.0, high=0.0)
    """
    p, y = check_probabilities(probabilities, labels)
    ece = expected_calibration_error
    return ProbabilityScores(
        *(
            Estimate(
                metric(p, y), *bootstrap_interval(metric, p, y, n_resamples, level, seed, writers)
            )
            for metric in (nll, brier, ece, partial(ece, scheme="adaptive"))
        )
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

    def to_dict(self) -> Json:
        """Return the same as nested dictionaries of numbers, for ``json.dumps``."""
        return asdict(self)


def calibrate(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    also: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    writers: npt.ArrayLike | None = None,
) -> CalibrationReport:
    """Fit the temperature and measure the probabilities before and after it.

    Args:
        logits: (N, 10), finite, of pictures that neither trained the network nor chose it.
        labels: (N,) integers from 0 to 9.
        also: logits and labels of other pictures that the temperature is fitted to beside these,
            each picture counting the same; they are not scored.
        n_resamples: bootstrap resamples behind each interval.
        seed: of the bootstrap.
        writers: (N,) who wrote each digit; the bootstrap then draws writers.

    Raises:
        DataError: as ``fit_temperature``; or the temperature changed a reading, which only
            logits too close for float64 can do.

    >>> logits, labels = 4 * np.eye(10)[[1, 2, 3, 4]], [1, 2, 3, 0]
    >>> calibrate(logits, labels, n_resamples=9).accuracy_after
    0.75
    """
    sets = [(logits, labels)] if also is None else [(logits, labels), also]
    temperature = fit_temperature(*(np.concatenate(parts) for parts in zip(*sets, strict=True)))
    before, after = softmax(logits, 1.0), softmax(logits, temperature)
    y = check_labels(labels, len(before))
    if not np.array_equal(before.argmax(axis=1), after.argmax(axis=1)):
        raise DataError("dividing by the temperature changed which digit is read: logits tie")
    bootstrap: Json = {"n_resamples": n_resamples, "seed": seed, "writers": writers}
    return CalibrationReport(
        temperature=temperature,
        n=len(y),
        accuracy_before=float(np.mean(before.argmax(axis=1) == y)),
        accuracy_after=float(np.mean(after.argmax(axis=1) == y)),
        before=score_probabilities(before, y, **bootstrap),
        after=score_probabilities(after, y, **bootstrap),
    )
