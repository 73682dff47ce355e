"""The pieces of a line of writing: its connected components, and cuts where digits may touch.

Cutting into more pieces than there are digits, and joining them again as a classifier reads best,
is called over-segmentation (Casey and Lecolinet, "A survey of methods and strategies in character
segmentation", IEEE TPAMI 18, 1996).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from PIL import Image

from inkdigits.ink.components import Components, connected_components, dilate
from inkdigits.types import Doubles, Floats, Labels, Mask

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
# Components that are wider than this share of the height may be cut. Cuts begin so far apart,
# wander so far, and keep this distance from each other; all are shares of the height.
CUT_WIDTH, CUT_STEP, CUT_REACH, CUT_DISTANCE = 0.45, 0.07, 0.2, 0.11
# The sign of a dollar: its upright stroke covers this share of its height, with no ink beside this
# share at both ends, and this share of the ink on either side.
CROSSED_COVER, CROSSED_END, CROSSED_SIDE = 0.97, 0.06, 0.1
# The most ink that a cut crosses, in widths of a stroke; and the cost of a pixel of background.
CUT_INK, BACKGROUND_COST = 1.8, 0.03


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of a line, from left to right, and the ink that they are made of."""

    ink: Floats  # (H, W) 0 to 1, without printed lines
    number: Labels  # (H, W) the piece of each pixel, -1 where there is none
    left: Labels  # (n,) the boxes; the last two are exclusive
    top: Labels
    right: Labels
    bottom: Labels
    component: Labels  # (n,) which pieces are parts of the same component
    cut: Doubles  # (n,) ink that the cut to the right crosses, in strokes; NaN without a cut
    crossed: Mask  # (n,) which may be the sign of a dollar
    height: float  # of the digits, in pixels

    def __len__(self) -> int:
        return len(self.left)

    @property
    def is_low(self) -> bool:
        """Whether no piece is as high as a digit, or only a dash is there."""
        return bool(((self.bottom - self.top) < SMALL * (self.right - self.left)).all())

    @property
    def lines(self) -> int:
        """How many lines of writing there are, one below the other."""
        tall = np.flatnonzero(self.bottom - self.top > 0.5 * self.height)
        lines, end = 0, -1.0
        for i in tall[np.argsort(self.top[tall], kind="stable")]:
            lines += self.top[i] > end
            end = max(end, float(self.bottom[i]))
        return lines

    def box(self, first: int, last: int) -> tuple[int, int, int, int]:
        """Return left, top, right, bottom (exclusive) of some neighbours; the last is exclusive."""
        at = slice(first, last)
        lows = int(self.left[at].min()), int(self.top[at].min())
        return *lows, int(self.right[at].max()), int(self.bottom[at].max())

    def patch(self, first: int, last: int) -> Floats:
        """Return the ink of some neighbours alone, within their box, 0 to 255."""
        left, top, right, bottom = self.box(first, last)
        rows, columns = slice(max(0, top - 2), bottom + 2), slice(max(0, left - 2), right + 2)
        number = self.number[rows, columns]
        own = (number >= first) & (number < last)
        return np.where(own, self.ink[rows, columns] * np.float32(255), np.float32(0))


@dataclass(frozen=True, slots=True)
class Line:
    """The connected components of a line's ink, without printed lines and specks."""

    ink: Floats  # (H, W) 0 to 1
    found: Components
    kept: Mask  # (n,) which components are no specks
    height: float  # of the digits, in pixels

    def pieces(self, cut: Collection[int] = ()) -> Pieces:
        """Return the pieces, where the components ``cut`` are cut."""
        return _divided(self, cut)


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
    >>> len(find_line(ink, 0.4).pieces())
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
    return Line(ink, found, kept, float(np.percentile(tall, 75)))


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


def _divided(line: Line, cut: Collection[int]) -> Pieces:
    """Cut some components, and number all pieces from left to right."""
    ink, found, height = line.ink, line.found, line.height
    stroke = _stroke_width(found.number >= 0)
    number = np.full(found.number.shape, -1, dtype=np.int64)
    parts: list[tuple[float, int, float]] = []  # middle, component, ink of the cut to the right
    for i in np.flatnonzero(line.kept):
        box = slice(found.top[i], found.bottom[i]), slice(found.left[i], found.right[i])
        own = found.number[box] == i
        seams: list[tuple[float, Labels]] = []
        if i in cut and own.shape[1] > CUT_WIDTH * height and own.shape[0] > SMALL * height:
            seams = _seams(np.where(own, ink[box], np.float32(0)), height, stroke)
        part = np.zeros(own.shape, dtype=np.int64)
        for _, seam in seams:
            part += np.arange(own.shape[1]) >= seam[:, np.newaxis]
        costs = [cost for cost, _ in seams] + [np.nan]
        for k, cost in enumerate(costs):
            columns = np.flatnonzero((own & (part == k)).any(axis=0))
            middle = float(found.left[i] + (columns.mean() if len(columns) else 0))
            if len(columns):
                number[box][own & (part == k)] = len(parts)
                parts.append((middle, int(i), cost))
            elif parts and k and parts[-1][1] == i:
                parts[-1] = (*parts[-1][:2], cost)
    ends = [int(np.argmin(np.where(line.kept, found.left, np.inf))),
            int(np.argmax(np.where(line.kept, found.right, -1)))]  # fmt: skip
    crossed = [i for i in ends if _is_crossed(found, i, stroke)]
    return _numbered(ink, number, parts, crossed, height)


def _is_crossed(found: Components, i: int, stroke: float) -> bool:
    """Return whether an upright stroke runs from end to end of a component, with ink beside it."""
    own = found.number[found.top[i] : found.bottom[i], found.left[i] : found.right[i]] == i
    half = max(1, round(stroke / 2))
    near = own.copy()
    for step in range(1, half + 1):
        near[:, step:] |= own[:, :-step]
        near[:, :-step] |= own[:, step:]
    cover = near.mean(axis=0)
    middle = int(np.median(np.flatnonzero(cover >= cover.max() - 0.005)))
    beside = own.copy()
    beside[:, max(0, middle - half - 1) : middle + half + 2] = False
    end = max(1, round(CROSSED_END * len(own)))
    if cover[middle] < CROSSED_COVER or beside[:end].any() or beside[-end:].any():
        return False
    sides = beside[:, :middle].sum(), beside[:, middle:].sum()
    return bool(min(sides) >= CROSSED_SIDE * own.sum())


def _numbered(
    ink: Floats,
    number: Labels,
    parts: list[tuple[float, int, float]],
    crossed: list[int],
    height: float,
) -> Pieces:
    """Sort pieces by their middles; those of one component stay together if nothing is between."""
    order = np.argsort([middle for middle, _, _ in parts], kind="stable")
    place = np.empty(len(parts) + 1, dtype=np.int64)
    place[order], place[-1] = np.arange(len(parts)), -1
    number = place[number]
    n = len(parts)
    rows, columns = np.nonzero(number >= 0)
    of = number[rows, columns]
    left, top = np.full((2, n), max(number.shape))
    right, bottom = np.zeros((2, n), dtype=np.int64)
    np.minimum.at(left, of, columns)
    np.minimum.at(top, of, rows)
    np.maximum.at(right, of, columns + 1)
    np.maximum.at(bottom, of, rows + 1)
    component = np.array([parts[i][1] for i in order])
    cut = np.array([parts[i][2] for i in order])
    # The soft edge of a stroke belongs to the piece beside it.
    number = np.where(number >= 0, number, dilate(number))
    return Pieces(
        ink, number, left, top, right, bottom, component, cut, np.isin(component, crossed), height
    )


def _stroke_width(mask: Mask) -> float:
    """Return the median length of horizontal runs, in pixels."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), dtype=np.int8)
    padded[:, 1:-1] = mask
    edges = np.flatnonzero(np.diff(padded.ravel()))
    return float(np.median(edges[1::2] - edges[::2])) if len(edges) else 1.0


def _seams(ink: Floats, height: float, stroke: float) -> list[tuple[float, Labels]]:
    """Return where a component (h, w) may be cut from top to bottom, crossing the least ink.

    Returns:
        From left to right, the ink that each cut crosses, in strokes, and its column in each row.
    """
    h, w = ink.shape
    reach = max(2, round(CUT_REACH * height))
    middles = np.arange(0.12 * height, w - 0.12 * height, max(1.0, CUT_STEP * height))
    starts = np.rint(middles).astype(np.int64)
    if not len(starts):
        return []
    windows = np.pad(ink, ((0, 0), (reach, reach)))
    columns = starts[:, np.newaxis] + np.arange(2 * reach + 1)  # of the padded picture
    total = np.zeros(columns.shape)
    steps = np.zeros((h, *columns.shape), dtype=np.int64)
    edge = np.full((len(starts), 1), np.inf)
    for y in range(h):
        beside = np.stack([
            np.concatenate([edge, total[:, :-1]], axis=1) + BACKGROUND_COST,
            total,
            np.concatenate([total[:, 1:], edge], axis=1) + BACKGROUND_COST,
        ])  # fmt: skip
        steps[y] = np.argmin(beside, axis=0) - 1
        total = beside.min(axis=0) + windows[y][columns] + BACKGROUND_COST
    at = np.argmin(total, axis=1)
    each = np.arange(len(starts))
    paths = np.empty((len(starts), h), dtype=np.int64)
    for y in range(h - 1, -1, -1):
        paths[:, y] = starts + at - reach
        at = at + steps[y, each, at]
    crossed = np.take_along_axis(
        np.pad(ink, ((0, 0), (1, 1))), np.clip(paths.T + 1, 0, w + 1), axis=1
    ).sum(axis=0) / max(1.0, stroke)  # fmt: skip
    chosen: list[int] = []
    for i in np.argsort(crossed + BACKGROUND_COST * np.ptp(paths, axis=1), kind="stable"):
        gaps = [float(np.abs(paths[i] - paths[j]).mean()) for j in chosen]
        if crossed[i] <= CUT_INK and min(gaps, default=w) >= CUT_DISTANCE * height:
            chosen.append(int(i))
    chosen.sort(key=lambda i: float(paths[i].mean()))
    ordered = np.maximum.accumulate(paths[chosen], axis=0) if chosen else paths[:0]
    return [(float(crossed[i]), path) for i, path in zip(chosen, ordered, strict=True)]
