import numpy as np
import pytest

from inkdigits.data.fonts import find_fonts
from inkdigits.data.printed import render_character, render_digits
from inkdigits.errors import DataError


def test_printed_digits_have_every_label_and_ink():
    pictures, labels = render_digits(60, find_fonts(), np.random.default_rng(1))
    assert set(labels.tolist()) == set(range(10))
    assert all(int(p.max()) - int(p.min()) > 60 for p in pictures)


def test_a_character_that_no_font_has_is_an_error():
    with pytest.raises(DataError, match="none of the"):
        render_character("\N{EGYPTIAN HIEROGLYPH A001}", find_fonts(), 1, np.random.default_rng(0))
