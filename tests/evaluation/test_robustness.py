import io

import numpy as np
import pytest
from PIL import Image

from inkdigits.data.corruptions import FAMILIES, MNIST_C_SEVERITY
from inkdigits.data.non_digits import KINDS
from inkdigits.decision.prediction import Prediction
from inkdigits.evaluation.plots import robustness_figure
from inkdigits.evaluation.probes import ONES, digit_makers, several_makers
from inkdigits.evaluation.robustness import measure_corruptions, measure_robustness

pytestmark = pytest.mark.heavy


def answer(digit, confidence, probabilities, decision):
    ink = np.zeros((28, 28), np.uint8)
    return Prediction(digit, confidence, probabilities, decision, None, None, ink, "fake", 0.0, 0.0)


BLANK = answer(None, 0.0, (0.1,) * 10, "reject")
SEVEN = answer(7, 0.91, (*[0.01] * 7, 0.91, 0.01, 0.01), "accept")


class OneColourIsBlank:
    """Reads a 7 in every PNG that has two colours; keeps how many it was sent."""

    model_version = "fake"

    def __init__(self):
        self.sent = 0

    def predict_batch(self, pictures, *, on_error="raise"):
        self.sent += len(pictures)
        levels = [np.asarray(Image.open(io.BytesIO(p), formats=["PNG"])) for p in pictures]
        return [BLANK if a.min() == a.max() else SEVEN for a in levels]


@pytest.fixture(scope="module")
def report(digits):
    return measure_robustness(OneColourIsBlank(), *digits, per_family=20)


def test_every_family_and_kind_is_measured_once(digits, report):
    others = ["photographs", "scenes", "pen strokes", "scikit-learn's digits"]
    names = [s.name for s in report.digits]
    assert names == ["clean", *FAMILIES, *others, *digit_makers(), *ONES]
    kinds = [r.name for r in report.non_digits]
    assert kinds[: len(KINDS)] == list(KINDS)
    assert kinds[len(KINDS) :] == [
        *several_makers(digits[0]),
        *("empty canvas with marks", "empty paper", "empty paper in a scene"),
    ]
    assert {s.severities for s in report.digits if s.name == "fog"} == {(MNIST_C_SEVERITY["fog"],)}
    assert report.digits[0].n == len(digits[0])
    assert all(s.n == 20 for s in [*report.digits[1:], *report.non_digits])
    seven = report.digits[0].by_digit[7]
    assert seven[0] == seven[1] == seven[2] == (digits[1] == 7).sum()
    assert report.digits[0].by_digit[3][1:] == (0, 183, 183)
    assert "accepted, wrong of those" in report.table()
    blank = report.non_digits[0]
    assert blank.reasons == {}
    assert 0 < blank.rejected < 1
    assert blank.accepted == pytest.approx(1 - blank.rejected)


def test_severities_are_pooled_and_only_corruptions_are_read(digits):
    reader = OneColourIsBlank()
    scores = measure_corruptions(reader, *digits, per_family=5, severities=(1, 3))
    assert [(s.name, s.severities, s.n) for s in scores] == [(f, (1, 3), 10) for f in FAMILIES]
    assert reader.sent == 5 * 2 * 15


def test_the_report_is_that_of_its_seed_and_drawn(digits, report):
    assert measure_robustness(OneColourIsBlank(), *digits, per_family=20) == report
    left, middle, right = robustness_figure(report).axes
    assert next(t.get_text() for t in left.get_yticklabels()) == "clean (n = 1,797)"
    drawn = (len(middle.patches), len(right.patches))
    assert drawn == (len(report.digits), 3 * len(report.non_digits))
