from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp

from inkdigits.decision.policy import DecisionPolicy, energy, reject_threshold
from inkdigits.decision.risk import AcceptThreshold
from inkdigits.errors import ConfigError, DataError


def test_a_reading_is_accepted_from_the_threshold_up_and_a_share_must_be_in_range():
    policy = DecisionPolicy(accept_threshold=0.9, risk=0.002, level=0.95)
    assert policy.decide(0.9) == ("accept", None)
    assert policy.decide(0.8999) == ("review", None)
    assert replace(policy, accept_threshold=None).decide(1.0) == ("review", None)
    for confidence in (float("nan"), -0.1, 1.1):
        with pytest.raises(DataError, match="confidence"):
            policy.decide(confidence)
    with pytest.raises(DataError, match="novelty"):
        policy.decide(1.0, novelty=float("nan"))


CHOICES = (
    AcceptThreshold(None, 0.001, 0.95, 0.0, 3000, 0, 0),
    AcceptThreshold(0.9, 0.002, 0.95, 0.99, 3000, 2970, 1),
    AcceptThreshold(0.5, 0.01, 0.95, 0.997, 3000, 2991, 10),
)


@pytest.mark.parametrize(
    ("risks", "chosen", "decided"),
    [
        ((0.0001,), None, "review"),
        ((0.001, 0.0019), CHOICES[0], "review"),
        ((0.002, 0.009), CHOICES[1], "review"),
        ((0.01, 0.5), CHOICES[2], "accept"),
    ],
)
def test_stated_risk_takes_the_next_stricter_choice(risks, chosen, decided):
    policy = DecisionPolicy(0.5, 0.01, 0.95, CHOICES)
    for risk in risks:
        assert policy.choice(risk) == chosen
        assert policy.decide(0.8, risk=risk) == (decided, None)


@pytest.mark.parametrize(
    ("confidence", "options", "decision"),
    [
        (1.0, {"novelty": 0.2501}, ("reject", "not_a_digit")),
        (1.0, {"novelty": 0.2501, "risk": 0.01}, ("reject", "not_a_digit")),
        (0.2, {"novelty": 0.3}, ("reject", "not_a_digit")),
        (1.0, {"novelty": 0.25}, ("review", None)),
        (1.0, {"novelty": -3.9}, ("review", None)),
        (1.0, {"novelty": -4.0}, ("accept", None)),
        (1.0, {}, ("accept", None)),
        (0.4999, {"novelty": 0.1}, ("reject", "unreadable")),
        (0.5, {"novelty": 0.1}, ("review", None)),
    ],
)
def test_novel_ink_is_rejected_and_so_is_an_unlikely_digit(confidence, options, decision):
    policy = DecisionPolicy(0.9, 0.002, 0.95, CHOICES, novelty_threshold=0.25)
    assert policy.decide(confidence, **options) == decision


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("choices", CHOICES[::-1]), ("choices", (CHOICES[1], CHOICES[1]))),
        *(("novelty_threshold", float("inf")), ("rejected_share", 0.0), ("unreadable_below", 1.5)),
        *(("accept_threshold", -0.1), ("accept_threshold", 1.1), ("risk", 0.0), ("level", 95.0)),
    ],
)
def test_a_policy_with_a_value_out_of_range_is_an_error(name, value):
    with pytest.raises(ConfigError):
        DecisionPolicy(**{"accept_threshold": 0.9, "risk": 0.002, "level": 0.95, name: value})


def test_energy_is_its_formula():
    logits = np.random.default_rng(0).normal(0, 30, (50, 10))
    for scale in (1, 1e4):
        assert energy(scale * logits) == pytest.approx(-logsumexp(scale * logits, axis=1))
    with pytest.raises(DataError, match=r"\(N, 10\)"):
        energy(np.zeros(10))


def test_threshold_rejects_no_more_new_digits_than_promised():
    rng = np.random.default_rng(0)
    share, exceeded = 0.02, []
    for _ in range(300):
        limit = reject_threshold(rng.exponential(size=500), share)
        exceeded.append(np.exp(-limit))  # the exponential's chance of a larger score
    # The mean over draws is what is promised: 10 of 501, with a standard error of 0.04 points.
    assert np.mean(exceeded) == pytest.approx(10 / 501, abs=0.0015)
    assert share >= 10 / 501


def test_threshold_leaves_8_of_3000_digits_above_it_and_rejects_none_of_too_few():
    scores = np.random.default_rng(0).permutation(3000).astype(float)
    assert (scores > reject_threshold(scores, 0.003)).sum() == 8
    assert reject_threshold(np.arange(332.0), 0.003) is None
    assert reject_threshold(np.arange(333.0), 0.003) == 332


@pytest.mark.parametrize(
    ("scores", "share", "error"),
    [([1.0], 0.0, ConfigError), ([1.0], 1.0, ConfigError), ([], 0.1, DataError),
     ([np.nan], 0.1, DataError)],
)  # fmt: skip
def test_threshold_needs_finite_scores_and_a_share_between_0_and_1(scores, share, error):
    with pytest.raises(error):
        reject_threshold(scores, share)
