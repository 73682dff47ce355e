import string
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from inkdigits.data.fonts import find_fonts
from inkdigits.data.letters import DIGIT_SHAPED
from inkdigits.data.non_digits import KINDS, LETTERS, SYMBOLS, make_non_digits
from inkdigits.data.pictures.foreground import Sources
from inkdigits.errors import DataError
from inkdigits.reader import preprocess

BUNDLED = tuple(Path(mpl.get_data_path(), "fonts", "ttf").glob("*.ttf"))


@pytest.fixture
def sources(digits):
    return Sources(*digits, find_fonts("train", BUNDLED))


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_have_the_sizes_of_users_and_a_seed_repeats_them(kind, sources):
    pictures, again = (
        make_non_digits(kind, 25, np.random.default_rng(3), sources) for _ in range(2)
    )
    assert len(pictures) == 25
    # What is left of a digit may be too little or too blurred to be ink.
    drawn = kind not in ("blank", "noise", "texture", "cut_digit", "broken_digit")
    for picture, same in zip(pictures, again, strict=True):
        assert (picture.dtype, picture.ndim) == (np.uint8, 2)
        assert 10 <= min(picture.shape) <= max(picture.shape) <= 600
        np.testing.assert_array_equal(picture, same)
        assert preprocess(picture).any() or not drawn
    assert len({p.tobytes() for p in pictures}) >= 20
    assert len({p.shape for p in pictures}) > 5 or kind == "noise"


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
        ("broken_digit", None, "none are given"),
        ("cut_digit", Sources(BAR, np.array([1])), "more than a stroke"),
    ],
)
def test_missing_sources_are_named(kind, sources, message):
    with pytest.raises(DataError, match=message):
        make_non_digits(kind, 1, np.random.default_rng(0), sources or Sources())
