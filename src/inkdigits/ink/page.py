"""A sheet of paper on a table: where it is, and the picture as if the sheet went on all around.

A table beside the paper is a greater change of shade than any ink, so it's taken out before ink is
looked for. It is told by its shape: a sheet has straight sides, seen from any direction, and a
table reaches the picture's border. The lit part of paper that lies half in a shadow looks alike, so
that what is beside a sheet comes with it where it isn't darker than a shadow makes paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from inkdigits.ink.background import extended, extreme, reduced
from inkdigits.ink.components import find_blobs, grown
from inkdigits.types import Floats, Mask

GRID = 64
# Of the picture's variance, what its two shades explain at the least.
TWO_SHADES = 0.6
# Least difference between them, of 255.
LEAST_CONTRAST = 30.0
# Shares of the picture that a sheet covers, and of the border that the table does.
LEAST_SHEET, GREATEST_SHEET = 0.12, 0.95
LEAST_BORDER = 0.12
# Of what is around the sheet, the share that is of the table's shade.
TABLE_SHARE = 0.8
# Of the sheet, the share that isn't written on; in a hollow digit there is less.
LEAST_PAPER = 0.75
# On paper lighter than this ink is dark, and light on paper darker than that.
LIGHT_PAPER, DARK_PAPER = 140.0, 60.0
# A shadow leaves paper at least this share of its shade.
DEEPEST_SHADOW = 0.4
# Shares of its hull that the sheet fills, and that the largest quadrilateral of its corners does;
# of a disc's that is 0.64.
SOLID = 0.92
FOUR_SIDED = 0.82
# Within so many pixels across its edge, the share of the two shades' difference that is stepped.
REACH = 5
SHARP = 0.6


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a picture by itself.

    Attributes:
        picture: (h, w) float32: the box around the part; beside the part its own shade goes on.
        beside: (h', w') float32, the same box, coarser: 1 beside the part, 0 in it.
        sign: of what is written on it: 1 for light ink, -1 for dark ink, None where its shade
            doesn't say.
    """

    picture: Floats
    beside: Floats
    sign: float | None

    def is_left_by(self, ink: Mask) -> bool:
        """Whether ink (H, W), of the box at any scale, reaches the edge of the part."""
        size = (ink.shape[1], ink.shape[0])
        beside = np.asarray(Image.fromarray(self.beside).resize(size, Image.Resampling.BILINEAR))
        return bool((ink & (beside > 0.5)).any())


def find_sheet(grey: Floats) -> tuple[Part, Part | None] | None:
    """The sheet in a picture, and what is beside it if that may be paper too, in a shadow.

    Args:
        grey: (H, W) float32, 0 to 255.

    Returns:
        None where there is nothing beside a sheet.
    """
    small = reduced(grey, GRID, reducing_gap=3.0)
    if min(small.shape) < GRID // 4:
        return None
    shades = _two_shades(small)
    if shades is None:
        return None
    lighter = small > sum(shades) / 2
    change = extreme(small, REACH, np.maximum) - extreme(small, REACH, np.minimum)
    stepped = change >= SHARP * (shades[1] - shades[0])
    # Of light that fades the rest needn't be looked at.
    if not _is_edged(lighter, stepped):
        return None
    for shade in (lighter, ~lighter):
        sheet = _sheet(shade)
        if sheet is not None and _is_edged(sheet, stepped):
            alone = _alone(grey, small, sheet, shade)
            if shades[0] < DEEPEST_SHADOW * shades[1]:
                return alone, None
            return alone, _alone(grey, small, ~sheet, ~shade)
    return None


def _two_shades(small: Floats) -> tuple[float, float] | None:
    """The darker and the lighter one (Otsu, IEEE SMC 9, 1979); None where they explain little."""
    shades = np.sort(small.ravel()).astype(np.float64)
    n = len(shades)
    total = np.cumsum(shades)[:-1]
    count = np.arange(1, n)
    below, above = total / count, (shades.sum() - total) / (n - count)
    between = count * (n - count) * np.square(above - below) / n**2
    best = int(np.argmax(between))
    if above[best] - below[best] < LEAST_CONTRAST or between[best] < TWO_SHADES * shades.var():
        return None
    return float(below[best]), float(above[best])


def _sheet(shade: Mask) -> Mask | None:
    """The sheet's pixels with what is written on it, if the largest piece of a shade is one."""
    ones = np.ones(shade.shape, dtype=np.float32)
    pieces = find_blobs(shade, ones)
    if not len(pieces):
        return None
    largest = pieces.number == int(np.argmax(pieces.area))
    others = find_blobs(~largest, ones)
    height, width = shade.shape
    outside = (others.left == 0) | (others.top == 0)
    outside |= (others.right == width) | (others.bottom == height)
    around: Mask = np.append(outside, False)[others.number]
    sheet = ~around
    share = float(sheet.mean())
    if not LEAST_SHEET <= share <= GREATEST_SHEET:
        return None
    border = np.concatenate([around[0], around[-1], around[1:-1, 0], around[1:-1, -1]])
    if float(border.mean()) < LEAST_BORDER or float(shade[around].mean()) > 1 - TABLE_SHARE:
        return None
    if float(shade[sheet].mean()) < LEAST_PAPER:
        return None
    hull = _hull(sheet)
    area = _area(hull)
    if sheet.sum() < SOLID * area or _largest_quadrilateral(hull) < FOUR_SIDED * area:
        return None
    return sheet


def _is_edged(part: Mask, stepped: Mask) -> bool:
    """Whether the shade changes by a step on half of the way around a part at the least."""
    edge = grown(~part) & part
    return bool(2 * np.count_nonzero(stepped & edge) >= np.count_nonzero(edge))


def _alone(grey: Floats, small: Floats, part: Mask, shade: Mask) -> Part:
    height, width = grey.shape
    # Pixels at the edge are half of one and half of the other.
    inner = ~grown(~part)
    shades = extended(small, inner & ~grown(~shade))
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    left, right = (round(at * width / small.shape[1]) for at in box[::2])
    top, bottom = (round(at * height / small.shape[0]) for at in box[1::2])
    beside: Floats = (~inner).astype(np.float32)
    own = grey[top:bottom, left:right]
    share, behind = (
        np.asarray(Image.fromarray(values).resize(own.shape[::-1], Image.Resampling.BILINEAR, box))
        for values in (beside, shades)
    )
    picture: Floats = (own + share * (behind - own)).astype(np.float32, copy=False)
    paper = float(small[part & shade].mean())
    sign = -1.0 if paper > LIGHT_PAPER else 1.0 if paper < DARK_PAPER else None
    return Part(picture, beside[box[1] : box[3], box[0] : box[2]], sign)


def _hull(mask: Mask) -> npt.NDArray[np.int64]:
    """(n, 2) the corners of the pixels' convex hull, by Andrew's monotone chain."""
    rows = np.flatnonzero(mask.any(axis=1))
    first = np.argmax(mask[rows], axis=1)
    last = mask.shape[1] - np.argmax(mask[rows, ::-1], axis=1)
    ends = np.concatenate([first, last])
    at = np.concatenate([rows, rows])
    corners = np.unique(np.stack([np.tile(ends, 2), np.concatenate([at, at + 1])], axis=1), axis=0)
    halves = []
    for points in (corners.tolist(), corners[::-1].tolist()):
        half: list[list[int]] = []
        for x, y in points:
            while len(half) > 1 and (half[-1][0] - half[-2][0]) * (y - half[-2][1]) <= (
                half[-1][1] - half[-2][1]
            ) * (x - half[-2][0]):
                half.pop()
            half.append([x, y])
        halves.append(half[:-1])
    return np.array(halves[0] + halves[1])


def _area(polygon: npt.NDArray[np.int64]) -> float:
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _largest_quadrilateral(hull: npt.NDArray[np.int64]) -> float:
    """The area of the largest quadrilateral whose corners are corners of the hull."""
    x, y = (values[:, np.newaxis] - values for values in hull.T)
    # [i, j, k]: twice the triangle's area, its sign saying on which side of the diagonal k is.
    doubled = x[:, :, np.newaxis] * y[:, np.newaxis] - y[:, :, np.newaxis] * x[:, np.newaxis]
    return float((doubled.max(axis=2) - doubled.min(axis=2)).max()) / 2
