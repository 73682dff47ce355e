import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss
from support.readings import noisy_logits

from inkdigits.calibration.temperature import fit_temperature, probabilities
from inkdigits.errors import ConfigError, DataError


def test_probabilities_are_the_softmax_of_the_scaled_logits():
    logits, _ = noisy_logits(50)
    exponentials = np.exp(logits / 2.5)
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    got = probabilities(logits.astype(np.float32), 2.5)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_huge_logits_do_not_overflow_and_no_temperature_changes_a_reading():
    huge = np.zeros((2, 10))
    huge[0, 3], huge[1, 4] = 1e6, -1e6
    got = probabilities(huge, 1.0)
    np.testing.assert_allclose(got.sum(axis=1), 1)
    assert (got[0, 3], got[1, 4]) == (1, 0)
    logits = noisy_logits()[0].astype(np.float32)
    for temperature in (0.05, 0.7, 1.0, 20.0):
        got = probabilities(logits, temperature).argmax(axis=1)
        np.testing.assert_array_equal(got, logits.argmax(axis=1))


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_the_temperature_agrees_with_scipys_search(scale):
    logits, labels = noisy_logits(scale=scale)

    def loss(log_temperature):
        p = probabilities(logits, np.exp(log_temperature))
        return log_loss(labels, p, labels=range(10))

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    assert fit_temperature(logits, labels) == pytest.approx(np.exp(best.x), rel=1e-5)


DIGITS = np.zeros(3, dtype=int)


@pytest.mark.parametrize(
    ("logits", "labels", "problem"),
    [
        (np.empty((0, 10)), DIGITS[:0], "shape"),
        (np.zeros((3, 9)), DIGITS, "shape"),
        (np.zeros((3, 10)), DIGITS[:2], "labels must be"),
        *((np.full((3, 10), value), DIGITS, "finite") for value in (np.nan, np.inf)),
        *((np.zeros((3, 10)), DIGITS + wrong, "limits are 0 and 9") for wrong in (10, -1)),
        (np.zeros((3, 10)), np.zeros(3), "integers"),
    ],
)
def test_invalid_input_is_an_error(logits, labels, problem):
    with pytest.raises(DataError, match=problem):
        fit_temperature(logits, labels)
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="temperature"):
            probabilities(np.zeros((1, 10)), temperature)


def test_logits_whose_best_temperature_is_at_a_bound_have_none():
    for logits, problem in (
        (np.eye(10), r"lower bound 0\.05"),  # always right
        (-5 * np.eye(10), "upper bound 20"),  # always wrong
        (np.full((10, 10), 7.3), "bound"),  # independent of the labels
    ):
        with pytest.raises(DataError, match=problem):
            fit_temperature(logits, np.arange(10))
