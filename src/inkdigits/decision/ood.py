"""How unlike any digit ink is: the energy of its logits, and the threshold that digits keep.

The score needs no fitting and no pictures without digits. A ``Prediction``, the JSON answer, the
log and the artifact name it ``novelty``. NumPy only, so every backend scores alike.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from inkdigits.errors import ConfigError, DataError
from inkdigits.types import Doubles

METHOD: Final = "energy"
"""The name of the score in an artifact; docs/experiments/ compares it with three others."""

REJECTED_SHARE = 0.003
"""Tolerated share of digits that are rejected as no digits."""

REJECTED_SHARE_OF_GROUP = 0.01
"""The same in each group that calibrates: a digit of another hand is not an outlier either."""


def energy(logits: npt.ArrayLike) -> Doubles:
    """Return the out-of-distribution score of each row of logits; higher is less like a digit.

    The energy is -ln(sum of exp(logit)) over the ten digits (Liu, Wang, Owens and Li,
    "Energy-based Out-of-distribution Detection", NeurIPS 2020, at temperature 1).

    Args:
        logits: (N, 10), finite.

    Returns:
        (N,) float64, finite.

    Raises:
        DataError: another number of dimensions.

    >>> energy([[0.0] * 10, [9.0] + [0.0] * 9]).round(3).tolist()
    [-2.303, -9.001]
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2:
        raise DataError(f"logits must be (N, 10); these are {values.shape}")
    # The largest exponent becomes 0, so nothing overflows.
    largest = np.maximum.reduce(values, axis=1)
    sums = np.add.reduce(np.exp(values - largest[:, None]), axis=1)
    score: Doubles = -largest - np.log(sums)
    return score


def reject_threshold(novelty: npt.ArrayLike, share: float = REJECTED_SHARE) -> float | None:
    """Return the score above which at most ``share`` of digits lie.

    Split conformal prediction: of n calibration scores the ceil((1 - share)(n + 1))-th smallest.
    One more score of the same kind exceeds it with a chance of at most ``share``, whatever their
    distribution (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; for
    outliers Bates, Candes, Lei, Romano and Sesia, Annals of Statistics 51, 2023).

    ``novelty`` (N,) is of digits that trained nothing. None is returned where N is too small to
    tell, and nothing may be rejected.

    Raises:
        ConfigError: a share outside (0, 1).
        DataError: no scores, or scores that are not finite.

    >>> reject_threshold(range(100), share=0.05)
    95.0
    """
    if not 0 < share < 1:
        raise ConfigError(f"the rejected share is {share}; it must lie strictly between 0 and 1")
    scores = np.sort(np.asarray(novelty, dtype=np.float64))
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise DataError(f"novelty must be (N,) finite numbers; it is of shape {scores.shape}")
    rank = math.ceil((1 - share) * (len(scores) + 1))
    return None if rank > len(scores) else float(scores[rank - 1])
