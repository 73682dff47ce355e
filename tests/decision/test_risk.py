import contextlib

import numpy as np
import pytest
from scipy.stats import beta

from inkdigits.decision.risk import (
    accept_choices,
    accept_threshold,
    clopper_pearson_upper,
    writers_upper,
)
from inkdigits.errors import ConfigError, NoThresholdError


def calibration_set(groups):
    """(confidence, n, wrong) groups as arrays of confidence and correct."""
    confidence = np.concatenate([np.full(n, c) for c, n, _ in groups])
    correct = np.concatenate([np.arange(n) >= wrong for _, n, wrong in groups])
    return confidence, correct


def test_the_clopper_pearson_bound_agrees_with_scipy():
    for n_wrong, n in ((0, 1), (0, 1497), (1, 2), (1, 3000), (3, 10), (9, 10), (499, 5000)):
        expected = beta.ppf(0.95, n_wrong + 1, n - n_wrong)
        assert clopper_pearson_upper(n_wrong, n) == pytest.approx(expected, rel=1e-9)
    assert clopper_pearson_upper(7, 7) == 1.0


@pytest.mark.parametrize(
    ("groups", "chosen"),
    [
        # Accepted too few to judge at 0.9995 alone: such thresholds are skipped.
        ([(0.9995, 1000, 0), (0.95, 600, 0), (0.3, 100, 90)], (0.5, 1600, 0)),
        # The first failure ends the search: 0 of 2,400 passes, 3 of 2,410 fails, 3 of 4,410 passes.
        ([(0.9995, 2400, 0), (0.95, 10, 3), (0.75, 2000, 0)], (0.95954, 2400, 0)),
        # One odd label among the surest does not: 1 of 1,600 would fail, and 1 of 2,600 passes.
        ([(0.9995, 1600, 1), (0.95, 1000, 0), (0.3, 100, 90)], (0.5, 2600, 1)),
        ([(0.9995, 2900, 0), (0.95, 100, 0), (0.6, 100, 40)], (0.64006, 3000, 0)),
    ],
)
def test_the_lowest_threshold_that_keeps_the_risk_is_chosen(groups, chosen):
    found = accept_threshold(*calibration_set(groups), risk=0.002)
    assert (found.threshold, found.n_accepted, found.n_wrong) == chosen
    assert (found.n, found.risk, found.level) == (sum(n for _, n, _ in groups), 0.002, 0.95)
    assert found.coverage == pytest.approx(found.n_accepted / found.n)
    assert clopper_pearson_upper(3, 4410) <= 0.002 < clopper_pearson_upper(1, 1600)


def test_groups_end_the_search_where_more_than_the_risk_is_counted():
    first = calibration_set([(0.9995, 3000, 0), (0.95, 100, 0), (0.85, 100, 0)])
    # Of those accepted from 0.93 exactly 2 in 1,000 are wrong, from 0.85 more.
    further = calibration_set([(0.9995, 400, 0), (0.95, 600, 2), (0.86, 100, 1)])
    alone = accept_threshold(*first, risk=0.002)
    both = accept_threshold(*first, groups={"pupils": further}, risk=0.002)
    assert (alone.threshold, both.threshold) == (0.5, 0.88234)
    # The result describes the first set.
    assert (both.n, both.n_accepted, both.n_wrong) == (3200, 3100, 0)


def test_group_that_no_threshold_suits_is_named_and_one_odd_label_is_no_reason():
    first = calibration_set([(0.9995, 3000, 0)])
    one, two = (calibration_set([(0.9999, 100, wrong)]) for wrong in (1, 2))
    assert accept_threshold(*first, groups={"pupils": one}, risk=0.002).threshold == 0.5
    with pytest.raises(NoThresholdError, match=r"2 of 100 accepted pictures of the group pupils"):
        accept_threshold(*first, groups={"clerks": one, "pupils": two}, risk=0.002)


def test_mistakes_of_one_writer_weigh_more_than_those_of_many():
    confidence, correct = np.full(4000, 0.9999), np.ones(4000, bool)
    correct[:5] = False
    many, few = np.arange(4000) % 400, np.arange(4000) // 200
    assert writers_upper(~correct, few) > 1.5 * writers_upper(~correct, many)
    assert accept_threshold(confidence, correct, writers=many, risk=0.003).n_wrong == 5
    with pytest.raises(NoThresholdError, match="over writers"):
        accept_threshold(confidence, correct, writers=few, risk=0.003)


@pytest.mark.parametrize(
    ("n", "wrong", "enough", "message"),
    [(1496, 0, 1497, "accepts 1,496 of 1,496"), (2700, 2, 3146, r"2 of 2,700 .*")],
)
def test_too_few_pictures_say_how_many_they_would_need(n, wrong, enough, message):
    with pytest.raises(NoThresholdError, match=message) as raised:
        accept_threshold(*calibration_set([(0.9995, n, wrong)]), risk=0.002)
    assert "0.20%" in str(raised.value)
    assert f"at least {enough:,}" in str(raised.value)
    assert clopper_pearson_upper(wrong, enough) <= 0.002 < clopper_pearson_upper(wrong, enough - 1)
    flawless = calibration_set([(0.9995, 1497, 0)])
    assert accept_threshold(*flawless, risk=0.002).n_accepted == 1497


@pytest.mark.heavy
def test_the_risk_is_kept_as_often_as_promised():
    # Readings are right with a chance equal to their confidence, so each threshold's true risk
    # is known: the mean of 1 - confidence above it.
    rng, broken = np.random.default_rng(0), []
    for _ in range(400):
        confidence = 1 - rng.exponential(0.02, 1000).clip(0, 0.5)
        correct = rng.random(1000) < confidence
        with contextlib.suppress(NoThresholdError):  # nothing accepted, nothing broken
            chosen = accept_threshold(confidence, correct, risk=0.02)
            broken.append((1 - confidence[confidence >= chosen.threshold]).mean() > 0.02)
    # 5 % of 400 is 20, with a standard deviation of 4.4.
    assert len(broken) > 300
    assert sum(broken) <= 33


@pytest.mark.parametrize("risk", [0.0, 1.0])
def test_a_risk_out_of_range_is_an_error(risk):
    with pytest.raises(ConfigError, match="risk"):
        accept_threshold([0.9], [True], risk=risk)


def test_choices_say_what_each_risk_costs_in_rising_order():
    confidence, correct = calibration_set([(0.9995, 2900, 0), (0.95, 100, 6), (0.6, 100, 40)])
    choices = accept_choices(confidence, correct, risks=(0.01, 0.0005, 0.002, 0.01))
    assert [c.risk for c in choices] == [0.0005, 0.002, 0.01]
    strictest, middle, loosest = choices
    assert (strictest.threshold, strictest.coverage, strictest.n_accepted) == (None, 0.0, 0)
    assert strictest.n == 3100
    assert middle == accept_threshold(confidence, correct, risk=0.002)
    assert (loosest.threshold, loosest.n_accepted, loosest.n_wrong) == (0.64006, 3000, 6)
