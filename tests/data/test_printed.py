import numpy as np
import pytest

from inkdigits.data.fonts import find_fonts
from inkdigits.data.printed import render_character, render_digits
from inkdigits.errors import DataError


def test_printed_digits_have_every_label_and_ink_and_a_character_that_no_font_has_is_an_error():
    fonts, rng = find_fonts(), np.random.default_rng(1)
    pictures, labels = render_digits(60, fonts, rng)
    assert set(labels.tolist()) == set(range(10))
    assert all(np.ptp(picture) > 60 for picture in pictures)
    with pytest.raises(DataError, match="none of the"):
        render_character("\N{EGYPTIAN HIEROGLYPH A001}", fonts, 1, rng)
