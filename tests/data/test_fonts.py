from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from inkdigits.data.fonts import find_fonts, render_character, render_digits, split_of
from inkdigits.errors import DataError

BUNDLED = tuple(Path(mpl.get_data_path(), "fonts", "ttf").glob("*.ttf"))


def test_a_font_family_has_one_split_on_every_machine():
    splits = {
        split: {f.family for f in find_fonts(split, BUNDLED)}
        for split in ("train", "validation", "held_back")
    }
    assert all(splits.values())
    everything = [family for families in splits.values() for family in families]
    assert len(everything) == len(set(everything))
    assert set(everything) == {f.family for f in find_fonts(paths=BUNDLED)}
    assert not any(f.startswith(("cmex", "cmsy", "Last Resort")) for f in everything)
    assert set(everything) <= {f.family for f in find_fonts()}
    assert split_of("DejaVu Serif") == "train"
    assert split_of("STIXGeneral") == "held_back"


def test_no_fonts_is_an_error_that_says_so(tmp_path):
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    serif = [path for path in BUNDLED if path.name == "DejaVuSerif.ttf"]
    for split, paths, message in (
        *((None, paths, "Install") for paths in ([], [broken])),
        ("held_back", serif, "DejaVu Serif"),
    ):
        with pytest.raises(DataError, match=message):
            find_fonts(split, paths)


def test_printed_digits_have_every_label_and_ink_and_a_character_that_no_font_has_is_an_error():
    fonts, rng = find_fonts(), np.random.default_rng(1)
    pictures, labels = render_digits(60, fonts, rng)
    assert set(labels.tolist()) == set(range(10))
    assert all(np.ptp(picture) > 60 for picture in pictures)
    with pytest.raises(DataError, match="none of the"):
        render_character("\N{EGYPTIAN HIEROGLYPH A001}", fonts, 1, rng)
