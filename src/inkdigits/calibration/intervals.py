"""Confidence intervals: how far a figure may be from the truth, given so many pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from inkdigits.errors import ConfigError, DataError

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric's value with the ends of its bootstrap interval, all in the metric's unit."""

    value: float
    low: float
    high: float


def wilson_interval(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval for a proportion.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal
    of the American Statistical Association 22, 1927, pages 209 to 212.

    Args:
        successes: from 0 to n.
        n: trials, at least 1.
        level: between 0 and 1.

    Returns:
        The low and the high end, both from 0 to 1.

    Raises:
        DataError: counts that can't be.
        ConfigError: a level outside (0, 1).
    """
    check_level(level)
    if n < 1 or not 0 <= successes <= n:
        raise DataError(f"{successes} of {n}: 0 <= successes <= n and n >= 1 are needed")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At 0 and n the ends are exactly 0 and 1; rounding would miss them by a hair.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def check_level(level: float) -> None:
    """Raise a ConfigError unless a confidence level lies strictly between 0 and 1."""
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; it must lie between 0 and 1, for example 0.95")
