import numpy as np
import pytest
from PIL import Image, ImageDraw

from inkdigits.decision.line import clean_ink, find_line, without_lines


def drawn(draw_on, size=(240, 70)):
    """(H, W) float32 of ink, 1 where drawn."""
    image = Image.new("L", size, 0)
    draw_on(ImageDraw.Draw(image))
    return np.asarray(image, dtype=np.float32) / 255


def three_digits(draw):
    """A 1, a 7 and an L, 40 pixels high."""
    draw.line([(40, 15), (40, 55)], fill=255, width=5)
    draw.line([(90, 15), (115, 15), (100, 55)], fill=255, width=5)
    draw.line([(150, 15), (150, 55), (175, 55)], fill=255, width=5)


def line_of(ink):
    cleaned, _ = clean_ink(ink, 0.4)
    return find_line(cleaned, 0.4)


def test_digits_apart_are_components_from_left_to_right():
    line = line_of(drawn(three_digits))
    assert len(line.tall) == 3
    lefts = line.found.left[line.tall].tolist()
    assert lefts == sorted(lefts)
    assert line.height == pytest.approx(42, abs=4)
    assert not line.is_low


@pytest.mark.parametrize(
    "lines",
    [
        [(0, 62, 239, 62)],
        [(20, 5, 220, 5), (20, 66, 220, 66)] + [(x, 5, x, 66) for x in (20, 70, 130, 220)],
        [(0, 0, 239, 0), (0, 69, 239, 69), (0, 0, 0, 69), (239, 0, 239, 69)],
    ],
    ids=["underlined", "boxed", "framed"],
)
def test_printed_lines_are_no_digits(lines):
    def draw(on):
        three_digits(on)
        for line in lines:
            on.line(line, fill=255, width=2)

    assert widths(line_of(drawn(draw))) == widths(line_of(drawn(three_digits)))


def widths(line):
    return (line.found.right - line.found.left)[line.tall].tolist()


def test_stroke_that_crosses_a_line_stays_whole():
    def draw(on):
        on.line([(0, 35), (239, 35)], fill=255, width=2)
        on.line([(100, 10), (100, 60)], fill=255, width=6)

    cleaned = without_lines(drawn(draw), 0.4, 50.0)
    assert cleaned[35, 20] == 0
    assert (cleaned[12:58, 100] == 1).all()


def test_nothing_and_specks_are_no_line():
    assert clean_ink(np.zeros((40, 90), np.float32), 0.4) is None
    noise = (np.random.default_rng(0).random((300, 300)) < 0.3).astype(np.float32)
    assert find_line(noise, 0.4) is None


def test_lines_of_writing_are_counted():
    def draw(on):
        for y in (5, 40):
            for x in (20, 60, 100):
                on.line([(x, y), (x, y + 25)], fill=255, width=4)

    assert line_of(drawn(draw)).lines == 2
    assert line_of(drawn(three_digits)).lines == 1


@pytest.mark.parametrize(("strokes", "is_low"), [((), True), ((60, 100, 140, 180), False)])
def test_a_dash_is_low_but_digits_that_all_touch_are_not(strokes, is_low):
    def joined(draw):
        draw.line([(40, 35), (200, 35)], fill=255, width=5)
        for x in strokes:
            draw.arc([x - 20, 12, x + 20, 58], 0, 360, fill=255, width=5)

    assert line_of(drawn(joined)).is_low == is_low
