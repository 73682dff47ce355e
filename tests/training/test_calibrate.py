import dataclasses

import numpy as np
import torch

from inkdigits.data.mnist import Digits
from inkdigits.training.calibrate import _policy, find_operating_point


def test_risk_that_no_threshold_keeps_accepts_nothing_and_says_so(splits, fitted):
    said = []
    how = {"groups": {"pupils": splits.calibration}, "risk": 1e-6, "report": said.append}
    point = find_operating_point(fitted.weights, splits.calibration, **how)
    choice = point.policy.choices[0]
    assert (choice.risk, choice.threshold, point.policy.accept_threshold) == (1e-6, None, None)
    assert "the model will accept nothing" in said[0]
    assert (point.groups["pupils"].n_accepted, point.ood_auroc) == (0, None)


def test_a_group_in_which_no_threshold_keeps_the_risk_is_named_and_does_not_decide(splits, fitted):
    shifted = Digits(splits.calibration.inks, (splits.calibration.labels + 1) % 10)
    groups, said = {"same": splits.calibration, "strange": shifted}, []
    how = {"groups": groups, "risk": 0.5, "report": said.append}
    point = find_operating_point(fitted.weights, splits.calibration, **how)
    alone = find_operating_point(fitted.weights, splits.calibration, risk=0.5)
    assert point.policy.accept_threshold == alone.policy.accept_threshold is not None
    same, strange = point.groups["same"], point.groups["strange"]
    assert (same.keeps_risk, strange.keeps_risk, strange.decides) == (True, False, False)
    assert strange.n_wrong / strange.n_accepted > 0.8
    assert point.to_dict()["accepted_by_group"]["strange"]["wrong_at_most"] > 0.8
    assert any("no threshold meets the risk of 50.00% in strange" in line for line in said)
    assert any(line.startswith("strange: ") and "ignored" in line for line in said)


def test_a_stricter_risk_accepts_no_more_though_fewer_groups_decide_it():
    clean = np.ones(20_000), np.ones(20_000, bool)
    # Eight of this group are wrong for certain: a risk of 0.05 % is not kept in it.
    confidence, right = np.ones(10_000), np.arange(10_000) >= 108
    confidence[8:108] = 0.9
    policy = _policy(clean, {"strange": (confidence, right)}, None, None, 0.001, print)
    thresholds = [choice.threshold for choice in policy.choices]
    assert thresholds == sorted(thresholds, reverse=True)
    assert policy.choices[0].risk == 0.0005
    assert thresholds[0] == policy.accept_threshold > 0.9
    assert policy.choices[0].n_accepted == 20_000


def test_synthetic_digits_without_other_pictures_are_scored(splits, fitted):
    said = []
    half = splits.calibration[torch.arange(100)]
    darker = Digits(half.inks // 2, half.labels)
    point = find_operating_point(
        fitted.weights, splits.calibration, synthetic=darker, risk=0.5, report=said.append
    )
    assert (point.n_hard, point.ood_auroc) == (100, None)
    assert point.hard.nll.value > 0
    assert any("on synthesised digits" in line and "n = 100" in line for line in said)
    assert any(line.startswith("accepted from confidence") for line in said)
    assert point.to_dict()["calibration"]["temperature"] == point.temperature


def test_what_the_ink_forbids_is_not_accepted_in_a_group(splits, fitted):
    digits = splits.calibration
    forbidden = dataclasses.replace(digits, certain=torch.zeros(len(digits), dtype=torch.bool))
    groups = {"all": digits, "none": forbidden}
    found = find_operating_point(fitted.weights, digits, groups=groups, risk=0.5).groups
    assert found["all"].n_accepted > 0
    assert (found["none"].n, found["none"].n_accepted) == (len(digits), 0)
    assert found["none"].n_rejected == found["all"].n_rejected


def test_a_digit_of_another_hand_is_no_outlier(splits, fitted):
    alone, both = (
        find_operating_point(fitted.weights, splits.calibration, groups=groups, risk=0.3).policy
        for groups in ({}, {"strange": Digits(splits.train.inks // 2, splits.train.labels)})
    )
    assert both.novelty_threshold > alone.novelty_threshold
