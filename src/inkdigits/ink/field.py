"""The ink of one field: a line of digits, on a background of one shade or in uneven light."""

from __future__ import annotations

import numpy as np
from PIL import Image

from inkdigits.ink.background import downscale, lighting_surface, square_filter
from inkdigits.ink.plain import MIN_CONTRAST, NOISE_FACTOR
from inkdigits.types import Floats, Grey

# The background is estimated on a copy of at most this many rows, from the lightest of a square of so many
# of its pixels: strokes are narrower, and light changes little within it.
ROWS, SQUARE = 30, 11
# A pixel is ink as a whole from this share of the darkest ink on.
FULL_SHARE = 0.8
# So much of the picture is at least as dark as its darkest ink.
EXTENT = 1 / 500


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
    flat = lighting_surface(downscale(small, 64))
    rest = downscale(small, 64) - flat
    sign = 1.0 if np.square(np.maximum(rest, 0)).sum() > 0.5 * np.square(rest).sum() else -1.0
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
