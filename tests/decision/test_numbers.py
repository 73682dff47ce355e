import numpy as np
import pytest
from PIL import Image, ImageDraw

from inkdigits.decision.ctc import NOTHING, OTHER
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


def columns(strips):
    """Read each upright stroke of a strip as 1, or less surely as 7."""
    logits = np.zeros((len(strips), strips.shape[3] // 2, 12), np.float32)
    logits[..., NOTHING] = 12.0
    inked = (strips[0, 0, :, ::2] > 0.4).sum(axis=0) > 9
    edges = np.flatnonzero(np.diff(np.pad(inked.astype(int), 1)))
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        logits[:, (first + end) // 2, [1, 7, NOTHING]] = 12.0, 9.0, 0.0
    return logits


def read(ink, classify=ones, policy=LOOSE, **hints):
    return read_number(ink, columns, classify, policy, **hints)


def test_line_of_strokes_is_a_number_with_boxes_from_left_to_right():
    found = read(strokes(4))
    assert (found.text, found.decision, found.reason) == ("1111", "accept", None)
    lefts = [digit.box[0] for digit in found.digits]
    assert lefts == pytest.approx([28, 58, 88, 118], abs=4)
    assert all(28 <= digit.box[3] <= 36 for digit in found.digits)
    assert all(digit.alternatives[0][0] == 7 for digit in found.digits)
    assert any("7" in text for text, _ in found.alternatives)
    assert found.confidence > found.alternatives[0][1]


def test_hints_choose_among_alternatives_and_such_a_number_is_for_review():
    plain = read(strokes(3))
    found = read(strokes(3), hints=Hints.of({"min": 500}))
    assert plain.text == "111"
    assert (found.text[0], found.decision != "accept") == ("7", True)
    assert [(check.name, check.ok) for check in found.checks] == [("min", True)]
    never = read(strokes(3), hints=Hints.of({"min": 999}))
    assert (never.text, never.decision, never.checks[0].ok) == ("111", "review", False)
    assert read(strokes(3), hints=Hints(lengths=(9, 9))).reason == "not_a_number"


def test_comma_and_dash_are_no_digits():
    comma, dash = [(45, 44), (42, 50)], [(98, 30), (112, 30)]
    assert read(strokes(2, comma, dash)).text == "11"


@pytest.mark.parametrize(
    ("ink", "reason"),
    [
        (np.zeros((40, 90), np.float32), "no_ink"),
        (strokes(0, [(10, 30), (30, 30)]), "no_ink"),
        (strokes(3, height=8) + np.roll(strokes(3, height=8), 22, axis=0), "several_lines"),
    ],
)
def test_what_is_no_number_is_rejected_with_its_reason(ink, reason):
    found = read(ink)
    assert (found.text, found.decision, found.reason) == ("", "reject", reason)


def test_what_the_line_reader_finds_no_digit_in_is_not_a_number():
    def nothing(strips):
        logits = np.zeros((len(strips), strips.shape[3] // 2, 12), np.float32)
        logits[..., NOTHING] = 12.0
        return logits

    found = read_number(strokes(2), nothing, ones, LOOSE)
    assert (found.text, found.reason) == ("", "not_a_number")


def test_number_whose_digits_the_classifier_reads_otherwise_is_for_review():
    found = read(strokes(2), lambda inks: np.roll(ones(inks), 1, axis=1))
    assert found.text == "11"
    assert found.decision != "accept"


def test_number_whose_sheared_line_reads_otherwise_is_for_review():
    def changes_its_mind(strips):
        logits = columns(strips)
        logits[2, :, [1, 7]] = logits[2, :, [7, 1]]
        return logits

    found = read_number(strokes(2), changes_its_mind, ones, LOOSE)
    assert (found.text, found.decision) == ("11", "review")


def test_number_with_something_else_in_it_is_for_review():
    def sees_a_letter(strips):
        logits = columns(strips)
        (at,) = np.flatnonzero(logits[0, :, 1] > 0)[1:2]
        logits[:, at, 1], logits[:, at, OTHER] = 0.0, 14.0
        return logits

    found = read_number(strokes(3), sees_a_letter, ones, LOOSE)
    assert (found.text, found.decision) == ("11", "review")


def test_number_that_the_border_cuts_off_is_for_review():
    assert read(strokes(2)[:40]).decision == "review"


def test_stated_risk_decides():
    assert read(strokes(2), policy=NUMBER_POLICY, risk=1e-9).decision == "review"


def test_what_is_longer_than_a_number_may_be_is_not_a_number():
    assert len(read(strokes(64)).text) == 64
    found = read(strokes(65))
    assert (found.text, found.reason) == ("", "not_a_number")
