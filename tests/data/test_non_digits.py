import string
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from inkdigits.data.fonts import find_fonts
from inkdigits.data.letters import DIGIT_SHAPED
from inkdigits.data.non_digits import (
    KINDS,
    LETTERS,
    SYMBOLS,
    Sources,
    make_non_digits,
    several_digits,
)
from inkdigits.errors import ConfigError, DataError
from inkdigits.reader import preprocess

BUNDLED = tuple(Path(mpl.get_data_path(), "fonts", "ttf").glob("*.ttf"))


@pytest.fixture
def sources(digits):
    return Sources(find_fonts("train", BUNDLED), digits[0])


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_have_the_sizes_of_users_and_a_seed_repeats_them(kind, sources):
    pictures, again = (
        make_non_digits(kind, 25, np.random.default_rng(3), sources) for _ in range(2)
    )
    assert len(pictures) == 25
    # What is left of a digit may be too little or too blurred to be ink.
    left = ("part_of_digit", "broken_digit", "cut_digit")
    drawn = kind not in ("blank", "noise", "texture", *left)
    for picture, same in zip(pictures, again, strict=True):
        assert (picture.dtype, picture.ndim) == (np.uint8, 2)
        assert 10 <= min(picture.shape) <= max(picture.shape) <= 600
        np.testing.assert_array_equal(picture, same)
        assert preprocess(picture).any() or not drawn
    assert len({p.tobytes() for p in pictures}) >= 20
    assert len({p.shape for p in pictures}) > 5


def test_two_digits_are_wider_than_high(digits):
    sources = Sources(digits=digits[0][digits[1] == 7][:1])
    for picture in make_non_digits("two_digits", 20, np.random.default_rng(0), sources):
        rows, columns = np.nonzero(preprocess(picture) > 60)
        assert np.ptp(columns) > np.ptp(rows)


def test_letters_that_are_digits_in_shape_are_left_out():
    for character in "OoIlSsZzBbqg|":
        assert any(character in shapes for shapes in DIGIT_SHAPED.values())
        assert character not in LETTERS + SYMBOLS
    assert {"A", "K", "x", "Ж", "λ"} <= set(LETTERS)
    assert not set(LETTERS + SYMBOLS) & set(string.digits)


BAR = np.zeros((1, 28, 28), np.uint8)
BAR[0, 4:24, 13:15] = 255


@pytest.mark.parametrize(
    ("kind", "sources", "message"),
    [
        *((kind, None, "0 fonts") for kind in ("letter", "symbol", "handwritten_letter")),
        *((kind, None, "none are given") for kind in ("two_digits", "several_digits")),
        ("part_of_digit", Sources(digits=BAR), "more than a stroke"),
        ("cat", None, "must be one of blank"),
    ],
)
def test_missing_sources_and_an_unknown_kind_are_named(kind, sources, message):
    with pytest.raises((DataError, ConfigError), match=message):
        make_non_digits(kind, 1, np.random.default_rng(0), sources or Sources())


def test_several_digits_have_the_size_distance_and_darkness_that_are_asked_for():
    how = {"n": 2, "ratio": (0.35, 0.35), "darkness": (0.3, 0.3), "gap": (1, 1)}
    for seed in range(20):
        canvas = several_digits(np.random.default_rng(seed), BAR, **how)
        dark, faint = canvas > 0.7, (canvas > 0.2) & (canvas < 0.35)
        ends = [np.argwhere(mask) for mask in (dark, faint)]
        high, low = (np.ptp(points, axis=0).max() + 1 for points in ends)
        assert low / high == pytest.approx(0.35, abs=0.15)
        assert np.abs(ends[0].mean(axis=0) - ends[1].mean(axis=0)).max() > 0.6 * high
