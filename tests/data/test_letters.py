from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from inkdigits.data.fonts import find_fonts
from inkdigits.data.letters import SCRIPTS, alphabet, scripts_of, skeleton, write_letter
from inkdigits.errors import DataError

FONTS = find_fonts(paths=tuple(Path(mpl.get_data_path(), "fonts", "ttf").glob("DejaVu*.ttf")))


def test_each_script_trains_or_is_held_back_and_has_letters_without_the_shape_of_a_digit():
    train, held_back = scripts_of("train"), scripts_of("held_back")
    assert not set(train) & set(held_back)
    assert set(train) | set(held_back) == set(SCRIPTS)
    assert all(len(alphabet(script)) > 10 for script in SCRIPTS)
    assert {"A", "k"} <= set(alphabet("Latin"))
    # Neither an O nor an O with an accent.
    assert not set("OÖÒ") & set(alphabet("Latin"))


@pytest.mark.parametrize("script", ["Latin", "Cyrillic", "Armenian", "Arabic"])
def test_letters_are_drawn_with_a_pen_each_time_another(script):
    rng = np.random.default_rng(2)
    drawn = [write_letter(FONTS, [script], rng) for _ in range(12)]
    assert {letter for _, letter in drawn} <= set(alphabet(script))
    assert len({coverage.shape for coverage, _ in drawn}) > 6
    for coverage, _ in drawn:
        assert 0 <= coverage.min() <= 0.01 < 0.9 < coverage.max() <= 1
        assert 0.01 < (coverage > 0.5).mean() < 0.6


def test_a_script_without_a_font_is_an_error():
    with pytest.raises(DataError, match="letters of Khmer"):
        write_letter(FONTS, ["Khmer"], np.random.default_rng(0))


def test_a_skeleton_has_lines_of_one_pixel_that_hang_together():
    mask = np.zeros((60, 60), bool)
    mask[10:50, 10:17] = mask[43:50, 10:45] = True
    thin = skeleton(mask)
    assert (thin <= mask).all()
    assert 55 < thin.sum() < 80
    assert not (thin[:-1, :-1] & thin[1:, :-1] & thin[:-1, 1:] & thin[1:, 1:]).any()
