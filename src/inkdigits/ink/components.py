"""Connected components of a picture of ink, what they amount to, and what they look like.

Each test of a component (``are_sharp`` and below) returns one value per component. Its figures come
from components of ink in photo-like pictures of training digits, and from the same backgrounds with
nothing on them (docs/experiments/). NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inkdigits.ink.background import square_filter
from inkdigits.types import Doubles, Floats, Labels, Mask

# The steepest step between two pixels of a component of ink, as a share of its darkest.
SHARPNESS = 0.12
# Around a stroke the picture falls towards the background by these shares of its mean ink, except
# for these shares of the way around. It falls no farther than GREATEST_FALL, except for FAR_SHARE.
FALLS = ((0.9, 0.25), (0.5, 0.1))
GREATEST_FALL = 1.8
FAR_SHARE = 0.33
# From this mean ink on, the picture may be level for this share of the way around.
DARK_MEAN = 60.0
DARK_LEVEL = 0.35
# The least mean ink of a component; and of one that touches the border, or is smaller than this
# share of the picture's longer side.
LEAST_MEAN = 13.0
SURE_MEAN = 40.0
SMALL_SHARE = 0.15
# The greatest size of a component of a tiny digit, as a share likewise.
TINY_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Components:
    """The 8-connected components of a mask; each array but the first has one value per component.

    Attributes:
        number: (H, W) the component of each pixel, -1 where there is none.
        area: pixels.
        ink: the sum of the ink.
        peak: the darkest pixel's ink.
        left, top, right, bottom: the box, the last two exclusive.
    """

    number: Labels
    area: Labels
    ink: Doubles
    peak: Floats
    left: Labels
    top: Labels
    right: Labels
    bottom: Labels

    def __len__(self) -> int:
        return len(self.area)

    @property
    def size(self) -> Labels:
        """The longer side of each box."""
        size: Labels = np.maximum(self.right - self.left, self.bottom - self.top)
        return size

    def pixels(self, kept: Mask) -> Mask:
        """Return the pixels (H, W) of the components that are kept (n,)."""
        mask: Mask = np.append(kept, False)[self.number]
        return mask


def connected_components(mask: Mask, ink: Floats) -> Components:
    """Label the 8-connected components of a mask, by runs along rows that touch in the next row.

    Args:
        mask: (H, W).
        ink: (H, W) float32, what to add up.

    >>> mask = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 0]], bool)
    >>> connected_components(mask, mask.astype(np.float32)).area.tolist()
    [2, 2]
    """
    height, width = mask.shape
    stride = width + 2
    padded = np.zeros((height, stride), dtype=np.int8)
    padded[:, 1:-1] = mask
    edges = np.flatnonzero(np.diff(padded.ravel()))
    starts, ends = edges[::2] + 1, edges[1::2] + 1
    if not len(starts):
        none = np.zeros(0, dtype=np.int64)
        return Components(
            np.full(mask.shape, -1), none, np.zeros(0), np.zeros(0, dtype=np.float32),
            none, none, none, none,
        )  # fmt: skip
    of_run, n = _label_runs(starts, ends, stride)
    values = np.zeros((height, stride), dtype=np.float32)
    values[:, 1:-1] = ink
    flat = values.ravel()
    total = np.concatenate([[0.0], np.cumsum(flat, dtype=np.float64)])
    bounds = np.stack([starts, ends], axis=1).ravel()
    peak = np.zeros(n, dtype=np.float32)
    np.maximum.at(peak, of_run, np.maximum.reduceat(flat, bounds)[::2])
    rows = starts // stride
    box = [np.full(n, stride * height) for _ in range(2)] + [np.zeros(n, np.int64) for _ in "rb"]
    np.minimum.at(box[0], of_run, starts % stride - 1)
    np.minimum.at(box[1], of_run, rows)
    np.maximum.at(box[2], of_run, (ends - 1) % stride)
    np.maximum.at(box[3], of_run, rows + 1)
    steps = np.zeros(height * stride + 1, dtype=np.int64)
    steps[starts] += of_run + 1
    steps[ends] -= of_run + 1
    return Components(
        np.cumsum(steps[:-1]).reshape(height, stride)[:, 1:-1] - 1,
        np.bincount(of_run, (ends - starts).astype(np.float64), n).astype(np.int64),
        np.bincount(of_run, total[ends] - total[starts], n).astype(np.float64),
        peak,
        *box,
    )


def _label_runs(starts: Labels, ends: Labels, stride: int) -> tuple[Labels, int]:
    """Return the component of each run, and their number; rows are ``stride`` apart."""
    first = np.searchsorted(ends, starts + (stride - 1), side="right")
    last = np.searchsorted(starts, ends + (stride + 1), side="left")
    touched = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(starts)), touched)
    lower = np.arange(len(upper)) + np.repeat(first - (np.cumsum(touched) - touched), touched)
    names = np.arange(len(starts))
    while True:
        least = np.minimum(names[upper], names[lower])
        if np.array_equal(names[upper], least) and np.array_equal(names[lower], least):
            break
        np.minimum.at(names, upper, least)
        np.minimum.at(names, lower, least)
        names = names[names]
    kept, of_run = np.unique(names, return_inverse=True)
    return of_run, len(kept)


def dilate(mask: Mask) -> Mask:
    """Return the mask and the eight neighbours of its pixels.

    >>> dilate(np.eye(4, dtype=bool))[0].tolist()
    [True, True, True, False]
    """
    taller = mask.copy()
    taller[1:] |= mask[:-1]
    taller[:-1] |= mask[1:]
    wider = taller.copy()
    wider[:, 1:] |= taller[:, :-1]
    wider[:, :-1] |= taller[:, 1:]
    return wider


def are_sharp(found: Components, ink: Floats) -> Mask:
    """Return which components have an edge somewhere, as strokes have and light has not.

    >>> ink = np.zeros((9, 9), np.float32)
    >>> ink[2:7, 4] = 200
    >>> are_sharp(connected_components(ink > 0, ink), ink).tolist()
    [True]
    """
    steps = np.zeros_like(ink)
    steps[:, 1:] = np.abs(np.diff(ink, axis=1))
    steps[1:] = np.maximum(steps[1:], np.abs(np.diff(ink, axis=0)))
    steep = (found.number >= 0) & (steps > SHARPNESS * np.append(found.peak, 0.0)[found.number])
    sharp: Mask = np.bincount(found.number[steep], minlength=len(found)) > 0
    return sharp


def are_two_sided(found: Components, relief: Floats) -> Mask:
    """Return from which components the picture falls on all sides, about as deep as their ink.

    What is left of a shadow's edge falls on one side and deeper than its ink; a cloud of light
    hardly falls at all.

    Args:
        found: n components.
        relief: (H, W) float32: the picture with its background; more is more like ink.

    >>> ink = np.zeros((15, 15), np.float32)
    >>> ink[4:11, 7] = 100
    >>> are_two_sided(connected_components(ink > 0, ink), ink).tolist()
    [True]
    """
    mask = found.number >= 0
    nearest = square_filter(found.number.astype(np.float32), 7, np.maximum)
    around = (nearest >= 0) & ~dilate(mask)
    owner = nearest[around].astype(np.int64)
    top = square_filter(np.where(mask, relief, np.float32(-1e6)), 11, np.maximum)[around]
    fall = (top - relief[around]) / (found.ink / found.area)[owner]
    n = len(found)
    pixels = np.maximum(np.bincount(owner, minlength=n), 1)
    falls = np.ones(n, dtype=bool)
    for least, share in FALLS:
        falls &= np.bincount(owner[fall < least], minlength=n) <= share * pixels
    falls &= np.bincount(owner[fall > GREATEST_FALL], minlength=n) <= FAR_SHARE * pixels
    # Such ink is darker than what light leaves, and may lie across the edge of a shadow.
    dark = found.ink >= DARK_MEAN * found.area
    falls |= dark & (np.bincount(owner[fall < 0.5], minlength=n) <= DARK_LEVEL * pixels)
    return falls


def are_dark_enough(found: Components, *, tiny: bool) -> Mask:
    """Return which components are dark enough; small ones and those at the border must be darker.

    Args:
        found: n components.
        tiny: whether only small ones are looked for.

    >>> ink = np.zeros((9, 9), np.float32)
    >>> ink[2:7, 4] = 30
    >>> are_dark_enough(connected_components(ink > 0, ink), tiny=False).tolist()
    [True]
    """
    height, width = found.number.shape
    doubtful = (found.size < SMALL_SHARE * max(height, width)) | (found.left == 0)
    doubtful |= (found.top == 0) | (found.right == width) | (found.bottom == height) | tiny
    enough: Mask = found.ink >= np.where(doubtful, SURE_MEAN, LEAST_MEAN) * found.area
    return enough & (found.size < TINY_SHARE * max(height, width)) if tiny else enough


def are_along_border(found: Components) -> Mask:
    """Return which components lie along the picture's border: a table, a shadow, a printed line.

    >>> mask = np.zeros((9, 9), bool)
    >>> mask[:, 0] = mask[4, 4] = True
    >>> are_along_border(connected_components(mask, mask.astype(np.float32))).tolist()
    [True, False]
    """
    n, number = len(found), found.number
    height, width = number.shape
    along, contact, sides = np.zeros(n), np.zeros(n), np.zeros(n)
    for side in (number[0], number[-1], number[:, 0], number[:, -1]):
        on = side[side >= 0]
        if len(on):
            pixels = np.bincount(on, minlength=n)
            along = np.maximum(along, pixels / len(side))
            contact += pixels
            sides += pixels > 0
    band_y, band_x = 0.08 * height, 0.08 * width
    in_band = (
        (found.bottom <= band_y)
        | (found.top >= height - band_y)
        | (found.right <= band_x)
        | (found.left >= width - band_x)
    )
    # A stroke that leaves the picture does so across its own width; a wedge of shadow along it.
    wedge = contact > 0.7 * np.sqrt(found.area)
    edges: Mask = (along > 0.3) | (contact > 0) & (in_band | wedge) | (sides >= 2)
    return edges


def are_frames(found: Components, candidates: Mask) -> Mask:
    """Return which components lie along the sides of their box, with another one of size inside.

    Args:
        found: n components.
        candidates: (n,) those that may be frames, or be inside.

    >>> mask = np.zeros((30, 30), bool)
    >>> mask[2:28, 2:28], mask[3:27, 3:27], mask[10:20, 14:16] = True, False, True
    >>> found = connected_components(mask, mask.astype(np.float32))
    >>> are_frames(found, np.ones(2, bool)).tolist()
    [True, False]
    """
    frames = np.zeros(len(found), dtype=bool)
    if candidates.sum() < 2:
        return frames
    sizes_x, sizes_y = found.right - found.left, found.bottom - found.top
    for i in np.flatnonzero(candidates & (sizes_x >= 12) & (sizes_y >= 12)):
        if found.area[i] > 0.35 * sizes_x[i] * sizes_y[i]:
            continue
        inside = (
            candidates
            & (found.left > found.left[i])
            & (found.top > found.top[i])
            & (found.right < found.right[i])
            & (found.bottom < found.bottom[i])
            & (found.ink > 0.15 * found.ink[i])
            & (sizes_y > 0.25 * sizes_y[i])
        )
        if not inside.any():
            continue
        own = found.number[found.top[i] : found.bottom[i], found.left[i] : found.right[i]] == i
        near_y, near_x = 2 + int(0.06 * sizes_y[i]), 2 + int(0.06 * sizes_x[i])
        if own[near_y:-near_y, near_x:-near_x].sum() < 0.2 * found.area[i]:
            frames[i] = True
    return frames
