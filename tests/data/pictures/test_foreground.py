import numpy as np
import pytest

from inkdigits.data.fonts import find_fonts
from inkdigits.data.pictures.foreground import Hands, draw, write_digit, write_dot, write_sign

NOBODY = np.zeros((0, 28, 28), np.uint8)


def rng():
    return np.random.default_rng(11)


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("height", [10.0, 40.0, 160.0])
def test_digits_are_about_as_high_as_asked_and_partly_covered(digits, height, drawn):
    generator, hands = rng(), Hands(digits[0])
    patches = [write_digit(height, generator, hands, drawn=drawn) for _ in range(20)]
    heights = [np.ptp(np.flatnonzero(patch.max(axis=1) > 0.3)) + 1 for patch in patches]
    assert 0.7 * height < np.median(heights) < 1.5 * height
    assert all(p.dtype == np.float32 and p.min() >= 0 and 0.5 < p.max() <= 1 for p in patches)


def test_hairlines_and_thick_pens_are_both_drawn():
    generator, hands = rng(), Hands(NOBODY)
    shares = [write_digit(150.0, generator, hands, drawn=True).mean() for _ in range(80)]
    assert min(shares) < 0.04
    assert max(shares) > 0.4


def test_a_thin_pen_sometimes_draws_hard_pixels():
    generator, line = rng(), np.array([[0.0, 0.0], [40.0, 23.0]])
    drawn = [set(np.unique(draw([line], 1.2, generator)).tolist()) for _ in range(30)]
    assert {0.0, 1.0} in drawn
    assert any(len(values) > 2 for values in drawn)


def test_signs_and_dots_have_ink_with_and_without_fonts():
    generator = rng()
    for fonts in ((), find_fonts("train")):
        hands = Hands(NOBODY, fonts)
        assert all(write_sign(50.0, generator, hands).max() > 0.3 for _ in range(20))
    dots = [write_dot(50.0, generator) for _ in range(20)]
    assert all(dot.max() > 0.3 and dot.shape[0] < 40 for dot in dots)
