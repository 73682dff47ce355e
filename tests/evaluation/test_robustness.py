import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from inkdigits.data import non_digits as nondigits
from inkdigits.data.corruptions import FAMILIES, MNIST_C_SEVERITY
from inkdigits.decision.prediction import Prediction
from inkdigits.errors import ConfigError, DataError
from inkdigits.evaluation.plots import robustness_figure
from inkdigits.evaluation.robustness import measure_robustness
from inkdigits.evaluation.robustness_report import score_digits, score_non_digits


def answer(digit=7, confidence=0.9, decision="accept", novelty=None):
    shares = np.full(10, 0.1 if digit is None else (1 - confidence) / 9)
    if digit is not None:
        shares[digit] = confidence
    return Prediction(
        digit=digit,
        confidence=0.0 if digit is None else confidence,
        probabilities=tuple(shares.tolist()),
        decision=decision,
        reason=None,
        novelty=novelty,
        ink=np.zeros((28, 28), np.uint8),
        model_version="fake",
        preprocessing_ms=0.0,
        inference_ms=0.0,
    )


BLANK = answer(None, decision="reject")


class OneColourIsBlank:
    """Reads a 7 in every PNG that has two colours; keeps how many it was sent."""

    model_version = "fake"

    def __init__(self):
        self.sent = 0

    def predict_batch(self, pictures, *, on_error="raise"):
        self.sent += len(pictures)
        levels = [np.asarray(Image.open(io.BytesIO(p), formats=["PNG"])) for p in pictures]
        return [BLANK if a.min() == a.max() else answer() for a in levels]


@pytest.fixture(scope="module")
def report(digits):
    return measure_robustness(OneColourIsBlank(), *digits, per_family=20)


def test_digit_scores_are_counted_right():
    answers = [
        *[answer(7)] * 6,
        answer(1),  # wrong, accepted
        answer(1, decision="review"),
        answer(7, decision="reject"),
        BLANK,
    ]
    got = score_digits("set", "other", (), answers, np.full(10, 7))
    assert (got.n, got.n_correct, got.n_accepted, got.n_wrong_accepted) == (10, 7, 7, 1)
    assert got.coverage == 0.7
    assert got.accuracy.value == 0.7
    assert got.accuracy.low < 0.7 < got.accuracy.high
    assert got.wrong_among_accepted.value == pytest.approx(1 / 7)
    assert got.rejected == 0.2
    # Nine with 0.9 of which seven are right, one with 0.1 that is wrong.
    assert got.ece == pytest.approx(0.9 * abs(7 / 9 - 0.9) + 0.1 * 0.1)


def test_reading_nothing_in_a_zero_is_wrong():
    assert score_digits("set", "other", (), [BLANK], [0]).n_correct == 0


def test_where_nothing_is_accepted_there_is_no_share_of_wrong_ones():
    got = score_digits("set", "other", (), [answer(decision="review")], [7])
    assert got.wrong_among_accepted is None


def test_novelty_tells_digits_apart_where_there_is_one():
    digits = [answer(confidence=0.5, novelty=-3.0), answer(confidence=0.6, novelty=-2.0)]
    others = [answer(novelty=1.0, decision="review"), answer(novelty=2.0, decision="reject")]
    name, (scores,) = score_non_digits(digits, {"letter": others})
    assert name == "novelty"
    assert (scores.auroc, scores.fpr_at_95_tpr) == (1.0, 0.0)
    assert (scores.rejected, scores.reviewed, scores.accepted) == (0.5, 0.5, 0.0)


def test_confidence_tells_digits_apart_where_one_has_no_novelty():
    digits = [answer(confidence=0.5, novelty=-3.0), answer(confidence=0.6)]
    name, (scores,) = score_non_digits(digits, {"letter": [answer(novelty=1.0)]})
    assert name == "confidence"
    assert scores.auroc == 0.0


def test_a_blank_is_below_everything_with_either_score():
    for novelty in (None, 1e9):
        digits = [answer(confidence=0.1, novelty=novelty)]
        _, (scores,) = score_non_digits(digits, {"blank": [BLANK]})
        assert scores.auroc == 1.0


def test_every_family_and_kind_is_measured_once(digits, report):
    names = [s.name for s in report.digits]
    assert names == [
        "clean",
        *FAMILIES,
        "photographs",
        "scenes",
        "pen strokes",
        "scikit-learn's digits",
    ]
    assert [r.name for r in report.non_digits] == [
        *nondigits.KINDS,
        "photographed_paper",
        "empty_scenes",
    ]
    assert {s.severities for s in report.digits if s.name == "fog"} == {(MNIST_C_SEVERITY["fog"],)}
    assert report.digits[0].n == len(digits[0])
    assert all(s.n == 20 for s in [*report.digits[1:], *report.non_digits])
    # Strokes take turns, and the reader only knows 7.
    assert {s.name: s.n_correct for s in report.digits}["pen strokes"] == 2
    blank = report.non_digits[0]
    assert 0 < blank.rejected < 1
    assert blank.accepted == 1 - blank.rejected


def test_severities_are_pooled(digits):
    reader = OneColourIsBlank()
    report = measure_robustness(reader, *digits, per_family=5, severities=(1, 3))
    fog = next(s for s in report.digits if s.name == "fog")
    assert (fog.severities, fog.n) == ((1, 3), 10)
    assert reader.sent == len(digits[0]) + 5 * (2 * 15 + 4 + len(nondigits.KINDS) + 2)


def test_the_same_seed_measures_the_same(digits, report):
    again = measure_robustness(OneColourIsBlank(), *digits, per_family=20)
    assert again == report


def test_the_report_is_a_table_json_and_a_figure(report):
    table = report.table()
    assert "impulse_noise (4)" in table
    assert "by confidence" in table
    saved = json.loads(json.dumps(report.to_dict()))
    assert saved["digits"][0]["name"] == "clean"
    families = [s["accuracy"]["value"] for s in saved["digits"] if s["group"] == "corruption"]
    assert saved["corruption_accuracy"] == pytest.approx(sum(families) / 15)
    figure = robustness_figure(report)
    left, middle, right = figure.axes
    assert next(t.get_text() for t in left.get_yticklabels()) == "clean (n = 1,797)"
    assert len(middle.patches) == len(report.digits)
    assert len(right.patches) == 3 * len(report.non_digits)


def test_nothing_accepted_can_be_shown(report):
    none = replace(report.digits[0], n_accepted=0, coverage=0.0, wrong_among_accepted=None)
    assert "none accepted" in replace(report, digits=(none, *report.digits[1:])).table()


@pytest.mark.parametrize(
    "change",
    [{"per_family": 0}, {"severities": ()}, {"inks": np.zeros((3, 8, 8), np.uint8)}],
)
def test_what_cannot_be_measured_is_refused(digits, change):
    arguments = {"inks": digits[0], "labels": digits[1], "per_family": 2} | change
    with pytest.raises(DataError):
        measure_robustness(OneColourIsBlank(), **arguments)


def test_an_unknown_severity_is_refused(digits):
    with pytest.raises(ConfigError, match="1 to 5"):
        measure_robustness(OneColourIsBlank(), *digits, per_family=1, severities=(6,))


def test_no_answers_have_no_scores():
    with pytest.raises(DataError, match="no pictures"):
        score_digits("set", "other", (), [], [])
