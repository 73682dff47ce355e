"""What corruptions add to a picture: fog, dotted lines and zigzags."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import numpy as np

from inkdigits.types import Floats, Rng

_SIDE, _FOG_SIDE = 28, 256
# Pictures whose fog is made together: more does not fit a processor's cache.
_BATCH_SIZE = 32


def fog(n: int, decay: float, rng: Rng) -> Floats:
    """Return (n, 28, 28) corners of fractal height maps of 256x256, 0 to 1.

    A map closes upon itself, so that its four corners are alike: one map serves four pictures.
    Each halving of the scale divides the height by the square of ``decay``.

    >>> fog(5, 2.0, np.random.default_rng(0)).shape
    (5, 28, 28)
    """
    sides = np.arange(_SIDE), -np.arange(_SIDE)
    corners = [(rows[:, None], columns) for rows in sides for columns in sides]
    foggy = np.empty((n, _SIDE, _SIDE), dtype=np.float32)
    for start in range(0, n, _BATCH_SIZE):
        batch = foggy[start : start + _BATCH_SIZE]
        maps = _plasma(-(-len(batch) // 4), decay, rng)
        for index, (rows, columns) in enumerate(corners):
            members = batch[index::4]
            members[:] = maps[: len(members), rows, columns]
    return foggy


def _plasma(n: int, decay: float, rng: Rng) -> Floats:
    """Return (n, 256, 256) fractal height maps, 0 to 1, that close upon themselves.

    This is the diamond-square algorithm (A. Fournier, D. Fussell and L. Carpenter, "Computer
    Rendering of Stochastic Models", Communications of the ACM 25, 1982). Midpoints are the mean of
    their four neighbours and noise.
    """

    def noisy(total: Floats) -> Floats:
        draw = rng.random(total.shape, dtype=np.float32) - np.float32(0.5)
        return total / 4 + np.float32(2 * noise) * draw

    maps = np.zeros((n, _FOG_SIDE, _FOG_SIDE), dtype=np.float32)
    step, noise = _FOG_SIDE, 1.0
    while step >= 2:
        half = step // 2
        corners = maps[:, ::step, ::step]
        beside = corners + np.roll(corners, -1, axis=1)
        total = beside + np.roll(beside, -1, axis=2)
        centres = noisy(total)
        maps[:, half::step, half::step] = centres
        across = corners + np.roll(corners, -1, axis=2) + centres + np.roll(centres, 1, axis=1)
        maps[:, ::step, half::step] = noisy(across)
        down = beside + centres + np.roll(centres, 1, axis=2)
        maps[:, half::step, ::step] = noisy(down)
        step, noise = half, noise / decay**2
    maps -= maps.min(axis=(1, 2), keepdims=True)
    maps /= maps.max(axis=(1, 2), keepdims=True)
    return maps


@cache
def dotted_lines() -> Floats:
    """Return every dotted line from the left edge to the right one, (729, 28, 28), 0 to 1.

    >>> dotted_lines()[:, :, 0].any()
    np.False_
    """
    heights = range(_SIDE - 1)
    lines = np.stack([_segment(0, r0, 27, r1) for r0 in heights for r1 in heights])
    return lines * (np.arange(_SIDE) % 4 >= 2)


@cache
def zigzags() -> Floats:
    """Return every zigzag, (270, 28, 28), 0 to 1, about a line that rises by at most 5 pixels.

    Its teeth are 4 pixels long and 2 high, on either side of the line.

    >>> zigzags().shape
    (270, 28, 28)
    """
    start, end, tooth, height = 2, 25, 4.0, 2.0
    drawn = []
    for r0 in range(_SIDE - 1):
        for rise in range(-5, 5):
            length = math.hypot(end - start, rise)
            along = np.arange(tooth / 2, length, tooth)
            across = height * (-1.0) ** np.arange(len(along))
            points = np.array([(0.0, 0.0), *zip(along, across, strict=True), (length, 0.0)])
            cos, sin = (end - start) / length, rise / length
            columns = start + cos * points[:, 0] - sin * points[:, 1]
            rows = r0 + sin * points[:, 0] + cos * points[:, 1]
            corners = list(zip(columns.tolist(), rows.tolist(), strict=True))
            pieces = [_segment(*a, *b) for a, b in pairwise(corners) if a[0] < b[0]]
            drawn.append(np.minimum(np.sum(pieces, axis=0), 1))
    return np.stack(drawn).astype(np.float32)


def _segment(c0: float, r0: float, c1: float, r1: float) -> Floats:
    """Return (28, 28), a line between two points, c0 < c1, that fades out within 1.45 pixels."""
    grid = np.arange(_SIDE)
    height = r0 + (r1 - r0) / (c1 - c0) * (grid - c0)
    distance = np.abs(grid[:, None] - height)
    line = 1 + np.log1p(-np.minimum(distance, 2.29) / 2.3)
    line[:, (grid < math.floor(c0)) | (grid >= math.ceil(c1))] = 0.0
    soft: Floats = np.maximum(line, 0.0).astype(np.float32)
    return soft
