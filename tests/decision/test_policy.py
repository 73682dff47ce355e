from dataclasses import replace

import pytest

from inkdigits.decision.policy import DecisionPolicy
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
        (1.0, {"novelty": 0.25}, ("accept", None)),
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
