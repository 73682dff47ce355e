import torch

from inkdigits.data.mnist import Digits
from inkdigits.training.calibrate import find_operating_point


def test_risk_that_no_threshold_keeps_accepts_nothing_and_says_so(splits, fitted):
    said = []
    point = find_operating_point(
        fitted.weights, splits.calibration, corrupted=splits.calibration, risk=1e-6,
        report=said.append,
    )  # fmt: skip
    assert point.policy.accept_threshold is None
    assert (point.policy.choices[0].risk, point.policy.choices[0].threshold) == (1e-6, None)
    assert "nothing will be accepted" in said[0]
    assert point.corrupted.n_accepted == 0
    assert point.ood_auroc is None


def test_synthetic_digits_without_other_pictures_are_scored(splits, fitted):
    said = []
    half = splits.calibration[torch.arange(100)]
    darker = Digits(half.inks // 2, half.labels)
    point = find_operating_point(
        fitted.weights, splits.calibration, synthetic=darker, risk=0.3, report=said.append
    )
    assert point.n_hard == 100
    assert point.hard.nll.value > 0
    assert point.ood_auroc is None
    assert any("on synthesised digits" in line and "n = 100" in line for line in said)
    assert any(line.startswith("accepted from confidence") for line in said)
    assert point.to_dict()["calibration"]["temperature"] == point.temperature
