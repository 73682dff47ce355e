"""How well a score tells digits from non-digits; no files, no model.

Digits are the positives: a score is higher for what is more likely a digit. Scores are (N,) and
(M,), at least one each, and may be infinite.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def auroc(digits: npt.ArrayLike, others: npt.ArrayLike) -> float:
    """Return the chance that a digit scores higher than a non-digit; ties count half.

    It is the area under the ROC curve (J. A. Hanley and B. J. McNeil, "The meaning and use of the
    area under a receiver operating characteristic (ROC) curve", Radiology 143, 1982, pages 29 to
    36); 0.5 tells nothing apart.

    >>> auroc([3.0, 2.0], [1.0, 2.0])
    0.875
    """
    ordered = np.sort(others)
    below, up_to = (np.searchsorted(ordered, digits, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(ordered)))


def fpr_at_95_tpr(digits: npt.ArrayLike, others: npt.ArrayLike) -> float:
    """Return the false positive rate, 0 to 1, at the strictest threshold that 95 % of digits pass.

    >>> fpr_at_95_tpr([3.0, 2.0], [1.0, 2.0])
    0.5
    """
    ordered = np.sort(digits)
    # The fewest digits that make up the share; a hair less lest rounding ask for one more.
    needed = max(1, int(np.ceil(0.95 * len(ordered) - 1e-9)))
    return float((np.asarray(others) >= ordered[len(ordered) - needed]).mean())
