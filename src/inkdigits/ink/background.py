"""The background of a small picture that its digit may fill."""

from __future__ import annotations

import numpy as np

from inkdigits.types import Floats

# How much of a picture's variance its two shades explain; a gradient's is 0.75.
TWO_SHADES = 0.78


def two_shades(grey: Floats) -> tuple[float, float, float] | None:
    """Return background and ink of a picture (H, W) that its digit fills, up to the border.

    Returns:
        The background's shade, 1 where ink is the lighter or else -1, and the background's noise;
        None where the picture is not of two shades.

    >>> picture = np.full((30, 30), 250, np.float32)
    >>> picture[:, 12:18] = 10
    >>> two_shades(picture)
    (250.0, -1.0, 0.0)
    """
    low, high = float(grey.min()), float(grey.max())
    middle = (low + high) / 2
    for _ in range(6):
        lighter = grey > middle
        share = float(lighter.mean())
        if not 0.0 < share < 1.0:
            return None
        total = float(grey.mean())
        above = float(grey[lighter].mean())
        below = (total - share * above) / (1 - share)
        middle = (above + below) / 2
    lighter = grey > middle
    if share * (1 - share) * (above - below) ** 2 < TWO_SHADES * float(grey.var()):
        return None
    sides = [lighter[0], lighter[-1], lighter[:, 0], lighter[:, -1]]
    around = np.concatenate(sides)
    corners = float(np.mean([side[end] for side in sides[:2] for end in (0, -1)]))
    is_light = float(around.mean()) + 2 * corners > 1.5
    # Beside a stroke a pixel is half ink, so the border tells more, where it is no foggier.
    outer = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])[around == is_light]
    shade, noise = median_and_deviation(grey[lighter == is_light])
    if 5 * len(outer) >= len(around):
        at_border, noise_there = median_and_deviation(outer)
        if noise_there <= noise:
            shade, noise = at_border, noise_there
    return shade, -1.0 if is_light else 1.0, noise


def median_and_deviation(shades: Floats) -> tuple[float, float]:
    """Return the median, and the deviation of a normal distribution of this spread around it.

    >>> median_and_deviation(np.float32([1, 1, 1, 9]))
    (1.0, 0.0)
    """
    middle = float(np.median(shades))
    return middle, 1.4826 * float(np.median(np.abs(shades - middle)))
