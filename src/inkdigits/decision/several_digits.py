"""Whether ink that is not one digit is two digits side by side. NumPy only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from inkdigits.ink.normalize import INK_SIZE, normalise
from inkdigits.ink.plain import Foreground
from inkdigits.types import Doubles, Floats, Ink

# A pair is at least this wide for its height, and is cut within this middle part of its width.
LEAST_WIDTH = 0.7
MIDDLE = (0.25, 0.75)
# The most ink in the column of the cut, as a share of the fullest column's.
CUT_SHARE = 0.35
# Either half is at least this high for the height of both.
LEAST_HEIGHT = 0.6
# Ink below this shade, of 255, counts as background.
FAINT = 25


def is_several(ink: Ink, score: Callable[[Ink], Floats | Doubles], limit: float) -> bool:
    """Return whether ink can be cut into halves that each look like a digit.

    Args:
        ink: (28, 28), which looks like no digit as a whole.
        score: gives the out-of-distribution scores (N,) of inks (N, 28, 28).
        limit: the score above which ink is no digit.

    >>> is_several(np.zeros((28, 28), np.uint8), lambda inks: np.zeros(len(inks)), 1.0)
    False
    """
    parts = halves(ink)
    return parts is not None and bool((score(parts) <= limit).all())


def halves(ink: Ink) -> Ink | None:
    """Cut ink where the fewest strokes cross, and bring each half to the size of a digit.

    Returns:
        (2, 28, 28) uint8, left and right; None where the shape cannot be two digits side by side:
        too narrow, no gap, or halves of very different heights.

    >>> ink = np.zeros((28, 28), np.uint8)
    >>> ink[8:20, 5:9] = ink[8:20, 19:23] = 255
    >>> halves(ink).shape
    (2, 28, 28)
    """
    inked = ink > FAINT
    columns, rows = np.flatnonzero(inked.any(axis=0)), np.flatnonzero(inked.any(axis=1))
    if not len(columns):
        return None
    left, right = int(columns[0]), int(columns[-1]) + 1
    width, height = right - left, int(rows[-1] - rows[0]) + 1
    if width < LEAST_WIDTH * height:
        return None
    profile = ink.sum(axis=0, dtype=np.int64)
    first, last = left + round(MIDDLE[0] * width), left + round(MIDDLE[1] * width)
    if last <= first:
        return None
    cut = first + int(np.argmin(profile[first:last]))
    if profile[cut] > CUT_SHARE * profile.max():
        return None
    parts = np.zeros((2, INK_SIZE, INK_SIZE), dtype=np.float32)
    parts[0, :, :cut] = ink[:, :cut]
    parts[1, :, cut:] = ink[:, cut:]
    for part in parts:
        own = np.flatnonzero((part > FAINT).any(axis=1))
        if not len(own) or own[-1] - own[0] + 1 < LEAST_HEIGHT * height:
            return None
    return np.stack([normalise(Foreground.whole_picture(part)) for part in parts])
