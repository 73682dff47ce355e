import numpy as np
import pytest
from scipy.stats import beta

from inkdigits.decision import policy as decision
from inkdigits.errors import ConfigError, DataError


def calibration_set(groups):
    """(confidence, n, wrong) groups as arrays of confidence and correct."""
    confidence = np.concatenate([np.full(n, c) for c, n, _ in groups])
    correct = np.concatenate([np.arange(n) >= wrong for _, n, wrong in groups])
    return confidence, correct


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize(
    ("n_wrong", "n"), [(0, 1), (0, 1497), (1, 2), (1, 3000), (3, 10), (9, 10), (499, 5000)]
)
def test_the_clopper_pearson_bound_agrees_with_scipy(n_wrong, n, level):
    expected = beta.ppf(level, n_wrong + 1, n - n_wrong)
    assert decision.clopper_pearson_upper(n_wrong, n, level) == pytest.approx(expected, rel=1e-9)


def test_all_wrong_is_bounded_by_1():
    assert decision.clopper_pearson_upper(7, 7) == 1.0


@pytest.mark.parametrize(("n_wrong", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_counts_that_cannot_be_are_refused(n_wrong, n):
    with pytest.raises(DataError, match="wrong of"):
        decision.clopper_pearson_upper(n_wrong, n)


def test_the_lowest_threshold_that_keeps_the_risk_is_chosen():
    confidence, correct = calibration_set([(0.9995, 2900, 0), (0.95, 100, 0), (0.6, 100, 40)])
    chosen = decision.accept_threshold(confidence, correct, risk=0.002)
    assert chosen.threshold == 0.7
    assert (chosen.n, chosen.n_accepted, chosen.n_wrong) == (3100, 3000, 0)
    assert chosen.coverage == pytest.approx(3000 / 3100)
    assert (chosen.risk, chosen.level) == (0.002, 0.95)


def test_every_picture_is_accepted_when_none_is_wrong():
    confidence, correct = calibration_set([(0.9995, 1000, 0), (0.55, 1000, 0)])
    chosen = decision.accept_threshold(confidence, correct, risk=0.002)
    assert chosen.threshold == 0.5
    assert chosen.coverage == 1


def test_the_walk_ends_at_the_first_failure_even_if_a_looser_threshold_would_pass():
    # 0 of 2,400 passes; 3 of 2,410 fails; 3 of 4,410 would pass again.
    groups = [(0.9995, 2400, 0), (0.95, 10, 3), (0.75, 2000, 0)]
    confidence, correct = calibration_set(groups)
    assert decision.clopper_pearson_upper(3, 4410) <= 0.002
    assert decision.accept_threshold(confidence, correct, risk=0.002).threshold == 0.96


def test_thresholds_that_accept_too_few_to_tell_are_passed_over():
    confidence, correct = calibration_set([(0.9995, 1000, 0), (0.95, 600, 0), (0.3, 100, 90)])
    assert decision.accept_threshold(confidence, correct, risk=0.002).threshold == 0.5


def test_one_odd_label_among_the_surest_does_not_end_the_walk():
    # 1 of 1,600 would fail, and 1 of 2,600 passes.
    confidence, correct = calibration_set([(0.9995, 1600, 1), (0.95, 1000, 0), (0.3, 100, 90)])
    assert decision.clopper_pearson_upper(1, 1600) > 0.002
    chosen = decision.accept_threshold(confidence, correct, risk=0.002)
    assert (chosen.threshold, chosen.n_accepted, chosen.n_wrong) == (0.5, 2600, 1)


def test_further_sets_end_the_walk_where_more_than_the_risk_is_counted():
    first = calibration_set([(0.9995, 3000, 0), (0.95, 100, 0), (0.85, 100, 0)])
    # Of those accepted from 0.93 exactly 2 in 1,000 are wrong, from 0.85 more.
    further = calibration_set([(0.9995, 400, 0), (0.95, 600, 2), (0.86, 100, 1)])
    alone = decision.accept_threshold(*first, risk=0.002)
    both = decision.accept_threshold(*first, also=[further], risk=0.002)
    assert (alone.threshold, both.threshold) == (0.5, 0.9)
    # What is told is of the first set.
    assert (both.n, both.n_accepted, both.n_wrong) == (3200, 3100, 0)
    assert decision.accept_choices(*first, also=[further], risks=(0.002,)) == (both,)


def test_further_set_that_no_threshold_suits_is_named():
    first = calibration_set([(0.9995, 3000, 0)])
    further = calibration_set([(0.9995, 100, 1)])
    with pytest.raises(decision.NoThresholdError, match=r"1 of 100 accepted pictures of a further"):
        decision.accept_threshold(*first, also=[further], risk=0.002)
    with pytest.raises(DataError, match="same shape"):
        decision.accept_threshold(*first, also=[([0.9, 0.8], np.array([True]))], risk=0.002)


def test_1497_flawless_pictures_are_just_enough_for_a_risk_of_2_in_1000():
    confidence, correct = calibration_set([(0.9995, 1497, 0)])
    assert decision.accept_threshold(confidence, correct, risk=0.002).n_accepted == 1497
    with pytest.raises(DataError, match=r"at least 1,497 .*accepts 1,496 of 1,496"):
        decision.accept_threshold(confidence[1:], correct[1:], risk=0.002)


def test_too_many_mistakes_say_how_many_pictures_they_would_need():
    confidence, correct = calibration_set([(0.9995, 2700, 2)])
    with pytest.raises(DataError, match=r"2 of 2,700 .* at least 3,146 accepted") as raised:
        decision.accept_threshold(confidence, correct, risk=0.002)
    assert "0.20%" in str(raised.value)
    assert decision.clopper_pearson_upper(2, 3146) <= 0.002
    assert decision.clopper_pearson_upper(2, 3145) > 0.002


def test_the_risk_is_kept_as_often_as_promised():
    # Readings are right with a chance equal to their confidence, so each threshold's true risk
    # is known: the mean of 1 - confidence above it.
    rng = np.random.default_rng(0)
    found = broken = 0
    for _ in range(400):
        confidence = 1 - rng.exponential(0.02, 1000).clip(0, 0.5)
        correct = rng.random(1000) < confidence
        try:
            chosen = decision.accept_threshold(confidence, correct, risk=0.02, level=0.9)
        except DataError:  # nothing accepted, nothing broken
            continue
        found += 1
        broken += (1 - confidence[confidence >= chosen.threshold]).mean() > 0.02
    # 10 % of 400 is 40, with a standard deviation of 6.
    assert found > 300
    assert broken <= 58


@pytest.mark.parametrize(
    ("confidence", "correct", "problem"),
    [
        ([], np.array([], dtype=bool), "N at least 1"),
        ([0.9, 0.8], np.array([True]), "same shape"),
        ([0.9], np.array([1]), "bool"),
        ([float("nan")], np.array([True]), "0 to 1"),
        ([1.1], np.array([True]), "0 to 1"),
    ],
)
def test_evidence_that_cannot_be_is_refused(confidence, correct, problem):
    with pytest.raises(DataError, match=problem):
        decision.accept_threshold(confidence, correct, risk=0.002)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"risk": 0.0}, "risk"),
        ({"risk": 1.0}, "risk"),
        ({"level": 1.0}, "level"),
        ({"thresholds": ()}, "thresholds"),
        ({"thresholds": (0.5, 0.9)}, "fall strictly"),
        ({"thresholds": (1.2, 0.9)}, "within 0 to 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, problem):
    with pytest.raises(ConfigError, match=problem):
        decision.accept_threshold([0.9], np.array([True]), **settings)


def test_a_reading_is_accepted_from_the_threshold_up():
    policy = decision.DecisionPolicy(accept_threshold=0.9, risk=0.002, level=0.95)
    assert policy.decide(0.9) == ("accept", None)
    assert policy.decide(0.8999) == ("review", None)


def test_without_a_threshold_nothing_is_accepted():
    policy = decision.DecisionPolicy(accept_threshold=None, risk=0.002, level=0.95)
    assert policy.decide(1.0) == ("review", None)


@pytest.mark.parametrize("confidence", [float("nan"), -0.1, 1.1])
def test_a_confidence_that_cannot_be_is_never_accepted(confidence):
    policy = decision.DecisionPolicy(accept_threshold=0.5, risk=0.002, level=0.95)
    with pytest.raises(DataError):
        policy.decide(confidence)


def test_choices_say_what_each_risk_costs_in_rising_order():
    confidence, correct = calibration_set([(0.9995, 2900, 0), (0.95, 100, 6), (0.6, 100, 40)])
    choices = decision.accept_choices(confidence, correct, risks=(0.01, 0.0005, 0.002, 0.01))
    assert [c.risk for c in choices] == [0.0005, 0.002, 0.01]
    strictest, middle, loosest = choices
    assert (strictest.threshold, strictest.coverage, strictest.n_accepted) == (None, 0.0, 0)
    assert strictest.n == 3100
    assert middle == decision.accept_threshold(confidence, correct, risk=0.002)
    assert (loosest.threshold, loosest.n_accepted, loosest.n_wrong) == (0.7, 3000, 6)


def test_choices_refuse_evidence_that_cannot_be():
    with pytest.raises(DataError, match="same shape"):
        decision.accept_choices([0.9, 0.8], np.array([True]))


CHOICES = (
    decision.AcceptThreshold(None, 0.001, 0.95, 0.0, 3000, 0, 0),
    decision.AcceptThreshold(0.9, 0.002, 0.95, 0.99, 3000, 2970, 1),
    decision.AcceptThreshold(0.5, 0.01, 0.95, 0.997, 3000, 2991, 10),
)


@pytest.mark.parametrize(
    ("risk", "chosen", "decided"),
    [
        (0.0001, None, "review"),
        (0.001, CHOICES[0], "review"),
        (0.0019, CHOICES[0], "review"),
        (0.002, CHOICES[1], "review"),
        (0.009, CHOICES[1], "review"),
        (0.01, CHOICES[2], "accept"),
        (0.5, CHOICES[2], "accept"),
    ],
)
def test_stated_risk_takes_the_next_stricter_choice(risk, chosen, decided):
    policy = decision.DecisionPolicy(0.5, 0.01, 0.95, CHOICES)
    assert policy.choice(risk) == chosen
    assert policy.decide(0.8, risk=risk) == (decided, None)


def test_strange_ink_is_rejected_however_sure_the_reading():
    policy = decision.DecisionPolicy(0.9, 0.002, 0.95, CHOICES, novelty_threshold=0.25)
    assert policy.decide(1.0, novelty=0.2501) == ("reject", "not_a_digit")
    assert policy.decide(1.0, novelty=0.2501, risk=0.01) == ("reject", "not_a_digit")
    assert policy.decide(1.0, novelty=0.25) == ("accept", None)
    assert policy.decide(1.0) == ("accept", None)


def test_ink_in_which_no_digit_is_likelier_than_not_is_unreadable():
    policy = decision.DecisionPolicy(0.9, 0.002, 0.95, novelty_threshold=0.25)
    assert policy.decide(0.4999, novelty=0.1) == ("reject", "unreadable")
    assert policy.decide(0.5, novelty=0.1) == ("review", None)
    assert policy.decide(0.2, novelty=0.3) == ("reject", "not_a_digit")


def test_novelty_that_is_not_a_number_is_never_accepted():
    policy = decision.DecisionPolicy(0.9, 0.002, 0.95, novelty_threshold=0.25)
    with pytest.raises(DataError, match="novelty"):
        policy.decide(1.0, novelty=float("nan"))


@pytest.mark.parametrize(
    "settings",
    [
        {"choices": CHOICES[::-1]},
        {"choices": (CHOICES[1], CHOICES[1])},
        {"novelty_threshold": float("inf")},
        {"rejected_share": 0.0},
        {"unreadable_below": 1.5},
    ],
)
def test_a_policy_whose_further_values_are_out_of_range_is_refused(settings):
    with pytest.raises(ConfigError):
        decision.DecisionPolicy(0.9, 0.002, 0.95, **settings)


@pytest.mark.parametrize(
    "settings",
    [(-0.1, 0.002, 0.95), (1.1, 0.002, 0.95), (0.9, 0.0, 0.95), (0.9, 0.002, 95.0)],
)
def test_a_policy_with_a_value_out_of_range_is_refused(settings):
    with pytest.raises(ConfigError):
        decision.DecisionPolicy(*settings)
