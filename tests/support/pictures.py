"""Pictures that the tests make themselves, and how far two of them are apart."""

import io

import numpy as np
from PIL import Image, ImageDraw

from inkdigits.ink.decode import DEFAULT_LIMITS, Limits, read_luminance


def seven(size: int = 200, width: int = 16) -> Image.Image:
    """A black 7 on white, well inside the picture."""
    image = Image.new("L", (size, size), 255)
    stroke = [(0.3 * size, 0.25 * size), (0.7 * size, 0.25 * size), (0.45 * size, 0.8 * size)]
    ImageDraw.Draw(image).line(stroke, fill=0, width=width, joint="curve")
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey_of(picture: object, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """The luminance (H, W) of a picture."""
    return read_luminance(picture, limits).grey


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The mean absolute difference of two inks."""
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def shifted_difference(a: np.ndarray, b: np.ndarray) -> float:
    """The least difference over shifts by a pixel, which rounding the centre of mass may cause."""
    moved = [np.roll(a, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return min(difference(one, b) for one in moved)
