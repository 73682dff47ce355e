"""Installed fonts with the split that each belongs to, and their characters as ink.

Fonts come from the system's folders and with matplotlib, so that every machine with the ``train``
extra has some. A hash of its name decides a family's split: the same font is held back on every
machine, with all its weights and slants.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.font_manager import findSystemFonts
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from inkdigits.data.pixels import Coverage, blend_ink
from inkdigits.errors import DataError
from inkdigits.types import Labels, Pixels, Rng

FontSplit: TypeAlias = Literal["train", "validation", "held_back"]

# Shares of the hashes' range. The salt is the first that leaves each split three of matplotlib's
# families or more; it was set before any picture was read.
_TRAIN_SHARE, _VALIDATION_SHARE, _SALT = 0.6, 0.2, "0"
# Their letters are symbols, or boxes with the character's number.
_SYMBOL_FONTS = (
    *("cmex", "cmsy", "stmary", "last resort"),
    *("symbol", "dingbats", "wingdings", "webdings"),
)


@dataclass(frozen=True, slots=True)
class Font:
    """A font file."""

    path: Path  # where it is
    family: str  # for example "DejaVu Sans"
    style: str  # for example "Bold Oblique"
    characters: frozenset[str]  # what it can draw


def find_fonts(
    split: FontSplit | None = None, paths: Iterable[Path] | None = None, *, latin: bool = True
) -> tuple[Font, ...]:
    """Return a split's scalable fonts, one per family and style, sorted.

    They are chosen from the files ``paths``; None is the system's and matplotlib's. ``latin``
    leaves out those without the Latin alphabet. A DataError says that there is no such font.

    >>> "DejaVu Serif" in {font.family for font in find_fonts("train")}
    True
    """
    fonts = _usable(tuple(sorted(paths))) if paths is not None else _installed()
    alphabet = string.ascii_letters if latin else ""
    fonts = tuple(font for font in fonts if font.characters.issuperset(alphabet))
    chosen = tuple(font for font in fonts if split is None or split_of(font.family) == split)
    if not chosen:
        families = ", ".join(sorted({font.family for font in fonts})) or "none"
        raise DataError(
            f"no font for {split or 'any split'} is installed; found are {families}. Install more "
            "fonts (TrueType or OpenType, with Latin letters)."
        )
    return chosen


def split_of(family: str) -> FontSplit:
    """Return the split of a font family, by its name alone.

    >>> split_of("DejaVu Serif")
    'train'
    """
    position = hashlib.sha256(f"{_SALT}:{family}".encode()).digest()[0] / 256
    if position < _TRAIN_SHARE:
        return "train"
    return "validation" if position < _TRAIN_SHARE + _VALIDATION_SHARE else "held_back"


def _installed() -> tuple[Font, ...]:
    bundled = Path(mpl.get_data_path(), "fonts", "ttf").glob("*.ttf")
    return _usable(tuple(sorted({*bundled, *map(Path, findSystemFonts())})))


@cache
def _usable(paths: tuple[Path, ...]) -> tuple[Font, ...]:
    found: dict[tuple[str, str], Font] = {}
    for path in paths:
        font = _read(path)
        if font is not None:
            found.setdefault((font.family, font.style), font)
    return tuple(found[key] for key in sorted(found))


def _read(path: Path) -> Font | None:
    """Return the font, or None where the file is not a usable one."""
    try:
        face = FT2Font(str(path))
    except (RuntimeError, OSError, ValueError):  # damaged, or no font
        return None
    family = face.family_name
    if not face.scalable or any(name in family.lower() for name in _SYMBOL_FONTS):
        return None
    characters = frozenset(map(chr, face.get_charmap()))
    return Font(path, family, face.style_name, characters)


def render_digits(n: int, fonts: Sequence[Font], rng: Rng) -> tuple[list[Pixels], Labels]:
    """Render n printed digits, about 30 to 400 pixels a side; some fonts imitate handwriting.

    >>> len(render_digits(3, find_fonts(), np.random.default_rng(0))[0])
    3
    """
    drawn = [render_character(string.digits, fonts, 10, rng) for _ in range(n)]
    labels = np.array([int(character) for _, character in drawn], dtype=np.int64)
    return [blend_ink(coverage, rng) for coverage, _ in drawn], labels


def render_character(
    alphabet: str, fonts: Sequence[Font], fewest: int, rng: Rng
) -> tuple[Coverage, str]:
    """Render a character of the alphabet, slightly rotated, with a margin, and say which one.

    Each font family is as likely, however many its styles. A font that has fewer characters of the
    alphabet than ``fewest`` is skipped; where none is left, a DataError says so.

    >>> render_character("A", find_fonts(), 1, np.random.default_rng(0))[1]
    'A'
    """
    choices = _choices(alphabet, tuple(fonts), fewest)
    if not choices:
        raise DataError(
            f"none of the {len(fonts)} fonts has {fewest} or more of the characters {alphabet}"
        )
    for _ in range(50):
        styles = choices[rng.integers(len(choices))]
        font, drawable = styles[rng.integers(len(styles))]
        character = drawable[rng.integers(len(drawable))]
        coverage = _draw(character, font, rng)
        if coverage.any():  # some fonts list characters that they draw as nothing
            return coverage, character
    raise DataError(f"in 50 tries none of the {len(fonts)} fonts drew anything of {alphabet}")


def _draw(character: str, font: Font, rng: Rng) -> Coverage:
    size = int(rng.integers(24, 180))
    face = ImageFont.truetype(str(font.path), size)
    left, top, right, bottom = (round(v) for v in face.getbbox(character))
    margin = int(size * rng.uniform(0.1, 0.5)) + 2
    image = Image.new("L", (right - left + 2 * margin, bottom - top + 2 * margin), 0)
    draw = ImageDraw.Draw(image)
    draw.text((margin - left, margin - top), character, fill=255, font=face)
    rotated = image.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)
    return np.asarray(rotated, dtype=np.float32) / 255


@cache
def _choices(
    alphabet: str, fonts: tuple[Font, ...], fewest: int
) -> list[list[tuple[Font, list[str]]]]:
    """Return the styles of each family that can draw enough, with what they can draw."""
    families: dict[str, list[tuple[Font, list[str]]]] = {}
    for font in fonts:
        drawable = [c for c in alphabet if c in font.characters]
        if len(drawable) >= fewest:
            families.setdefault(font.family, []).append((font, drawable))
    return list(families.values())
