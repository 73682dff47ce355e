"""Ink on a background whose shade changes from place to place: photographs, scans, textures.

A table beside a page is a greater change of shade than any ink, so it is removed before ink is
looked for. The page is found by its straight sides, seen from any direction, and the table reaches
the picture's border. The lit part of a page that lies half in a shadow looks alike, so what is
beside the page is looked at too, where it is no darker than a shadow makes paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from inkdigits.ink.background import downscale, estimate_background, inpaint, square_filter
from inkdigits.ink.components import connected_components, dilate
from inkdigits.ink.select import JUDGED_SIZE, select_digit
from inkdigits.types import Floats, Mask

GRID = 64
# The least share of the picture's variance that its two shades explain.
TWO_SHADES = 0.6
# Least difference between them, of 255.
LEAST_CONTRAST = 30.0
# Shares of the picture that a page covers, and of the border that the table does.
LEAST_PAGE, GREATEST_PAGE = 0.12, 0.95
LEAST_BORDER = 0.12
# Of what is around the page, the share that is of the table's shade.
TABLE_SHARE = 0.8
# Of the page, the share that is not written on; in a hollow digit there is less.
LEAST_BLANK = 0.75
# On a page lighter than the first ink is dark, and light on a page darker than the second.
LIGHT_PAGE, DARK_PAGE = 140.0, 60.0
# A shadow leaves paper at least this share of its shade.
DEEPEST_SHADOW = 0.4
# Shares of its hull that the page fills, and that the largest quadrilateral of its corners does;
# of a disc's hull that is 0.64.
SOLID = 0.92
FOUR_SIDED = 0.82
# Within so many pixels across its edge, the share of the two shades' difference that is stepped.
REACH = 5
SHARP = 0.6


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a picture by itself."""

    picture: Floats  # (h, w) the box around the region; beside the region its shade continues
    beside: Floats  # (h', w') the same box, coarser: 1 beside the region, 0 in it
    sign: float | None  # 1 for light ink on it, -1 for dark ink, None where its shade does not tell

    def is_left_by(self, ink: Mask) -> bool:
        """Return whether ink (H, W), of the box at any scale, reaches the region's edge."""
        size = (ink.shape[1], ink.shape[0])
        beside = np.asarray(Image.fromarray(self.beside).resize(size, Image.Resampling.BILINEAR))
        return bool((ink & (beside > 0.5)).any())


def find_page(grey: Floats) -> tuple[Region, Region | None] | None:
    """Find the page in a picture (H, W) float32, and what is beside it if that may be paper too.

    >>> table = np.full((200, 200), 80, np.float32)
    >>> table[40:160, 30:170] = 230
    >>> page, beside = find_page(table)
    >>> page.picture.shape, page.sign
    ((118, 138), -1.0)
    """
    small = downscale(grey, GRID, reducing_gap=3.0)
    if min(small.shape) < GRID // 4:
        return None
    shades = _otsu_shades(small)
    if shades is None:
        return None
    lighter = small > sum(shades) / 2
    change = square_filter(small, REACH, np.maximum) - square_filter(small, REACH, np.minimum)
    stepped = change >= SHARP * (shades[1] - shades[0])
    # Light that fades has no such edge, and needs no further look.
    if not _has_stepped_edge(lighter, stepped):
        return None
    for shade in (lighter, ~lighter):
        page = _page_mask(shade)
        if page is not None and _has_stepped_edge(page, stepped):
            alone = _cut_out(grey, small, page, shade)
            if shades[0] < DEEPEST_SHADOW * shades[1]:
                return alone, None
            return alone, _cut_out(grey, small, ~page, ~shade)
    return None


def _otsu_shades(small: Floats) -> tuple[float, float] | None:
    """Return the darker and the lighter shade, or None where they explain little.

    N. Otsu, "A threshold selection method from gray-level histograms", IEEE SMC 9, 1979.
    """
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


def _page_mask(shade: Mask) -> Mask | None:
    """Return the page's pixels with its writing, if a shade's largest component is a page."""
    ones = np.ones(shade.shape, dtype=np.float32)
    found = connected_components(shade, ones)
    if not len(found):
        return None
    largest = found.number == int(np.argmax(found.area))
    others = connected_components(~largest, ones)
    height, width = shade.shape
    is_outside = (others.left == 0) | (others.top == 0)
    is_outside |= (others.right == width) | (others.bottom == height)
    around = others.pixels(is_outside)
    page = ~around
    share = float(page.mean())
    if not LEAST_PAGE <= share <= GREATEST_PAGE:
        return None
    border = np.concatenate([around[0], around[-1], around[1:-1, 0], around[1:-1, -1]])
    if float(border.mean()) < LEAST_BORDER or float(shade[around].mean()) > 1 - TABLE_SHARE:
        return None
    if float(shade[page].mean()) < LEAST_BLANK:
        return None
    hull = _convex_hull(page)
    x, y = hull.T
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    if page.sum() < SOLID * area or _largest_quadrilateral(hull) < FOUR_SIDED * area:
        return None
    return page


def _has_stepped_edge(part: Mask, stepped: Mask) -> bool:
    """Return whether the shade changes by a step on at least half of the way around a part."""
    edge = dilate(~part) & part
    return bool(2 * np.count_nonzero(stepped & edge) >= np.count_nonzero(edge))


def _cut_out(grey: Floats, small: Floats, part: Mask, shade: Mask) -> Region:
    height, width = grey.shape
    # Pixels at the edge are half of one and half of the other.
    inner = ~dilate(~part)
    shades = inpaint(small, inner & ~dilate(~shade))
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
    level = float(small[part & shade].mean())
    sign = -1.0 if level > LIGHT_PAGE else 1.0 if level < DARK_PAGE else None
    return Region(picture, beside[box[1] : box[3], box[0] : box[2]], sign)


def _convex_hull(mask: Mask) -> npt.NDArray[np.int64]:
    """Return (n, 2) the corners of the pixels' convex hull, by Andrew's monotone chain."""
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


def _largest_quadrilateral(hull: npt.NDArray[np.int64]) -> float:
    """Return the area of the largest quadrilateral whose corners are corners of the hull."""
    x, y = (values[:, np.newaxis] - values for values in hull.T)
    # [i, j, k]: twice the triangle's area, its sign saying on which side of the diagonal k is.
    doubled = x[:, :, np.newaxis] * y[:, np.newaxis] - y[:, :, np.newaxis] * x[:, np.newaxis]
    return float((doubled.max(axis=2) - doubled.min(axis=2)).max()) / 2


def extract_ink_on_page(grey: Floats) -> Floats | None:
    """Return the ink on a page that lies on a table; None also where there is no page.

    Arguments and result are those of ``extract_ink``.

    >>> extract_ink_on_page(np.full((200, 200), 90, np.float32)) is None
    True
    """
    regions = find_page(grey)
    if regions is None:
        return None
    page, shaded = regions
    found = extract_ink(page.picture, page)
    if found is None or shaded is None:
        return found
    # Two digits, one of them in a shadow, must both stay.
    return found if extract_ink(shaded.picture, with_tiny=False) is None else None


def extract_ink(
    grey: Floats, region: Region | None = None, *, with_tiny: bool = True
) -> Floats | None:
    """Return what is written in a picture (H, W), without its background.

    Args:
        grey: float32, 0 to 255.
        region: what the picture shows a part of, if it does; ink that leaves it is rejected.
        with_tiny: whether to look for something tiny where there is nothing of a usual size.

    Returns:
        (h, w) float32, the part of the picture with ink: contrast with the background, 0 where
        nothing is written; None where there is no ink.

    >>> rows, columns = np.mgrid[:200, :200]
    >>> light = (120 + 0.4 * columns).astype(np.float32)
    >>> light[60:140, 95:105] = 20
    >>> ink = extract_ink(light)
    >>> 80 <= ink.shape[0] <= 90
    True
    """
    height, width = grey.shape
    small = downscale(grey, JUDGED_SIZE, reducing_gap=3.0)
    background = estimate_background(grey, None if region is None else region.sign)
    contrast = background.stroke_contrast(small)
    kept = select_digit(*contrast)
    if kept is None and with_tiny:
        kept = select_digit(*contrast, tiny=True)
        if kept is None:
            # A lamp's light outweighs a tiny digit where the ink's side of the shade is judged.
            background = estimate_background(grey, -background.sign)
            kept = select_digit(*background.stroke_contrast(small), tiny=True)
    if kept is None or (region is not None and region.is_left_by(kept)):
        return None
    rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
    there = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    left, top, right, bottom = (
        round(float(at) * full / judged)
        for at, full, judged in zip(there, (width, height) * 2, small.shape[::-1] * 2, strict=True)
    )
    down, across = background.shade.shape
    start = (left / width * across, top / height * down)
    box = (*start, right / width * across, bottom / height * down)
    mask = Image.fromarray(kept[there[1] : there[3], there[0] : there[2]].astype(np.float32))
    soft = np.asarray(mask.resize((right - left, bottom - top), Image.Resampling.BILINEAR))
    ink: Floats = background.contrast(grey[top:bottom, left:right], box) * soft
    return ink
