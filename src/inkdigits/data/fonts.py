"""Installed fonts, and which of them train, validate or are held back; training side.

Fonts come from the system's folders and with matplotlib, so that every machine with the ``train``
extra has some. A family belongs to one part by a hash of its name: the same font is held back on
every machine, with all its weights and slants.
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

Part: TypeAlias = Literal["train", "validation", "held_back"]

PARTS: tuple[Part, ...] = ("train", "validation", "held_back")
# Shares of the hashes' range. The salt is the first that leaves each part three of matplotlib's
# families or more; it was set before any picture was read.
TRAIN_SHARE, VALIDATION_SHARE = 0.6, 0.2
SALT = "0"
# Their letters are symbols, or boxes with the character's number.
SYMBOL_FONTS = (
    "cmex",
    "cmsy",
    "stmary",
    "last resort",
    "symbol",
    "dingbats",
    "wingdings",
    "webdings",
)


@dataclass(frozen=True, slots=True)
class Font:
    """A font file.

    Attributes:
        path: where it is.
        family: for example "DejaVu Sans".
        style: for example "Bold Oblique".
        characters: what it can draw.
    """

    path: Path
    family: str
    style: str
    characters: frozenset[str]


def find_fonts(part: Part | None = None, paths: Iterable[Path] | None = None) -> tuple[Font, ...]:
    """Scalable fonts with the whole Latin alphabet, one of each family and style, sorted.

    Args:
        part: only those of a part; None is all of them.
        paths: font files to choose from; None is the system's and matplotlib's.

    Raises:
        ConfigError: an unknown part.
        DataError: there is no such font.
    """
    if part is not None and part not in PARTS:
        raise ConfigError(f"part is {part!r}; it must be one of {', '.join(PARTS)}")
    fonts = _usable(tuple(sorted(paths))) if paths is not None else _installed()
    chosen = tuple(font for font in fonts if part is None or part_of(font.family) == part)
    if not chosen:
        families = ", ".join(sorted({font.family for font in fonts})) or "none"
        raise DataError(
            f"no installed font belongs to the part {part!r}; found are {families}. Install more "
            "fonts (TrueType or OpenType, with Latin letters)"
            if part
            else "no font with Latin letters is installed: install any TrueType or OpenType font"
        )
    return chosen


def part_of(family: str) -> Part:
    """Which part a font family belongs to, by its name alone."""
    position = hashlib.sha256(f"{SALT}:{family}".encode()).digest()[0] / 256
    if position < TRAIN_SHARE:
        return "train"
    return "validation" if position < TRAIN_SHARE + VALIDATION_SHARE else "held_back"


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
    """The font, or None where the file isn't one that can be used."""
    try:
        face = FT2Font(str(path))
    except (RuntimeError, OSError, ValueError):  # damaged, or no font
        return None
    family = face.family_name
    if not face.scalable or any(name in family.lower() for name in SYMBOL_FONTS):
        return None
    characters = frozenset(map(chr, face.get_charmap()))
    if not characters.issuperset(string.ascii_letters):
        return None
    return Font(path, family, face.style_name, characters)
