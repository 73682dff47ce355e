"""Accept thresholds that keep a stated risk, from pictures whose labels are known. NumPy only.

A threshold passes if the one-sided Clopper-Pearson upper bound, at a level, on the error rate of
the calibration pictures that it accepts is at most the risk. That is selective classification with
a guaranteed risk (Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks",
NeurIPS 2017, section 3 and lemma 3.1).

Trying many thresholds on the same pictures and keeping the best would void the guarantee. So this
is a fixed-sequence test: the thresholds are set beforehand, tried from the strictest down, and the
search ends at the first that fails. A wrong threshold can pass only if the first wrong one does,
and that has a chance of at most 1 - level. The search starts at the first threshold that accepts
enough pictures to pass with one mistake among them (with none, where there are too few for that),
so that a single odd label does not end it. That depends on the confidences alone. Given them,
mistakes are independent with unequal chances, for which the binomial bound errs on the safe side
(Hoeffding, Annals of Mathematical Statistics 27, 1956, pages 713 to 721).

The binomial bound takes readings as independent. Those of one writer are not, so where the writers
are known, the bootstrap over writers must meet the risk too (Efron and Tibshirani, "An Introduction
to the Bootstrap", 1993, chapter 8): the quantile, at the level, of the error rate of as many
writers drawn with replacement.

With further groups of pictures, a threshold passes only if in each of them, too, no more than the
risk of the accepted readings are wrong, as counted; one is tolerated in a small group. So the worst
group decides, not the mean. That can only end the search sooner.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from inkdigits.calibration.intervals import LEVEL, N_RESAMPLES, check_share
from inkdigits.errors import NoThresholdError
from inkdigits.types import Doubles, Mask

RISK = 0.001
_LOG_CHANCE = math.log1p(-LEVEL)
# What a user may choose from without new evidence.
RISKS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
# Strictest first, fixed before any picture is seen; a stricter one would accept few. The odds of
# being right fall evenly, by a quarter from one to the next: 9999 to 1 at first, 1 to 1 at last.
THRESHOLDS = tuple(
    round(float(odds / (1 + odds)), 5) for odds in np.geomspace(9_999, 1, 33, dtype=np.float64)
)

Readings: TypeAlias = tuple[npt.ArrayLike, npt.ArrayLike]
"""Calibrated confidences (N,), 0 to 1, and whether each reading is right (N,) bool."""


@dataclass(frozen=True, slots=True)
class AcceptThreshold:
    """A confidence from which readings are accepted, and the evidence for it."""

    threshold: float | None
    """Accept where confidence >= this; None where none meets the risk: nothing is accepted."""
    risk: float  # the highest tolerated share of wrong readings among the accepted, 0 to 1
    level: float  # the confidence level at which the risk is kept, 0 to 1
    coverage: float  # the share of the calibration pictures that are accepted, 0 to 1
    n: int  # calibration pictures
    n_accepted: int
    n_wrong: int  # those accepted and read wrong


def accept_threshold(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    *,
    groups: Mapping[str, Readings] | None = None,
    writers: npt.ArrayLike | None = None,
    risk: float = RISK,
    least: float = 0.0,
) -> AcceptThreshold:
    """Return the lowest threshold whose accepted readings are wrong no more often than ``risk``.

    Args:
        confidence: (N,) calibrated confidences, 0 to 1.
        correct: (N,) bool, whether each reading is right.
        groups: further readings by the name of their group; the result does not describe them.
        writers: (N,) who wrote each digit; None where that is not known.
        risk: tolerated share of wrong readings among the accepted, between 0 and 1.
        least: the share that the first threshold accepts: one mistake among few decides nothing.

    Raises:
        NoThresholdError: no threshold passes; the message says how many pictures it would take.
        ConfigError: a risk out of range.

    >>> accept_threshold(np.full(1000, 0.97), np.ones(1000, bool), risk=0.01).threshold
    0.5
    """
    check_share("risk", risk)
    values, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.bool_)
    others = {
        name: (np.asarray(sure, dtype=np.float64), np.asarray(of, dtype=np.bool_))
        for name, (sure, of) in (groups or {}).items()
    }
    hands = None if writers is None else np.asarray(writers)
    n = len(values)
    fewest, enough = (accepted_needed(mistakes, risk) for mistakes in (0, 1))
    n_loosest = count_accepted(values, right, THRESHOLDS[-1])[0]
    if n_loosest < enough:
        enough = fewest
    passed: AcceptThreshold | None = None
    failure = (
        f"the risk needs at least {fewest:,} accepted pictures without a mistake, and the lowest "
        f"threshold {THRESHOLDS[-1]:g} accepts {n_loosest:,} of {n:,}"
    )
    for threshold in THRESHOLDS:
        n_accepted, n_wrong = count_accepted(values, right, threshold)
        if n_accepted < max(enough, least * n):
            continue
        accepted = values >= threshold
        further = {name: count_accepted(*of, threshold) for name, of in others.items()}
        problem = _problem(~right[accepted], None if hands is None else hands[accepted], risk)
        problem = problem or _problem_of_groups(further, risk)
        if problem is not None:
            failure = f"at {threshold:g}, {problem}"
            break
        passed = AcceptThreshold(threshold, risk, LEVEL, n_accepted / n, n, n_accepted, n_wrong)
    if passed is None:
        raise NoThresholdError(
            f"no threshold meets the risk of {risk:.2%} at level {LEVEL:g}: {failure}"
        )
    return passed


def accept_choices(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    *,
    writers: npt.ArrayLike | None = None,
    risks: Sequence[float] = RISKS,
) -> tuple[AcceptThreshold, ...]:
    """Return what each of several risks costs: one ``accept_threshold`` per risk, rising.

    Each is kept with the chance LEVEL by itself; to be as sure of all at once, 1 - LEVEL would
    have to be divided by their number. A risk that no threshold keeps has None as its threshold.

    >>> [c.threshold for c in accept_choices([0.97] * 100, [True] * 100, risks=(0.001, 0.1))]
    [None, 0.5]
    """
    choices = []
    for risk in sorted(set(risks)):
        try:
            choice = accept_threshold(confidence, correct, writers=writers, risk=risk)
        except NoThresholdError:
            choice = AcceptThreshold(None, risk, LEVEL, 0.0, np.size(correct), 0, 0)
        choices.append(choice)
    return tuple(choices)


def supported_risk(
    confidence: Doubles, correct: Mask, *, writers: npt.ArrayLike | None = None
) -> AcceptThreshold | None:
    """Return the smallest risk that these pictures support; None where they support none below 1.

    It is tried among the bounds of all thresholds, each a little rounded up. Since it is chosen
    with the pictures, it says how far they reach; what is promised is a risk stated beforehand.

    >>> supported_risk(np.full(1200, 0.97), np.ones(1200, bool)).risk
    0.0025
    """
    bounds = set()
    for accepted in (confidence >= threshold for threshold in THRESHOLDS):
        if accepted.any():
            wrong = ~correct[accepted]
            bounds.add(clopper_pearson_upper(int(wrong.sum()), len(wrong)))
            if writers is not None:
                bounds.add(writers_upper(wrong, np.asarray(writers)[accepted]))
    for bound in sorted(bounds):
        risk = math.ceil(bound * 10_000 - 1e-9) / 10_000
        if not 0 < risk < 1:
            continue
        try:
            return accept_threshold(confidence, correct, writers=writers, risk=risk)
        except NoThresholdError:
            continue
    return None


def count_accepted(confidence: Doubles, correct: Mask, threshold: float) -> tuple[int, int]:
    """Return how many pictures a threshold accepts, and how many of those are read wrong.

    >>> count_accepted(np.array([0.2, 0.8, 0.9]), np.array([False, False, True]), 0.5)
    (2, 1)
    """
    accepted = confidence >= threshold
    return int(accepted.sum()), int((accepted & ~correct).sum())


def writers_upper(wrong: npt.ArrayLike, writers: npt.ArrayLike) -> float:
    """Return the bootstrap's 95 % upper bound on an error rate, drawing writers, not readings.

    ``wrong`` (N,) says which readings are wrong, ``writers`` (N,) who wrote each digit.

    >>> wrong = [True, True] + [False] * 98
    >>> writers_upper(wrong, [0] * 2 + [1] * 98) > writers_upper(wrong, range(100))
    True
    """
    _, hand, count = np.unique(np.asarray(writers), return_inverse=True, return_counts=True)
    errors = np.bincount(hand, weights=np.asarray(wrong, dtype=np.float64))
    draws = np.random.default_rng(0).multinomial(
        len(count), np.full(len(count), 1 / len(count)), size=N_RESAMPLES
    )
    return float(np.quantile((draws @ errors) / (draws @ count), LEVEL))


def clopper_pearson_upper(n_wrong: int, n: int) -> float:
    """Return the one-sided 95 % upper confidence bound on an error rate, exact for the binomial.

    It is the rate at which ``n_wrong`` or fewer mistakes in ``n``, at least 1, have the chance 5 %
    (Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", Biometrika 26, 1934), found by bisection.

    >>> round(clopper_pearson_upper(0, 1000), 5)
    0.00299
    """
    if n_wrong == n:
        return 1.0
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):  # neighbouring floats: no closer is possible
            return high
        if _log_binomial_cdf(n_wrong, n, middle) > _LOG_CHANCE:
            low = middle
        else:
            high = middle


def _log_binomial_cdf(k: int, n: int, p: float) -> float:
    """Return the natural log of P(X <= k) for X of Binomial(n, p), 0 <= k < n and 0 < p < 1."""
    i = np.arange(k, dtype=np.float64)
    # ln of the terms C(n, i) p^i (1-p)^(n-i), each from the one before it.
    steps = np.log(n - i) - np.log(i + 1) + math.log(p) - math.log1p(-p)
    terms = n * math.log1p(-p) + np.concatenate(([0.0], np.cumsum(steps)))
    largest = float(terms.max())
    return largest + math.log(float(np.exp(terms - largest).sum()))


def accepted_needed(n_wrong: int, risk: float) -> int:
    """Return the fewest accepted pictures with which ``n_wrong`` mistakes still meet the risk.

    >>> accepted_needed(0, 0.001)
    2995
    """
    low, high = n_wrong, n_wrong + 1  # low never suffices: with every picture wrong the bound is 1
    while _log_binomial_cdf(n_wrong, high, risk) > _LOG_CHANCE:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if _log_binomial_cdf(n_wrong, middle, risk) > _LOG_CHANCE:
            low = middle
        else:
            high = middle
    return high


def _problem(wrong: Mask, writers: npt.NDArray[Any] | None, risk: float) -> str | None:
    """Return why accepted readings of the first set fail; None if they pass."""
    n_wrong, n_accepted = int(wrong.sum()), len(wrong)
    told = f"{n_wrong} of {n_accepted:,} accepted pictures are wrong, and"
    if clopper_pearson_upper(n_wrong, n_accepted) > risk:
        needed = accepted_needed(n_wrong, risk)
        return f"{told} this number needs at least {needed:,} accepted pictures"
    bound = 0.0 if writers is None else writers_upper(wrong, writers)
    return f"{told} the bound over writers is {bound:.3%}" if bound > risk else None


def _problem_of_groups(counts: Mapping[str, tuple[int, int]], risk: float) -> str | None:
    """Return which group has too many wrong among the accepted; None if all pass."""
    for name, (accepted, wrong) in counts.items():
        if wrong > max(1.0, risk * accepted):
            return f"{wrong} of {accepted:,} accepted pictures of the group {name} are wrong"
    return None
