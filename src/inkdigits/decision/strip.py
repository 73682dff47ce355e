"""A line as the network that reads lines takes it, and each digit that it reads cut out again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from inkdigits.decision.line import Line
from inkdigits.ink.components import dilate
from inkdigits.types import Floats, Labels

STRIP_HEIGHT: Final = 32
"""Rows of a strip."""
DIGIT_HEIGHT: Final = 23
"""Rows that digits of the usual height take of it; all that is high takes at most 30."""
_MARGIN: Final = 6  # columns before the first digit and after the last one
# Columns that the place of a digit may be beside the component that it is of.
_BESIDE: Final = 3
# The share of a component's ink that is of one digit, from which on all of it is.
_WHOLE: Final = 0.85


class Strip(NamedTuple):
    """A line's ink, and where it is."""

    ink: Floats  # (STRIP_HEIGHT, W), 0 to 1; W is even
    left: float  # of the strip, in pixels of the line
    scale: float  # columns of the strip per pixel of the line


def strip_of(line: Line) -> Strip:
    """Return the ink of a line without specks, at the height that the network learned.

    >>> ink = np.zeros((40, 90), np.float32)
    >>> ink[10:30, 20:24] = ink[10:30, 50:54] = 1
    >>> from inkdigits.decision.line import find_line
    >>> strip_of(find_line(ink, 0.4)).ink.shape
    (32, 52)
    """
    found, tall = line.found, line.tall
    top, bottom = float(found.top[tall].min()), float(found.bottom[tall].max())
    left, right = float(found.left[line.kept].min()), float(found.right[line.kept].max())
    scale = min(DIGIT_HEIGHT / line.height, (STRIP_HEIGHT - 2) / (bottom - top))
    start = left - _MARGIN / scale
    above = (top + bottom - STRIP_HEIGHT / scale) / 2
    width = 2 * round(((right - left) * scale + 2 * _MARGIN) / 2)
    is_speck = np.ones(len(found) + 1, dtype=bool)
    is_speck[line.kept] = is_speck[-1] = False  # the last one is the soft edges of strokes
    ink = np.where(is_speck[found.number], np.float32(0), line.ink)
    box = (start, above, start + width / scale, above + STRIP_HEIGHT / scale)
    return Strip(_resampled(ink, box, (width, STRIP_HEIGHT)), start, scale)


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


def sheared(ink: Floats, slant: float) -> Floats:
    """Shear a strip to the right, upwards from its middle row.

    >>> sheared(np.eye(32, dtype=np.float32), 1.0).sum(axis=0).argmax()
    np.int64(15)
    """
    if slant == 0.0:
        return ink
    shear = (1, slant, -slant * len(ink) / 2, 0, 1, 0)
    image = Image.fromarray(ink)
    turned = image.transform(image.size, Image.Transform.AFFINE, shear, Image.Resampling.BILINEAR)
    return np.asarray(turned)


class Cut(NamedTuple):
    """The ink of one digit of a line."""

    patch: Floats  # (h, w) 0 to 255
    box: tuple[int, int, int, int]  # left, top, width, height in pixels of the line
    is_whole: bool  # whether it touches no other digit


def cut_digits(line: Line, strip: Strip, columns: Sequence[float]) -> list[Cut | None]:
    """Cut out the digits that are at some columns of the strip, from left to right.

    A component with several of them is cut midway between them. One with none is left out, unless
    it is above or below a digit, such as the stroke of a 5. A digit without ink is None.

    >>> ink = np.zeros((40, 90), np.float32)
    >>> ink[10:30, 20:24] = ink[10:30, 50:54] = 1
    >>> from inkdigits.decision.line import find_line
    >>> line = find_line(ink, 0.4)
    >>> [cut.box for cut in cut_digits(line, strip_of(line), [9, 43])]
    [(20, 10, 4, 20), (50, 10, 4, 20)]
    """
    found, n = line.found, len(columns)
    places = strip.left + (np.asarray(columns, dtype=np.float64) + 0.5) / strip.scale
    middles = (places[:-1] + places[1:]) / 2
    owner = np.full(found.number.shape, -1, dtype=np.int64)
    reach = _BESIDE / strip.scale
    own_of: list[tuple[int, int]] = []  # component, digit
    is_whole = np.ones(n, dtype=bool)
    for i in line.tall:
        left, right = found.left[i], found.right[i]
        inside = np.flatnonzero((places > left - reach) & (places < right + reach))
        if not len(inside):
            continue
        box = slice(found.top[i], found.bottom[i]), slice(left, right)
        own = found.number[box] == i
        of = np.searchsorted(middles, np.arange(left, right) + 0.5).clip(inside[0], inside[-1])
        counts = np.bincount(of, own.sum(axis=0), n)
        if counts.max() > _WHOLE * counts.sum():
            of = np.full_like(of, counts.argmax())
        owner[box][own] = np.broadcast_to(of, own.shape)[own]
        shared_by = np.unique(of).tolist()
        own_of += [(int(i), digit) for digit in shared_by]
        is_whole[shared_by] &= len(shared_by) == 1
    _add_parts(line, owner, own_of)
    # The soft edge of a stroke belongs to the digit beside it.
    owner = np.where(owner >= 0, owner, np.where(found.number < 0, dilate(owner), -1))
    return [_cut(line, owner, digit, bool(is_whole[digit])) for digit in range(n)]


def _add_parts(line: Line, owner: Labels, own_of: Sequence[tuple[int, int]]) -> None:
    """Give components that are within the width of a digit's component to that digit."""
    found = line.found
    taken = {i for i, _ in own_of}
    for i in line.kept:
        width = found.right[i] - found.left[i]
        for j, digit in own_of if i not in taken else ():
            both = min(found.right[i], found.right[j]) - max(found.left[i], found.left[j])
            if both > 0.5 * width:
                box = slice(found.top[i], found.bottom[i]), slice(found.left[i], found.right[i])
                owner[box][found.number[box] == i] = digit
                break


def _cut(line: Line, owner: Labels, digit: int, is_whole: bool) -> Cut | None:
    own = owner == digit
    rows, columns = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
    if not len(rows):
        return None
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    patch = np.where(own[box], line.ink[box] * np.float32(255), np.float32(0))
    solid = line.found.number[box] >= 0
    solid &= own[box]
    inner = np.flatnonzero(solid.any(axis=0)), np.flatnonzero(solid.any(axis=1))
    left, top = int(columns[0] + inner[0][0]), int(rows[0] + inner[1][0])
    size = int(inner[0][-1] - inner[0][0] + 1), int(inner[1][-1] - inner[1][0] + 1)
    return Cut(patch, (left, top, *size), is_whole)
