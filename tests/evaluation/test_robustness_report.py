import json
from dataclasses import replace

import numpy as np
import pytest

from inkdigits.calibration.intervals import Estimate
from inkdigits.decision.prediction import Prediction
from inkdigits.evaluation.robustness_report import RobustnessReport, score_digits, score_non_digits


def answer(digit=7, confidence=0.9, decision="accept", novelty=None):
    shares = np.full(10, 0.1 if digit is None else (1 - confidence) / 9)
    if digit is None:
        confidence = 0.0
    else:
        shares[digit] = confidence
    ink, shares = np.zeros((28, 28), np.uint8), tuple(shares.tolist())
    return Prediction(digit, confidence, shares, decision, None, novelty, ink, "fake", 0.0, 0.0)


BLANK = answer(None, decision="reject")


def test_digit_scores_are_counted_right():
    # The seventh is wrong and accepted.
    answers = [*[answer(7)] * 6, answer(1), answer(1, decision="review")]
    answers += [answer(7, decision="reject"), BLANK]
    got = score_digits("set", "other", (), answers, np.full(10, 7))
    assert (got.n, got.n_correct, got.n_accepted, got.n_wrong_accepted) == (10, 7, 7, 1)
    assert (got.coverage, got.accuracy.value) == (0.7, 0.7)
    assert got.accuracy.low < 0.7 < got.accuracy.high
    assert (got.wrong_among_accepted.value, got.rejected) == (pytest.approx(1 / 7), 0.2)
    # Nine with 0.9 of which seven are right, one with 0.1 that is wrong.
    assert got.ece == pytest.approx(0.9 * abs(7 / 9 - 0.9) + 0.1 * 0.1)
    assert got.reliability == (pytest.approx((0.1, 0, 1)), pytest.approx((0.9, 7, 9)))


def test_reading_nothing_is_wrong():
    assert score_digits("set", "other", (), [BLANK], [0]).n_correct == 0


def test_novelty_tells_digits_apart_or_confidence_and_a_blank_is_below_everything():
    digits = [answer(confidence=0.5, novelty=-3.0), answer(confidence=0.6, novelty=-2.0)]
    others = [answer(novelty=1.0, decision="review"), answer(novelty=2.0, decision="reject")]
    name, (scores,) = score_non_digits(digits, {"letter": others})
    assert name == "novelty"
    assert (scores.auroc, scores.fpr_at_95_tpr) == (1.0, 0.0)
    assert (scores.rejected, scores.reviewed, scores.accepted) == (0.5, 0.5, 0.0)
    digits[1] = answer(confidence=0.6)
    name, (scores,) = score_non_digits(digits, {"letter": [answer(novelty=1.0)]})
    assert (name, scores.auroc) == ("confidence", 0.0)
    for novelty in (None, 1e9):
        digits = [answer(confidence=0.1, novelty=novelty)]
        assert score_non_digits(digits, {"blank": [BLANK]})[1][0].auroc == 1.0


def test_the_report_is_a_table_and_json():
    fog = score_digits("fog", "corruption", (1, 3), [answer(7), answer(1)], [7, 7])
    none = replace(fog, name="snow", n_accepted=0, coverage=0.0, wrong_among_accepted=None)
    none = replace(none, accuracy=Estimate(0.7, 0.6, 0.8))
    score, non_digits = score_non_digits([answer(7)], {"blank": [BLANK]})
    report = RobustnessReport("v1", score, (fog, none), non_digits)
    for part in ("fog (1, 3)", "none accepted", "by confidence"):
        assert part in report.table()
    saved = json.loads(json.dumps(report.to_dict()))
    assert [s["name"] for s in saved["digits"]] == ["fog", "snow"]
    assert saved["non_digits"][0]["rejected"] == 1.0
    assert saved["corruption_accuracy"] == pytest.approx((0.5 + 0.7) / 2)
