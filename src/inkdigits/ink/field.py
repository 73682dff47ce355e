"""The ink of one field: a line of digits, on a background of one shade or in uneven light."""

from __future__ import annotations

import numpy as np
from PIL import Image

from inkdigits.ink.background import downscale, lighting_surface, square_filter
from inkdigits.ink.plain import MIN_CONTRAST
from inkdigits.types import Floats, Grey

# The background is estimated on a copy of at most this many rows, from the lightest of a square of
# so many of its pixels: strokes are narrower, and light changes little within it.
ROWS, SQUARE = 30, 11
# A pixel is ink as a whole from this share of the darkest ink on.
FULL_SHARE = 0.8
# So much of the picture is at least as dark as its darkest ink.
EXTENT = 1 / 500
# Ink must exceed this many deviations of the background.
NOISE_FACTOR = 4.5
# Ink is on the side of the median on which the shades reach this many times as far; where they do
# not, what is left without the light decides.
ONE_SIDED = 2.0


def field_ink(grey: Grey) -> Floats:
    """Return how much of each pixel of a field is ink: 0 for background, 1 for ink.

    Args:
        grey: (H, W), 0 to 255; dark ink on light or the reverse.

    Returns:
        (H, W) float32, 0 to 1; zeros where there is no ink.

    >>> picture = np.full((40, 90), 200, np.uint8)
    >>> picture[10:30, 20:24] = 40
    >>> field_ink(picture)[20, [10, 21]].tolist()
    [0.0, 1.0]
    """
    values = grey.astype(np.float32)
    step = -(-min(values.shape) // ROWS)
    small = np.asarray(Image.fromarray(values).reduce(step))
    sign = _sign(small)
    towards = small * np.float32(sign)
    opened = square_filter(square_filter(towards, SQUARE, np.minimum), SQUARE, np.maximum)
    shade = Image.fromarray(opened).resize(values.shape[::-1], Image.Resampling.BILINEAR)
    ink = values * np.float32(sign) - np.asarray(shade)
    # Most of a field is background, so the lower half of the values is its noise.
    low, middle = np.percentile(ink, [16, 50])
    ink -= np.float32(middle)
    noise = float(middle - low)
    place = ink.size - max(4, round(EXTENT * ink.size))
    strongest = float(np.partition(ink.ravel(), place)[place])
    if strongest < max(MIN_CONTRAST, NOISE_FACTOR * noise):
        return np.zeros_like(ink)
    coverage: Floats = np.clip(ink / np.float32(FULL_SHARE * strongest), 0, 1)
    return coverage


def _sign(small: Floats) -> float:
    """Return 1 if ink is lighter than its background, else -1."""
    low, middle, high = np.percentile(small, [1, 50, 99])
    darker, lighter = float(middle - low), float(high - middle)
    if max(darker, lighter) < ONE_SIDED * min(darker, lighter):
        grid = downscale(small, 64)
        rest = grid - lighting_surface(grid)
        return 1.0 if float((rest * np.abs(rest)).sum()) > 0 else -1.0
    return 1.0 if lighter > darker else -1.0
