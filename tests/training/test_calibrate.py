import torch

from inkdigits.data.mnist import Digits
from inkdigits.training.calibrate import find_operating_point


def test_risk_that_no_threshold_keeps_accepts_nothing_and_says_so(splits, fitted):
    said = []
    how = {"corrupted": splits.calibration, "risk": 1e-6, "report": said.append}
    point = find_operating_point(fitted.weights, splits.calibration, **how)
    choice = point.policy.choices[0]
    assert (choice.risk, choice.threshold, point.policy.accept_threshold) == (1e-6, None, None)
    assert "nothing will be accepted" in said[0]
    assert (point.corrupted.n_accepted, point.ood_auroc) == (0, None)


def test_synthetic_digits_without_other_pictures_are_scored(splits, fitted):
    said = []
    half = splits.calibration[torch.arange(100)]
    darker = Digits(half.inks // 2, half.labels)
    point = find_operating_point(
        fitted.weights, splits.calibration, synthetic=darker, risk=0.3, report=said.append
    )
    assert (point.n_hard, point.ood_auroc) == (100, None)
    assert point.hard.nll.value > 0
    assert any("on synthesised digits" in line and "n = 100" in line for line in said)
    assert any(line.startswith("accepted from confidence") for line in said)
    assert point.to_dict()["calibration"]["temperature"] == point.temperature
