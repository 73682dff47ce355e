"""A line of writing as the network that reads lines takes it: a strip of ink of one height."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from inkdigits.decision.pieces import Line
from inkdigits.types import Floats

STRIP_HEIGHT: Final = 32
"""Rows of a strip."""
DIGIT_HEIGHT: Final = 23
"""Rows that digits of the usual height take of it; all that is high takes at most 30."""
OTHER, NOTHING = 10, 11
"""The network's classes for something that is no digit, and for nothing; the others are digits."""
_MARGIN: Final = 6  # columns before the first digit and after the last one


class Strip(NamedTuple):
    """A line's ink, and where it is."""

    ink: Floats  # (STRIP_HEIGHT, W), 0 to 1; W is even
    left: float  # of the strip, in pixels of the line
    top: float
    scale: float  # columns of the strip per pixel of the line


def strip_of(line: Line) -> Strip:
    """Return the ink of a line without specks, at the height that the network learned.

    >>> ink = np.zeros((40, 90), np.float32)
    >>> ink[10:30, 20:24] = ink[10:30, 50:54] = 1
    >>> from inkdigits.decision.pieces import find_line
    >>> strip_of(find_line(ink, 0.4)).ink.shape
    (32, 52)
    """
    found = line.found
    tall = np.flatnonzero(line.kept & (found.bottom - found.top >= 0.35 * line.height))
    top, bottom = float(found.top[tall].min()), float(found.bottom[tall].max())
    left, right = float(found.left[line.kept].min()), float(found.right[line.kept].max())
    scale = min(DIGIT_HEIGHT / line.height, (STRIP_HEIGHT - 2) / (bottom - top))
    start = left - _MARGIN / scale
    above = (top + bottom - STRIP_HEIGHT / scale) / 2
    width = 2 * round(((right - left) * scale + 2 * _MARGIN) / 2)
    number = found.number
    is_kept = np.append(line.kept, True)[number]  # -1, the soft edges, is the last
    ink = np.where(is_kept, line.ink, np.float32(0))
    box = (start, above, start + width / scale, above + STRIP_HEIGHT / scale)
    return Strip(_resampled(ink, box, (width, STRIP_HEIGHT)), start, above, scale)


def _resampled(
    ink: Floats, box: tuple[float, float, float, float], size: tuple[int, int]
) -> Floats:
    """Resample a box of a picture, which may extend beyond it, to a width and height."""
    pad = int(max(-box[0], -box[1], box[2] - ink.shape[1], box[3] - ink.shape[0], 0)) + 1
    image = Image.fromarray(np.pad(ink, pad))
    moved = (box[0] + pad, box[1] + pad, box[2] + pad, box[3] + pad)
    found = image.resize(size, Image.Resampling.BILINEAR, box=moved)
    clipped: Floats = np.clip(np.asarray(found), 0, 1)
    return clipped
