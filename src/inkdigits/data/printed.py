"""Characters from installed fonts as ink on paper; training side."""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from inkdigits.data.fonts import Font
from inkdigits.errors import DataError
from inkdigits.types import Pixels, Rng

Coverage: TypeAlias = npt.NDArray[np.floating]
"""(H, W); 0 is background, 1 is ink."""


def print_digits(
    n: int, fonts: Sequence[Font], rng: Rng
) -> tuple[list[Pixels], npt.NDArray[np.int64]]:
    """Pictures of one printed digit each, among them fonts that imitate hands.

    Args:
        n: how many.
        fonts: see ``fonts.find_fonts``.
        rng: the only source of randomness.

    Returns:
        n pictures (H, W) uint8, about 30 to 400 pixels a side, and (n,) int64 digits.

    Raises:
        DataError: no font has digits.
    """
    drawn = [print_character(string.digits, fonts, 10, rng) for _ in range(n)]
    labels = np.array([int(character) for _, character in drawn], dtype=np.int64)
    return [on_paper(mask, rng) for mask, _ in drawn], labels


def print_character(
    alphabet: str, fonts: Sequence[Font], fewest: int, rng: Rng
) -> tuple[Coverage, str]:
    """A character of the alphabet from a font; families are as likely, however many styles.

    Args:
        alphabet: what to choose from.
        fonts: in which to look.
        fewest: a font that has fewer characters of the alphabet is passed over.
        rng: the only source of randomness.

    Returns:
        The character as a mask, slightly turned, with a margin; and which it is.

    Raises:
        DataError: no font has that many of the characters.
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
        mask = _drawn(character, font, rng)
        if mask.any():  # some fonts list characters that they draw as nothing
            return mask, character
    raise DataError(f"in 50 tries none of the {len(fonts)} fonts drew anything of {alphabet}")


def _drawn(character: str, font: Font, rng: Rng) -> Coverage:
    size = int(rng.integers(24, 180))
    face = ImageFont.truetype(str(font.path), size)
    left, top, right, bottom = (round(v) for v in face.getbbox(character))
    margin = int(size * rng.uniform(0.1, 0.5)) + 2
    image = Image.new("L", (right - left + 2 * margin, bottom - top + 2 * margin), 0)
    draw = ImageDraw.Draw(image)
    draw.text((margin - left, margin - top), character, fill=255, font=face)
    turned = image.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)
    return np.asarray(turned, dtype=np.float32) / 255


@cache
def _choices(
    alphabet: str, fonts: tuple[Font, ...], fewest: int
) -> list[list[tuple[Font, list[str]]]]:
    """The styles of each family that can draw enough, with what they can draw."""
    families: dict[str, list[tuple[Font, list[str]]]] = {}
    for font in fonts:
        drawable = [c for c in alphabet if c in font.characters]
        if len(drawable) >= fewest:
            families.setdefault(font.family, []).append((font, drawable))
    return list(families.values())


def on_paper(ink: Coverage, rng: Rng) -> Pixels:
    """The mask as ink on paper, either being the darker, with a little noise sometimes."""
    dark, light = rng.uniform(0, 80), rng.uniform(190, 255)
    if rng.random() < 0.5:  # a clean canvas
        dark, light = 0.0, 255.0
    paper, pen = (light, dark) if rng.random() < 0.7 else (dark, light)
    picture = paper + (pen - paper) * ink
    if rng.random() < 0.4:
        picture = picture + rng.normal(0, rng.uniform(0.5, 4), ink.shape)
    return as_bytes(picture)


def as_bytes(values: npt.NDArray[np.floating]) -> Pixels:
    """Shades rounded and cut to uint8."""
    whole: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return whole
