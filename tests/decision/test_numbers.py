import numpy as np
import pytest
from PIL import Image, ImageDraw

from inkdigits.decision.hints import Hints
from inkdigits.decision.numbers import NUMBER_POLICY, read_number
from inkdigits.decision.policy import DecisionPolicy

LOOSE = DecisionPolicy(accept_threshold=0.5, risk=0.005, level=0.95)


def strokes(n, *more, height=30):
    """A line of upright strokes, and further lines."""
    image = Image.new("L", (40 + 30 * n, 60), 0)
    draw = ImageDraw.Draw(image)
    for i in range(n):
        draw.line([(30 + 30 * i, 15), (30 + 30 * i, 15 + height)], fill=255, width=5)
    for line in more:
        draw.line(line, fill=255, width=4)
    return np.asarray(image, dtype=np.float32) / 255


def ones(inks):
    """Read what is narrow as 1 (or less surely 7), and what is wide as no digit."""
    logits = np.full((len(inks), 10), -15.0, np.float32)
    narrow = (inks > 60).any(axis=1).sum(axis=1) < 14
    logits[narrow, 1], logits[narrow, 7] = 12.0, 11.0
    return logits


def test_line_of_strokes_is_a_number_with_boxes_from_left_to_right():
    found = read_number(strokes(4), ones, LOOSE)
    assert (found.text, found.decision, found.reason) == ("1111", "accept", None)
    lefts = [digit.box[0] for digit in found.digits]
    assert lefts == pytest.approx([28, 58, 88, 118], abs=4)
    assert all(28 <= digit.box[3] <= 36 for digit in found.digits)
    assert all(digit.alternatives[0][0] == 7 for digit in found.digits)
    assert any("7" in text for text, _ in found.alternatives)
    assert found.confidence > found.alternatives[0][1]


def test_hints_choose_among_alternatives_and_such_a_number_is_for_review():
    plain = read_number(strokes(3), ones, LOOSE)
    found = read_number(strokes(3), ones, LOOSE, hints=Hints.of({"min": 500}))
    assert plain.text == "111"
    assert (found.text[0], found.decision != "accept") == ("7", True)
    assert [(check.name, check.ok) for check in found.checks] == [("min", True)]
    never = read_number(strokes(3), ones, LOOSE, hints=Hints.of({"min": 999}))
    assert (never.text, never.decision, never.checks[0].ok) == ("111", "review", False)
    assert (
        read_number(strokes(3), ones, LOOSE, hints=Hints(lengths=(9, 9))).reason == "not_a_number"
    )


def test_comma_and_dash_are_no_digits():
    comma, dash = [(45, 44), (42, 50)], [(98, 30), (112, 30)]
    assert read_number(strokes(2, comma, dash), ones, LOOSE).text == "11"


@pytest.mark.parametrize(
    ("ink", "reason"),
    [
        (np.zeros((40, 90), np.float32), "no_ink"),
        (strokes(0, [(10, 30), (30, 30)]), "no_ink"),
        (strokes(3, height=8) + np.roll(strokes(3, height=8), 22, axis=0), "several_lines"),
    ],
)
def test_what_is_no_number_is_rejected_with_its_reason(ink, reason):
    found = read_number(ink, ones, LOOSE)
    assert (found.text, found.decision, found.reason) == ("", "reject", reason)


def test_what_looks_like_no_digit_is_not_a_number():
    found = read_number(strokes(2), lambda inks: np.full((len(inks), 10), -15.0), LOOSE)
    assert (found.text, found.reason) == ("", "not_a_number")


def test_number_whose_second_view_differs_is_for_review():
    calls = []

    def changes_its_mind(inks):
        calls.append(len(inks))
        logits = ones(inks)
        return logits if len(calls) == 1 else np.roll(logits, 1, axis=1)

    found = read_number(strokes(2), changes_its_mind, LOOSE)
    assert found.text in {"11", "22"}
    assert found.decision != "accept"


def test_number_that_the_border_cuts_off_is_for_review():
    assert read_number(strokes(2)[:40], ones, LOOSE).decision == "review"


def test_stated_risk_decides():
    assert read_number(strokes(2), ones, NUMBER_POLICY, risk=1e-9).decision == "review"


def test_what_is_longer_than_a_number_may_be_is_not_a_number():
    assert len(read_number(strokes(64), ones, LOOSE).text) == 64
    found = read_number(strokes(65), ones, LOOSE)
    assert (found.text, found.reason) == ("", "not_a_number")
