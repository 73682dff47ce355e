"""Printed lines of ruled and squared paper, removed where no stroke crosses them."""

from __future__ import annotations

import numpy as np

from inkdigits.types import Floats, Labels, Mask

# Slopes that are looked for, in pixels across per pixel along.
SLOPES = np.tan(np.radians(np.arange(-9.0, 9.1, 0.75)))
# A line is visible on at least this share of its way across the picture, on this share of each
# third of it, and within this share of it at both ends.
LINE_SHARE = 0.6
LINE_SHARE_OF_THIRDS = 0.4
LINE_END = 0.025
# A line that is thicker, in pixels of the reduced picture, is a stroke.
THICKEST_LINE = 6
# No more lines than this are looked for.
MOST_LINES = 40


def erase_lines(ink: Floats, threshold: float) -> Floats:
    """Remove thin straight lines that run across the whole picture, but not what crosses them.

    Returns:
        (H, W) float32, a copy where there was a line; the same array otherwise. Ink of no more
        than ``threshold`` does not count.

    >>> ink = np.zeros((100, 100), np.float32)
    >>> ink[50] = 80
    >>> erase_lines(ink, threshold=20.0).max()
    np.float32(0.0)
    """
    across, down = _lines(ink, threshold), _lines(ink.T, threshold)
    if not across and not down:
        return ink
    result = ink.copy()
    for lines, others, axes in ((across, down, (0, 1)), (down, across, (1, 0))):
        changed, turned = result.transpose(axes), ink.transpose(axes)
        # What crosses a line is a stroke, unless it is another line.
        strokes = turned.copy()
        for row, slope in others:
            _empty_band(strokes.T, row, slope, 3)
        for row, slope in lines:
            _erase(changed, turned, strokes, row, slope, threshold)
    return result


def _empty_band(ink: Floats, row: float, slope: float, reach: int) -> None:
    """Empty the pixels of a line and ``reach`` to both sides of it, in place."""
    columns = np.arange(ink.shape[1])
    places = np.rint(row + slope * columns).astype(np.int64)
    for step in range(-reach, reach + 1):
        there = (places + step >= 0) & (places + step < len(ink))
        ink[places[there] + step, columns[there]] = 0


def _lines(ink: Floats, threshold: float) -> list[tuple[float, float]]:
    """Return the row at the left side, and the slope, of each line from left to right."""
    mask = ink > threshold
    height, width = mask.shape
    # Solid areas are no lines: close above or below a line's pixel there is no ink.
    thin = mask.copy()
    reach = max(3, round(0.03 * height))
    below, above = np.zeros_like(mask), np.zeros_like(mask)
    below[:-reach] = mask[reach:]
    above[reach:] = mask[:-reach]
    thin &= ~(below & above)
    rows, columns = np.nonzero(thin)
    if len(rows) < LINE_SHARE * width:
        return []
    margin = int(np.ceil(SLOPES[-1] * width)) + 1
    bins = height + 2 * margin + 1
    offsets = np.rint(rows - SLOPES[:, np.newaxis] * columns).astype(np.int64) + margin
    keys = offsets + (np.arange(len(SLOPES)) * bins)[:, np.newaxis]
    thirds = np.minimum(3 * columns // width, 2)

    def count(chosen: Mask) -> Labels:
        counts = np.bincount(keys[:, chosen].ravel(), minlength=bins * len(SLOPES))
        counts = counts.reshape(len(SLOPES), bins)
        # A line may jump between two neighbouring offsets by rounding.
        counts[:, :-1] += counts[:, 1:].copy()
        return counts

    pairs = np.stack([count(thirds == third) for third in range(3)])
    share = pairs.sum(axis=0) / width
    good = (share >= LINE_SHARE) & (pairs.min(axis=0) >= LINE_SHARE_OF_THIRDS * width / 3)
    end = max(2, round(LINE_END * width))
    for at_end in (columns < end, columns >= width - end):
        good &= count(at_end) > 0
    lines: list[tuple[float, float]] = []
    if not good.any():
        return lines
    # The slope and row along which the ink is darkest; by pixels alone many are as good.
    weights = np.tile(ink[rows, columns], len(SLOPES))
    dark = np.bincount(keys.ravel(), weights, minlength=share.size)
    dark = dark.reshape(share.shape)
    dark[:, :-1] += dark[:, 1:].copy()
    while good.any() and len(lines) < MOST_LINES:
        slope, at = np.unravel_index(int(np.argmax(np.where(good, dark, 0))), share.shape)
        lines.append((float(at - margin) + 0.5, float(SLOPES[slope])))
        # What the same line gives at neighbouring slopes and rows.
        middle = lines[-1][0] + lines[-1][1] * width / 2
        others = np.arange(bins) - margin + SLOPES[:, np.newaxis] * width / 2
        good &= np.abs(others - middle) > 3
    return lines


def _erase(
    changed: Floats, ink: Floats, strokes: Floats, row: float, slope: float, threshold: float
) -> None:
    height, width = ink.shape
    columns = np.arange(width)
    reach = THICKEST_LINE + 2
    steps = np.arange(-reach, reach + 1)
    places = np.rint(row + slope * columns).astype(np.int64) + steps[:, np.newaxis]
    inside = (places >= 0) & (places < height)
    at = np.clip(places, 0, height - 1)
    # Across the line, by the median along it: strokes and other lines do not count.
    profile = np.median(np.where(inside, ink[at, columns], np.float32(0.0)), axis=1)
    up = down = reach - 2 + int(np.argmax(profile[reach - 2 : reach + 3]))
    level = float(profile[up])
    while up > 1 and profile[up - 1] > max(0.2 * level, 0.5 * threshold):
        up -= 1
    while down < 2 * reach - 1 and profile[down + 1] > max(0.2 * level, 0.5 * threshold):
        down += 1
    if down - up >= THICKEST_LINE:
        return
    band = np.where(inside, strokes[at, columns], np.float32(0.0))
    crossed = np.maximum(band[max(up - 2, 0)], band[min(down + 2, 2 * reach)])
    kept = (crossed > 0.6 * level) | (band[up : down + 1].max(axis=0) > 2.2 * level + threshold)
    kept[1:] |= kept[:-1].copy()
    kept[:-1] |= kept[1:].copy()
    # A slope between two of SLOPES leaves a thick line's rim.
    rim = 1 if down - up < 2 else 2
    for step in range(max(up - rim, 0), min(down + rim, 2 * reach) + 1):
        there = inside[step] & ~kept
        changed[places[step][there], columns[there]] = 0
