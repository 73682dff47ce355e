"""Installed fonts, and the split that each belongs to: train, validation or held back.

Fonts come from the system's folders and with matplotlib, so that every machine with the ``train``
extra has some. A hash of its name decides a family's split: the same font is held back on every
machine, with all its weights and slants.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import matplotlib as mpl
from matplotlib.font_manager import findSystemFonts
from matplotlib.ft2font import FT2Font

from inkdigits.errors import ConfigError, DataError

FontSplit: TypeAlias = Literal["train", "validation", "held_back"]

SPLITS: tuple[FontSplit, ...] = ("train", "validation", "held_back")
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
    split: FontSplit | None = None, paths: Iterable[Path] | None = None
) -> tuple[Font, ...]:
    """Return a split's scalable fonts with the Latin alphabet, one per family and style, sorted.

    They are chosen from the files ``paths``; None is the system's and matplotlib's.

    Raises:
        ConfigError: an unknown split.
        DataError: there is no such font.

    >>> "DejaVu Serif" in {font.family for font in find_fonts("train")}
    True
    """
    if split is not None and split not in SPLITS:
        raise ConfigError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
    fonts = _usable(tuple(sorted(paths))) if paths is not None else _installed()
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
    if not characters.issuperset(string.ascii_letters):
        return None
    return Font(path, family, face.style_name, characters)
