"""A line of writing: its ink without printed lines, as connected components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from inkdigits.ink.components import Components, connected_components
from inkdigits.types import Floats, Labels, Mask

# Digits that are higher are reduced to this height, in pixels.
HEIGHT = 56
# Of the height of the digits: the shortest printed line, level and upright; the thickest one; and
# the least component that is counted for the height, as a share of the highest one.
LINE_LENGTH = (1.15, 1.25)
LINE_THICKNESS = 0.12
LINE_SHADE, LINE_GAP = 0.6, 2
TALL_SHARE = 0.35
# What is lower than this share of the height is no digit.
SMALL = 0.38
# A column crosses a dash once (at most 1.02 times, of 300), and digits that touch 1.4 times.
DASH = 1.2
# More components than this are no number.
MOST_TALL = 100
# Components with less area are specks, as a share of the squared height.
SPECK_AREA = 0.003
# Within this share of the shorter side from the border, a line along so much of it is a table's.
BORDER_BAND, BORDER_SIDE = 0.12, 0.75
# A frame has at least this side, in pixels. Within this share of its height from its sides it
# covers this share of them, and of its box no more than this. Its lines are as long as these shares
# of the shorter side and of the height.
LEAST_FRAME, FRAME_BAND, FRAME_SIDE, FRAME_FILL = 14, 0.08, 0.88, 0.5
FRAME_LINES, FRAME_THICKNESS = (0.6, 0.8), 0.08


@dataclass(frozen=True, slots=True)
class Line:
    """The connected components of a line's ink, without printed lines and specks."""

    ink: Floats  # (H, W) 0 to 1
    found: Components
    kept: Labels  # which components are no specks
    height: float  # of the digits, in pixels

    @property
    def tall(self) -> Labels:
        """Which components are as high as a digit, from left to right."""
        heights = self.found.bottom - self.found.top
        chosen = self.kept[heights[self.kept] >= SMALL * self.height]
        return chosen[np.argsort(self.found.left[chosen], kind="stable")]

    @property
    def is_low(self) -> bool:
        """Whether only dashes are there, and no number whose digits all touch."""
        found, kept = self.found, self.kept
        widths = (found.right - found.left)[kept]
        if ((found.bottom - found.top)[kept] >= SMALL * widths).any():
            return False
        is_ink = np.pad(np.isin(found.number, kept), ((1, 0), (0, 0)))
        return bool((is_ink[1:] > is_ink[:-1]).sum() < DASH * widths.sum())

    @property
    def lines(self) -> int:
        """How many lines of writing there are, one below the other."""
        top, bottom = self.found.top[self.tall], self.found.bottom[self.tall]
        lines, end = 0, -1
        for i in np.argsort(top, kind="stable"):
            lines += top[i] > end
            end = max(end, int(bottom[i]))
        return lines


def clean_ink(ink: Floats, threshold: float) -> tuple[Floats, float] | None:
    """Return the ink of a line without printed lines, of digits at most HEIGHT pixels high.

    Args:
        ink: (H, W) float32, 0 to 1.
        threshold: pixels with more ink are connected.

    Returns:
        (h, w) float32, and its pixels per pixel of ``ink``; None where there is no ink.

    >>> ink = np.zeros((400, 900), np.float32)
    >>> ink[100:300, 200:240] = 1
    >>> clean_ink(ink, 0.4)[0].shape
    (112, 252)
    """
    ink = _without_border_lines(_without_frames(ink, threshold), threshold)
    height = _digit_height(ink, threshold)
    if height is None:
        return None
    scale = min(1.0, HEIGHT / height)
    if scale < 1.0:
        size = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
        ink = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BOX))
    return without_lines(ink, threshold, scale * height), scale


def find_line(ink: Floats, threshold: float) -> Line | None:
    """Find the components of a line's ink, from ``clean_ink``; None if there are none, or too many.

    >>> ink = np.zeros((40, 90), np.float32)
    >>> ink[10:30, 20:24] = ink[10:30, 50:54] = 1
    >>> len(find_line(ink, 0.4).tall)
    2
    """
    height = _digit_height(ink, threshold)
    if height is None:
        return None
    found = connected_components(ink > threshold, ink)
    kept = found.area >= SPECK_AREA * height * height
    heights = found.bottom - found.top
    tall = heights[kept & (heights >= TALL_SHARE * heights[kept].max(initial=0))]
    if not 0 < len(tall) <= MOST_TALL or kept.sum() > 4 * MOST_TALL:
        return None
    return Line(ink, found, np.flatnonzero(kept), float(np.percentile(tall, 75)))


def _digit_height(ink: Floats, threshold: float) -> float | None:
    """Return the median height of what is high, in pixels."""
    found = connected_components(ink > threshold, ink)
    heights = (found.bottom - found.top)[found.area > 4]
    if not len(heights):
        return None
    return float(np.median(heights[heights >= TALL_SHARE * heights.max()]))


def _without_frames(ink: Floats, threshold: float) -> Floats:
    """Remove the lines of printed boxes and of rows of them, which digits may touch."""
    found = connected_components(ink > LINE_SHADE * threshold, ink)
    result = ink
    large = np.minimum(found.right - found.left, found.bottom - found.top) >= LEAST_FRAME
    for i in np.flatnonzero(large):
        box = slice(found.top[i], found.bottom[i]), slice(found.left[i], found.right[i])
        own = found.number[box] == i
        h, w = own.shape
        if not _is_frame(own):
            continue
        lines = _lines(own, FRAME_LINES[0] * min(h, w), FRAME_LINES[1] * h, FRAME_THICKNESS * h)
        result = result.copy() if result is ink else result
        result[box][lines] = 0
    return result


def _without_border_lines(ink: Floats, threshold: float) -> Floats:
    """Remove what a crop leaves of a table's lines: lines along the sides of the picture."""
    mask = ink > LINE_SHADE * threshold
    depth = max(3, round(BORDER_BAND * min(mask.shape)))
    lines = np.zeros_like(mask)
    for turned, found in ((mask, lines), (mask.T, lines.T)):
        runs = _long_runs(turned, BORDER_SIDE * turned.shape[1])
        runs &= ~_opened(turned.T, depth).T
        found[:depth] |= runs[:depth]
        found[-depth:] |= runs[-depth:]
    return np.where(lines, np.float32(0), ink) if lines.any() else ink


def _is_frame(own: Mask) -> bool:
    """Return whether a component (h, w) lies along three sides of its box or more, and corners."""
    h, w = own.shape
    if own.mean() > FRAME_FILL:
        return False
    deep = max(2, round((FRAME_BAND if w < 2 * h else 2 * FRAME_BAND) * h))
    sides = [own[:deep].any(axis=0), own[-deep:].any(axis=0),
             own[:, :deep].any(axis=1), own[:, -deep:].any(axis=1)]  # fmt: skip
    corners = [own[rows, columns].any() for rows in (slice(deep), slice(-deep, None))
               for columns in (slice(deep), slice(-deep, None))]  # fmt: skip
    covered = sum(float(side.mean()) > FRAME_SIDE for side in sides)
    return bool(covered >= 3 and sum(corners) >= 3)


def without_lines(ink: Floats, threshold: float, height: float) -> Floats:
    """Remove printed lines, which are longer than any stroke, but not what crosses them.

    >>> ink = np.zeros((40, 90), np.float32)
    >>> ink[30] = 1
    >>> float(without_lines(ink, 0.4, 20.0).max())
    0.0
    """
    mask = ink > LINE_SHADE * threshold
    lengths = (height * share for share in (*LINE_LENGTH, LINE_THICKNESS))
    lines = _lines(mask, *lengths)
    return np.where(lines, np.float32(0), ink) if lines.any() else ink


def _lines(mask: Mask, level: float, upright: float, thickness: float) -> Mask:
    """Return thin straight lines of at least these lengths."""
    thick = max(3, round(thickness))
    across, is_thin = _long_runs(mask, level), ~_opened(mask.T, thick + 1).T
    down, is_narrow = _long_runs(mask.T, upright).T, ~_opened(mask, thick + 1)
    return (across & is_thin) | (down & is_narrow) | (across & down)


def _long_runs(mask: Mask, length: float) -> Mask:
    """Return the pixels of horizontal runs, of a length at least, that may be slightly inclined."""
    if mask.shape[1] < length:
        return np.zeros_like(mask)
    # A line that is not quite level continues in the row above or below.
    taller = mask.copy()
    taller[1:] |= mask[:-1]
    taller[:-1] |= mask[1:]
    return _opened(taller, round(length), LINE_GAP) & mask


def _opened(mask: Mask, length: int, gap: int = 0) -> Mask:
    """Return horizontal runs of at least ``length`` pixels, in which gaps of ``gap`` may be."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2 + gap), dtype=np.int8)
    padded[:, 1 : 1 + mask.shape[1]] = mask
    edges = np.flatnonzero(np.diff(padded.ravel()))
    starts, ends = edges[::2], edges[1::2]
    if gap and len(starts):
        apart = starts[1:] - ends[:-1] > gap
        starts, ends = starts[np.append(True, apart)], ends[np.append(apart, True)]
    kept = ends - starts >= length
    steps = np.zeros(padded.size + 1, dtype=np.int32)
    steps[starts[kept]] += 1
    steps[ends[kept]] -= 1
    opened: Mask = np.cumsum(steps[:-1]).reshape(padded.shape)[:, : mask.shape[1]] > 0
    return opened
