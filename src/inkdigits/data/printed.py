"""Characters from installed fonts, as ink on a background."""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from inkdigits.data.fonts import Font
from inkdigits.data.pixels import Coverage, blend_ink
from inkdigits.errors import DataError
from inkdigits.types import Labels, Pixels, Rng


def render_digits(n: int, fonts: Sequence[Font], rng: Rng) -> tuple[list[Pixels], Labels]:
    """Render n printed digits, about 30 to 400 pixels a side; some fonts imitate handwriting.

    >>> from inkdigits.data.fonts import find_fonts
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

    >>> from inkdigits.data.fonts import find_fonts
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
