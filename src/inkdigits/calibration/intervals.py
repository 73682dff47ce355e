"""Confidence intervals: how far a figure may be from the truth, given so many pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from inkdigits.errors import ConfigError
from inkdigits.types import Doubles, Labels

Metric: TypeAlias = Callable[[Doubles, Labels], float]

LEVEL = 0.95
N_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric's value with the ends of its 95 % interval, all in the metric's unit."""

    value: float
    low: float
    high: float


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return the ends, from 0 to 1, of Wilson's 95 % score interval for a proportion; n above 0.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal
    of the American Statistical Association 22, 1927, pages 209 to 212.

    >>> [round(end, 3) for end in wilson_interval(90, 100)]
    [0.826, 0.945]
    """
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At 0 and n the ends are exactly 0 and 1, which rounding would miss.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def bootstrap_interval(
    metric: Metric, probabilities: Doubles, labels: Labels, writers: npt.ArrayLike | None = None
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a metric, in the metric's own unit.

    Pictures, or all pictures of a writer, are drawn with replacement (Efron and Tibshirani, "An
    Introduction to the Bootstrap", 1993, section 13.3). Resampling adds noise of its own to each
    bin, so for ECE the interval leans upwards, and may lie above a very small value.

    ``metric`` takes probabilities (N, 10) and labels (N,). ``writers`` (N,) says who wrote each
    digit; None takes the pictures as independent.

    >>> accuracy = lambda p, y: float((p.argmax(axis=1) == y).mean())
    >>> bootstrap_interval(accuracy, np.eye(10)[[3, 3, 7, 7]], np.array([3, 3, 7, 7]))
    (1.0, 1.0)
    """
    rng = np.random.default_rng(0)
    values = np.empty(N_RESAMPLES)
    blocks = _blocks(writers)
    for i in range(N_RESAMPLES):
        if blocks:
            chosen = rng.integers(len(blocks), size=len(blocks))
            drawn = np.concatenate([blocks[block] for block in chosen])
        else:
            drawn = rng.integers(len(labels), size=len(labels))
        values[i] = metric(probabilities[drawn], labels[drawn])
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _blocks(writers: npt.ArrayLike | None) -> list[npt.NDArray[np.intp]]:
    """Return the indices of each writer's pictures; none where writers are not known."""
    if writers is None:
        return []
    _, hand, count = np.unique(np.asarray(writers), return_inverse=True, return_counts=True)
    return np.split(np.argsort(hand, kind="stable"), np.cumsum(count)[:-1])


def check_share(name: str, value: float) -> None:
    """Raise a ConfigError unless the value lies strictly between 0 and 1.

    >>> check_share("level", 0.95)
    """
    if not 0 < value < 1:
        raise ConfigError(f"{name} is {value}; it must lie strictly between 0 and 1")
