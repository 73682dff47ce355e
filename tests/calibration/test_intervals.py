import numpy as np
import pytest
from scipy.stats import binomtest
from support.readings import random_readings

from inkdigits.calibration.intervals import bootstrap_interval, wilson_interval
from inkdigits.calibration.scores import nll


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (5, 5), (9, 10), (9_950, 10_000)])
def test_wilsons_interval_agrees_with_scipy(successes, n):
    theirs = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((theirs.low, theirs.high))


def test_the_bootstrap_of_a_mean_agrees_with_the_normal_interval_and_repeats():
    p, y = random_readings(1000)
    losses = -np.log(p[np.arange(1000), y])
    half = 1.96 * losses.std() / np.sqrt(1000)
    low, high = bootstrap_interval(nll, p, y)
    assert low == pytest.approx(losses.mean() - half, abs=0.25 * half)
    assert high == pytest.approx(losses.mean() + half, abs=0.25 * half)
    assert bootstrap_interval(nll, p, y) == (low, high)
