"""How well a score tells digits from non-digits; no files, no model.

Digits are the positives: a score is higher for what is more likely a digit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inkdigits.errors import ConfigError, DataError
from inkdigits.types import Doubles

TRUE_POSITIVE_RATE = 0.95


def auroc(digits: npt.ArrayLike, others: npt.ArrayLike) -> float:
    """Return the chance that a digit scores higher than a non-digit; ties count half.

    It is the area under the ROC curve (J. A. Hanley and B. J. McNeil, "The meaning and use of the
    area under a receiver operating characteristic (ROC) curve", Radiology 143, 1982, pages 29 to
    36).

    0.5 tells nothing apart. Scores are (N,) and (M,), at least one each, and may be infinite; any
    other shape and NaN raise a DataError.

    >>> auroc([3.0, 2.0], [1.0, 2.0])
    0.875
    """
    positive, negative = _check_scores(digits, "digits"), _check_scores(others, "others")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    up_to = np.searchsorted(ordered, positive, side="right")
    return float((below + up_to).mean() / (2 * len(negative)))


def fpr_at_tpr(
    digits: npt.ArrayLike, others: npt.ArrayLike, tpr: float = TRUE_POSITIVE_RATE
) -> float:
    """Return the false positive rate at the strictest threshold that ``tpr`` of the digits pass.

    It is 0 to 1, and 0 is best. Scores and errors are those of ``auroc``; a ``tpr`` of 0 or below,
    or above 1, raises a ConfigError.

    >>> fpr_at_tpr([3.0, 2.0], [1.0, 2.0])
    0.5
    """
    positive, negative = _check_scores(digits, "digits"), _check_scores(others, "others")
    if not 0 < tpr <= 1:
        raise ConfigError(f"tpr is {tpr}; it must lie above 0 and up to 1")
    # The fewest digits that make up the share; a hair less lest rounding ask for one more.
    needed = max(1, int(np.ceil(tpr * len(positive) - 1e-9)))
    threshold = np.sort(positive)[len(positive) - needed]
    return float((negative >= threshold).mean())


def _check_scores(scores: npt.ArrayLike, name: str) -> Doubles:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise DataError(f"scores of {name} must be (N,) with N at least 1; this is {values.shape}")
    if np.isnan(values).any():
        raise DataError(f"scores of {name} hold a value that is not a number")
    return values
