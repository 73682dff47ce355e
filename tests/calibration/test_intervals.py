import numpy as np
import pytest
from scipy.stats import binomtest
from support.readings import random_readings

from inkdigits.calibration.intervals import bootstrap_interval, wilson_interval
from inkdigits.calibration.scores import brier, nll
from inkdigits.errors import ConfigError, DataError


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (5, 5), (9, 10), (9_950, 10_000)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilsons_interval_agrees_with_scipy(successes, n, level):
    theirs = binomtest(successes, n).proportion_ci(level, method="wilson")
    assert wilson_interval(successes, n, level) == pytest.approx((theirs.low, theirs.high))


def test_counts_and_options_out_of_range_are_errors():
    for successes, n in ((1, 0), (-1, 5), (6, 5)):
        with pytest.raises(DataError, match="successes"):
            wilson_interval(successes, n)
    for level in (0.0, 1.0, 95):
        with pytest.raises(ConfigError, match="level"):
            wilson_interval(9, 10, level)
        with pytest.raises(ConfigError, match="level"):
            bootstrap_interval(nll, *random_readings(10), level=level)
    with pytest.raises(ConfigError, match="n_resamples"):
        bootstrap_interval(nll, *random_readings(10), n_resamples=0)


def test_the_bootstrap_of_a_mean_agrees_with_the_normal_interval():
    p, y = random_readings(1000)
    losses = -np.log(p[np.arange(1000), y])
    half = 1.96 * losses.std() / np.sqrt(1000)
    low, high = bootstrap_interval(nll, p, y)
    assert low == pytest.approx(losses.mean() - half, abs=0.25 * half)
    assert high == pytest.approx(losses.mean() + half, abs=0.25 * half)


def test_the_bootstrap_repeats_with_its_seed_and_widens_with_its_level():
    p, y = random_readings(200)
    first = bootstrap_interval(brier, p, y, 100)
    assert bootstrap_interval(brier, p, y, 100) == first
    assert bootstrap_interval(brier, p, y, 100, seed=1) != first
    wide = bootstrap_interval(brier, p, y, 100, level=0.99)
    assert wide[0] < first[0] < first[1] < wide[1]
