import numpy as np
import pytest
from PIL import Image, ImageDraw

from inkdigits.decision.line import find_line
from inkdigits.decision.strip import DIGIT_HEIGHT, STRIP_HEIGHT, cut_digits, strip_of


def line_of(draw_on, size=(240, 90)):
    image = Image.new("L", size, 0)
    draw_on(ImageDraw.Draw(image))
    return find_line(np.asarray(image, dtype=np.float32) / 255, 0.4)


def zeros(*lefts, size=40):
    def draw(on):
        for left in lefts:
            on.ellipse([left, 20, left + size * 0.7, 20 + size], outline=255, width=5)

    return draw


def columns_of(strip, places):
    return [(place - strip.left) * strip.scale - 0.5 for place in places]


@pytest.mark.parametrize("size", [12, 30, 60])
def test_digits_have_one_height_in_a_strip(size):
    strip = strip_of(line_of(zeros(20, 90, 160, size=size)))
    assert strip.ink.shape[0] == STRIP_HEIGHT
    assert strip.ink.shape[1] % 2 == 0
    rows = np.flatnonzero((strip.ink > 0.4).any(axis=1))
    assert np.ptp(rows) + 1 == pytest.approx(DIGIT_HEIGHT, abs=2)
    middle = (rows[0] + rows[-1]) / 2
    assert middle == pytest.approx((STRIP_HEIGHT - 1) / 2, abs=1.5)


def test_digits_apart_are_cut_whole_with_their_boxes():
    line = line_of(zeros(20, 90))
    strip = strip_of(line)
    first, second = cut_digits(line, strip, columns_of(strip, [34, 104]))
    assert first.box == pytest.approx((20, 20, 29, 41), abs=1)
    assert second.box == pytest.approx((90, 20, 29, 41), abs=1)
    assert first.patch.max() == 255


def test_digits_that_touch_are_cut_midway():
    line = line_of(zeros(20, 46))
    assert len(line.tall) == 1
    strip = strip_of(line)
    first, second = cut_digits(line, strip, columns_of(strip, [34, 60]))
    assert first.box[0] + first.box[2] == pytest.approx(47, abs=2)
    assert second.box[0] == pytest.approx(47, abs=2)
    # Nothing is lost between them.
    assert first.patch.sum() + second.patch.sum() >= 0.98 * 255 * line.ink.sum()


def test_signs_are_left_out_and_parts_of_a_digit_are_not():
    def draw(on):
        on.line([(20, 40), (20, 70), (45, 70)], fill=255, width=5)  # a digit without its top
        on.line([(20, 25), (45, 25)], fill=255, width=5)  # its top
        on.line([(70, 68), (66, 78)], fill=255, width=5)  # a comma
        on.line([(90, 25), (90, 70)], fill=255, width=5)

    line = line_of(draw)
    strip = strip_of(line)
    first, second = cut_digits(line, strip, columns_of(strip, [30, 90]))
    assert first.box == pytest.approx((18, 23, 30, 50), abs=2)
    assert second.box == pytest.approx((88, 25, 5, 46), abs=2)


def test_a_place_without_ink_has_no_cut():
    line = line_of(zeros(20, 150))
    strip = strip_of(line)
    assert cut_digits(line, strip, columns_of(strip, [34, 100, 164]))[1] is None
    assert cut_digits(line, strip, []) == []
