import numpy as np
import pytest

from inkdigits.data.fonts import find_fonts
from inkdigits.data.hands import Hands
from inkdigits.data.pictures.foreground import (
    Sources,
    draw,
    write_digit,
    write_dot,
    write_sign,
    write_style,
)


def rng():
    return np.random.default_rng(11)


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("height", [10.0, 40.0, 160.0])
def test_digits_are_about_as_high_as_asked_and_partly_covered(digits, height, drawn):
    generator, sources = rng(), Sources(*digits)
    made = [write_digit(height, generator, sources, drawn=drawn) for _ in range(20)]
    assert all(0 <= digit <= 9 for _, digit in made)
    patches = [patch for patch, _ in made]
    heights = [np.ptp(np.flatnonzero(patch.max(axis=1) > 0.3)) + 1 for patch in patches]
    assert 0.7 * height < np.median(heights) < 1.5 * height
    assert all(p.dtype == np.float32 and p.min() >= 0 and 0.5 < p.max() <= 1 for p in patches)


def test_hairlines_and_thick_pens_are_both_drawn():
    generator = rng()
    shares = [write_digit(150.0, generator, Sources(), drawn=True)[0].mean() for _ in range(80)]
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
        sources = Sources(fonts=fonts)
        assert all(write_sign(50.0, generator, sources).max() > 0.3 for _ in range(20))
    dots = [write_dot(50.0, generator) for _ in range(20)]
    assert all(dot.max() > 0.3 and dot.shape[0] < 40 for dot in dots)


def test_other_hands_write_their_share_or_all_where_there_is_nobody_else(digits):
    bar = np.array([[5.0, 0.0], [5.0, 9.0]])
    ring = np.zeros((1, 32, 32), bool)
    ring[0, 6:26, 8:24] = True
    hands = Hands(((bar,),), np.array([1]), np.array([7]), ring, np.array([0]))
    generator, sevens = rng(), digits[0][digits[1] == 7]
    alone = Sources(hands=hands, styles=False)
    written = [write_digit(40.0, generator, alone, drawn=False)[1] for _ in range(40)]
    assert set(written) == {0, 1}
    both = Sources(sevens, np.full(len(sevens), 7), hands=hands)
    written = [write_digit(40.0, generator, both, drawn=False)[1] for _ in range(80)]
    assert 40 < written.count(7) < 75


def test_a_style_is_written_as_it_is_named():
    patch = write_style(1, "stick", 60.0, rng(), 0.08)
    assert np.ptp(np.flatnonzero((patch > 0.3).any(axis=0))) < 40
