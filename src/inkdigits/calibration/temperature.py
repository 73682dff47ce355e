"""From logits to calibrated probabilities: temperature scaling.

Temperature scaling divides every logit by one number T > 0, fitted on pictures that neither
trained the network nor chose its checkpoint (Guo, Pleiss, Sun and Weinberger, "On Calibration of
Modern Neural Networks", ICML 2017, section 4.2). Dividing by T keeps the order of the logits, so
the digit that is read, and with it the accuracy, stays the same. NumPy only.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from inkdigits.errors import ConfigError, DataError
from inkdigits.types import Doubles, Labels

N_DIGITS = 10
# The lowest and highest temperature that are tried.
_LOWEST, _HIGHEST = 0.05, 20.0
# Width in log T at which the search stops: T is then known to 1 part in a million.
_LOG_TEMPERATURE_TOLERANCE = 1e-6
_INVERSE_GOLDEN = (math.sqrt(5) - 1) / 2


def probabilities(logits: npt.ArrayLike, temperature: float) -> Doubles:
    """Return the softmax of ``logits / temperature``: (N, 10) float64, rows that sum to 1.

    The logits are (N, 10), finite; a temperature above 1 softens the probabilities. A DataError
    names invalid logits, and a ConfigError a temperature that is not finite and above 0.

    >>> probabilities([[2.0] + [0.0] * 9], temperature=2.0).max().round(3)
    np.float64(0.232)
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"temperature is {temperature}; it must be finite and above 0")
    scaled: Doubles = check_scores(logits, "logits") / temperature
    # The largest exponent becomes 0, so nothing overflows.
    exponentials = np.exp(scaled - np.maximum.reduce(scaled, axis=1, keepdims=True))
    result: Doubles = exponentials / np.add.reduce(exponentials, axis=1, keepdims=True)
    return result


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the temperature with the least negative log-likelihood, to 1 part in a million.

    The NLL of a softmax is convex in 1 / T (a log-sum-exp of linear functions, less a linear
    one). It therefore has one minimum in log T too, which a golden-section search finds (Kiefer,
    "Sequential minimax search for a maximum", Proc. AMS 4, 1953).

    ``logits`` are (N, 10), ``labels`` (N,). A DataError names invalid ones, or says that the best
    temperature lies at a bound: every picture is read right, or the logits are independent of the
    labels.

    >>> round(fit_temperature(4 * np.eye(10)[[1, 2, 3, 4]], [1, 2, 3, 0]), 3)
    1.214
    """
    z = check_scores(logits, "logits")
    y = check_labels(labels, len(z))
    shifted = z - z.max(axis=1, keepdims=True)
    true_logit = shifted[np.arange(len(y)), y]

    def loss(log_temperature: float) -> float:
        inverse = math.exp(-log_temperature)
        log_sum = np.log(np.exp(shifted * inverse).sum(axis=1))
        return float(np.mean(log_sum - true_logit * inverse))

    left, right = lowest, highest = math.log(_LOWEST), math.log(_HIGHEST)
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
    if left == lowest or right == highest:
        side, limit = ("lower", _LOWEST) if left == lowest else ("upper", _HIGHEST)
        raise DataError(
            f"the best temperature for these {len(y):,} pictures lies at the {side} bound "
            f"{limit:g} or beyond it. Use more pictures, some read right and some read wrong."
        )
    return math.exp((left + right) / 2)


def check_scores(scores: npt.ArrayLike, name: str) -> Doubles:
    """Return scores as (N, 10) float64, finite, N at least 1; a DataError calls them ``name``.

    >>> check_scores([[0] * 10], "logits").dtype
    dtype('float64')
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != N_DIGITS or not len(values):
        raise DataError(
            f"{name} must have the shape (N, {N_DIGITS}), N at least 1; this is {values.shape}"
        )
    if not np.logical_and.reduce(np.isfinite(values), axis=None):
        raise DataError(f"{name} hold a value that is not finite")
    return values


def check_labels(labels: npt.ArrayLike, n: int) -> Labels:
    """Return labels as (n,) int64, or raise a DataError unless they are integers from 0 to 9.

    >>> check_labels([3, 7], 2).dtype
    dtype('int64')
    """
    values = np.asarray(labels)
    if values.shape != (n,) or not np.issubdtype(values.dtype, np.integer):
        raise DataError(
            f"labels must be ({n},) integers; these are {values.shape} and {values.dtype}"
        )
    if values.min() < 0 or values.max() >= N_DIGITS:
        raise DataError(f"labels run from {values.min()} to {values.max()}; the limits are 0 and 9")
    return values.astype(np.int64)
