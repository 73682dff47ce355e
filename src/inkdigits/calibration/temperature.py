"""From logits to calibrated probabilities: temperature scaling.

Temperature scaling divides every logit by one number T > 0, fitted on pictures that neither
trained the network nor chose its checkpoint (Guo, Pleiss, Sun and Weinberger, "On Calibration of
Modern Neural Networks", ICML 2017, section 4.2). Dividing by T keeps the order of the logits, so
the digit that is read, and with it the accuracy, stays the same. NumPy only.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inkdigits.calibration.intervals import N_RESAMPLES
from inkdigits.calibration.scores import (
    ProbabilityScores,
    check_labels,
    check_scores,
    score_probabilities,
)
from inkdigits.errors import ConfigError, DataError
from inkdigits.types import Doubles

# Width in log T at which the search stops: T is then known to 1 part in a million.
_LOG_TEMPERATURE_TOLERANCE = 1e-6
_INVERSE_GOLDEN = (math.sqrt(5) - 1) / 2


def probabilities(logits: npt.ArrayLike, temperature: float) -> Doubles:
    """Return the softmax of ``logits / temperature``.

    Args:
        logits: (N, 10), any real dtype, finite.
        temperature: T > 0; 1 leaves the network's own probabilities, more softens them.

    Returns:
        (N, 10) float64, each row from 0 to 1 and summing to 1.

    Raises:
        DataError: the logits have another shape, or a value that is not finite.
        ConfigError: the temperature is not a finite number above 0.

    >>> probabilities([[2.0] + [0.0] * 9], temperature=2.0).max().round(3)
    np.float64(0.232)
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"temperature is {temperature}; it must be finite and above 0")
    scaled: Doubles = check_scores(logits, "logits") / temperature
    # The largest exponent becomes 0, so nothing overflows.
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: Doubles = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def fit_temperature(
    logits: npt.ArrayLike, labels: npt.ArrayLike, bounds: tuple[float, float] = (0.05, 20.0)
) -> float:
    """Return the temperature with the least negative log-likelihood, to 1 part in a million.

    The NLL of a softmax is convex in 1 / T (a log-sum-exp of linear functions, less a linear
    one). It therefore has one minimum in log T too, which a golden-section search finds (Kiefer,
    "Sequential minimax search for a maximum", Proc. AMS 4, 1953).

    Args:
        logits: (N, 10), finite.
        labels: (N,) integers from 0 to 9.
        bounds: the lowest and highest temperature that are tried.

    Raises:
        DataError: no pictures, shapes that do not fit together, values that are not finite, or a
            best temperature at a bound: every picture is read right, or the logits are
            independent of the labels.
        ConfigError: the bounds are not 0 < low < high < infinity.

    >>> round(fit_temperature(4 * np.eye(10)[[1, 2, 3, 4]], [1, 2, 3, 0]), 3)
    1.214
    """
    low, high = bounds
    if not 0 < low < high < math.inf:
        raise ConfigError(f"bounds are {bounds}; they must satisfy 0 < low < high < infinity")
    z = check_scores(logits, "logits")
    y = check_labels(labels, len(z))
    shifted = z - z.max(axis=1, keepdims=True)
    true_logit = shifted[np.arange(len(y)), y]

    def loss(log_temperature: float) -> float:
        inverse = math.exp(-log_temperature)
        log_sum = np.log(np.exp(shifted * inverse).sum(axis=1))
        return float(np.mean(log_sum - true_logit * inverse))

    left, right = math.log(low), math.log(high)
    a = right - _INVERSE_GOLDEN * (right - left)
    b = left + _INVERSE_GOLDEN * (right - left)
    loss_a, loss_b = loss(a), loss(b)
    while right - left > _LOG_TEMPERATURE_TOLERANCE:
        # On a plateau (every NLL equal) this walks to the lower bound, which is an error.
        if loss_a <= loss_b:
            right, b, loss_b = b, a, loss_a
            a = right - _INVERSE_GOLDEN * (right - left)
            loss_a = loss(a)
        else:
            left, a, loss_a = a, b, loss_b
            b = left + _INVERSE_GOLDEN * (right - left)
            loss_b = loss(b)
    if left == math.log(low) or right == math.log(high):
        side, limit = ("lower", low) if left == math.log(low) else ("upper", high)
        raise DataError(
            f"the best temperature for these {len(y):,} pictures lies at the {side} bound "
            f"{limit:g} or beyond it. Use more pictures, some read right and some read wrong."
        )
    return math.exp((left + right) / 2)


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """What temperature scaling did to the pictures that it was fitted on.

    Attributes:
        temperature: the fitted T.
        n: pictures it was fitted on.
        accuracy_before: share read right at T = 1, 0 to 1.
        accuracy_after: share read right at the fitted T; equal to ``accuracy_before``.
        before: scores at T = 1.
        after: scores at the fitted T; a little optimistic, for T was fitted on the same pictures.
    """

    temperature: float
    n: int
    accuracy_before: float
    accuracy_after: float
    before: ProbabilityScores
    after: ProbabilityScores

    def to_dict(self) -> dict[str, Any]:
        """Return the same as nested dictionaries of numbers, for ``json.dumps``."""
        return asdict(self)


def calibrate(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    also: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> CalibrationReport:
    """Fit the temperature and measure the probabilities before and after it.

    Args:
        logits: (N, 10), finite, of pictures that neither trained the network nor chose it.
        labels: (N,) integers from 0 to 9.
        also: logits (M, 10) and labels (M,) of other pictures that the temperature is fitted to
            beside these, each picture counting the same; they are not scored.
        n_resamples: bootstrap resamples behind each interval.
        seed: of the bootstrap.

    Raises:
        DataError: as ``fit_temperature``; or the temperature changed a reading, which only
            logits too close for float64 can do.

    >>> logits, labels = 4 * np.eye(10)[[1, 2, 3, 4]], [1, 2, 3, 0]
    >>> calibrate(logits, labels, n_resamples=9).accuracy_after
    0.75
    """
    if also is None:
        temperature = fit_temperature(logits, labels)
    else:
        temperature = fit_temperature(
            np.concatenate([np.asarray(logits), np.asarray(also[0])]),
            np.concatenate([np.asarray(labels), np.asarray(also[1])]),
        )
    before, after = probabilities(logits, 1.0), probabilities(logits, temperature)
    y = check_labels(labels, len(before))
    if not np.array_equal(before.argmax(axis=1), after.argmax(axis=1)):
        raise DataError("dividing by the temperature changed which digit is read: logits tie")
    return CalibrationReport(
        temperature=temperature,
        n=len(y),
        accuracy_before=float(np.mean(before.argmax(axis=1) == y)),
        accuracy_after=float(np.mean(after.argmax(axis=1) == y)),
        before=score_probabilities(before, y, n_resamples=n_resamples, seed=seed),
        after=score_probabilities(after, y, n_resamples=n_resamples, seed=seed),
    )
