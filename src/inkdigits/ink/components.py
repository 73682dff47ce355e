"""Connected components of a mask, with what they amount to; and dilation. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from inkdigits.types import Doubles, Floats, Labels, Mask

Array = TypeVar("Array", Mask, Labels)

# A gap of a pixel is told from none up to this size. Of a digit in 280 pixels it is 1 % of the
# height, and halving takes a third of the time: 135 against 208 µs per picture.
FINE = 128


@dataclass(frozen=True, slots=True)
class Components:
    """The 8-connected components of a mask: arrays of one value each, but for the first."""

    number: Labels  # (H, W) the component of each pixel, -1 where there is none
    area: Labels  # pixels
    ink: Doubles  # its sum
    peak: Floats  # the darkest pixel's
    left: Labels  # the box, the last two exclusive
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
    """Label the 8-connected components of a mask (H, W), and add up the ink (H, W) in each.

    >>> mask = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 0]], bool)
    >>> connected_components(mask, mask.astype(np.float32)).area.tolist()
    [2, 2]
    """
    height, width = mask.shape
    stride = width + 2
    starts, ends = _runs(mask)
    names = _least_names(*_touching(starts, ends, stride), len(starts))
    kept, of_run = np.unique(names, return_inverse=True)
    n = len(kept)
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


def is_connected(mask: Mask) -> bool:
    """Return whether a mask (H, W) has one component at most, in a tenth of the time of all that.

    A mask of more than FINE pixels a side is halved, so that a gap of one pixel does not count.

    >>> is_connected(np.eye(3, dtype=bool)), is_connected(np.eye(3, dtype=bool)[[0, 2, 1]])
    (True, False)
    """
    while max(mask.shape) > FINE:
        mask = _halved(_halved(mask).T).T
    starts, ends = _runs(mask)
    upper, lower = _touching(starts, ends, mask.shape[1] + 2)
    # Where all runs but one have a run below them, or above, that is where all of them end.
    for touching in (upper, lower):
        if np.count_nonzero(np.bincount(touching, minlength=len(starts))) >= len(starts) - 1:
            return True
    return not _least_names(upper, lower, len(starts)).any()


def _halved(mask: Mask) -> Mask:
    """Return a mask of half as many rows, each of them where one of two is."""
    half = mask[::2].copy()
    half[: len(mask) // 2] |= mask[1::2]
    return half


def _runs(mask: Mask) -> tuple[Labels, Labels]:
    """Return where runs along the rows start and end, in a mask with a column more on each side."""
    padded = np.zeros((len(mask), mask.shape[1] + 2), dtype=bool)
    padded[:, 1:-1] = mask
    flat = padded.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return edges[::2] + 1, edges[1::2] + 1


def _touching(starts: Labels, ends: Labels, stride: int) -> tuple[Labels, Labels]:
    """Return the pairs of runs that touch, the upper and the lower of each; see ``_runs``."""
    first = np.searchsorted(ends, starts + (stride - 1), side="right")
    touched = np.maximum(np.searchsorted(starts, ends + (stride + 1), side="left") - first, 0)
    upper = np.repeat(np.arange(len(starts)), touched)
    lower = np.arange(len(upper)) + np.repeat(first - (np.cumsum(touched) - touched), touched)
    return upper, lower


def _least_names(upper: Labels, lower: Labels, n: int) -> Labels:
    """Return for each of n runs the first one of its component."""
    names = np.arange(n)
    # Most runs touch one above them; all of a chain then have the name of its first one.
    names[lower[::-1]] = upper[::-1]
    while (names[names] != names).any():
        names = names[names]
    while True:
        least = np.minimum(names[upper], names[lower])
        if np.array_equal(names[upper], least) and np.array_equal(names[lower], least):
            return names
        np.minimum.at(names, upper, least)
        np.minimum.at(names, lower, least)
        names = names[names]


def dilate(values: Array) -> Array:
    """Return the greatest of each pixel and its eight neighbours: for a mask (H, W) or numbers.

    >>> dilate(np.eye(4, dtype=bool))[0].tolist()
    [True, True, True, False]
    """
    taller = values.copy()
    np.maximum(taller[1:], values[:-1], out=taller[1:])
    np.maximum(taller[:-1], values[1:], out=taller[:-1])
    wider = taller.copy()
    np.maximum(wider[:, 1:], taller[:, :-1], out=wider[:, 1:])
    np.maximum(wider[:, :-1], taller[:, 1:], out=wider[:, :-1])
    return wider


def stroke_width(mask: Mask) -> float:
    """Return twice the area by the length of the outline, in pixels.

    >>> stroke_width(np.ones((4, 40), bool)) > 3
    True
    """
    padded = np.pad(mask, 1)
    inner = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    outline = int(np.count_nonzero(mask)) - int(np.count_nonzero(inner))
    return 2 * int(np.count_nonzero(mask)) / max(1, outline)
