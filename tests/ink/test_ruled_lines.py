import numpy as np
import pytest
from support.pictures import draw_five, drawn_ink

from inkdigits.ink.ruled_lines import erase_lines
from inkdigits.ink.select import select_digit


@pytest.mark.parametrize("slope", [0, 4, -9])
def test_printed_lines_are_erased_and_what_crosses_them_stays(slope):
    def ruled(draw):
        for row in (22, 50, 78, 106):
            draw.line([(-1, row), (128, row + slope)], fill=120, width=1)
            draw.line([(row - slope, -1), (row, 128)], fill=120, width=1)

    lines, digit = drawn_ink(ruled), drawn_ink(draw_five)
    erased = erase_lines(lines, 20.0)
    assert (erased > 20).sum() < 0.05 * (lines > 20).sum()
    assert select_digit(lines, lines) is None
    both = np.maximum(lines, digit)
    assert (erase_lines(both, 20.0)[digit > 100] > 100).mean() > 0.93
    assert select_digit(both, both)[digit > 100].mean() > 0.93


def test_neither_a_one_that_does_not_reach_the_border_nor_a_thick_stroke_is_a_line():
    one = drawn_ink(lambda draw: draw.line([(64, 8), (66, 119)], fill=255, width=3))
    assert erase_lines(one, 20.0) is one
    assert select_digit(one, one)[one > 100].all()
    bar = drawn_ink(lambda draw: draw.line([(-1, 64), (128, 64)], fill=255, width=14))
    assert np.array_equal(erase_lines(bar, 20.0), bar)
