"""What corruptions lay over a picture: fog, dotted lines, zigzags. NumPy only."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import numpy as np

from inkdigits.types import Floats

SIDE = 28
FOG_SIDE = 256
# Pictures whose fog is made together: more doesn't fit a processor's cache.
FOG_CHUNK = 32


def fog(n: int, decay: float, rng: np.random.Generator) -> Floats:
    """Corners of fractal height maps as large as 256x256.

    A corner's distribution is the same at all four corners of a map that closes upon itself, so
    one map, which is what takes the time, serves four pictures in a row.

    Args:
        n: pictures.
        decay: each halving of the scale divides the height by the square of this, above 1.
        rng: the only source of randomness.

    Returns:
        (n, 28, 28) float32, 0 to 1, the ends being the whole map's.
    """
    straight = np.arange(SIDE)
    mirrored = -straight
    sides = [
        (rows[:, None], columns)
        for rows in (straight, mirrored)
        for columns in (straight, mirrored)
    ]
    corners = np.empty((n, SIDE, SIDE), dtype=np.float32)
    for start in range(0, n, FOG_CHUNK):
        block = corners[start : start + FOG_CHUNK]
        maps = plasma(-(-len(block) // 4), decay, rng)
        for corner, (rows, columns) in enumerate(sides):
            members = block[corner::4]
            members[:] = maps[: len(members), rows, columns]
    return corners


def plasma(n: int, decay: float, rng: np.random.Generator) -> Floats:
    """(n, 256, 256) fractal height maps, 0 to 1, that close upon themselves.

    The diamond-square algorithm (A. Fournier, D. Fussell and L. Carpenter, "Computer Rendering of
    Stochastic Models", Communications of the ACM 25, 1982): midpoints are the mean of their four
    neighbours and noise, and the noise falls by ``decay`` squared with each halving.
    """
    maps = np.zeros((n, FOG_SIDE, FOG_SIDE), dtype=np.float32)
    step, noise = FOG_SIDE, 1.0
    while step >= 2:
        half = step // 2
        corners = maps[:, ::step, ::step]
        beside = corners + np.roll(corners, -1, axis=1)
        total = beside + np.roll(beside, -1, axis=2)
        centres = total / 4 + _wobble(corners.shape, noise, rng)
        maps[:, half::step, half::step] = centres
        across = corners + np.roll(corners, -1, axis=2) + centres + np.roll(centres, 1, axis=1)
        maps[:, ::step, half::step] = across / 4 + _wobble(corners.shape, noise, rng)
        down = beside + centres + np.roll(centres, 1, axis=2)
        maps[:, half::step, ::step] = down / 4 + _wobble(corners.shape, noise, rng)
        step, noise = half, noise / decay**2
    maps -= maps.min(axis=(1, 2), keepdims=True)
    maps /= maps.max(axis=(1, 2), keepdims=True)
    return maps


def _wobble(shape: tuple[int, ...], amount: float, rng: np.random.Generator) -> Floats:
    return np.float32(2 * amount) * (rng.random(shape, dtype=np.float32) - np.float32(0.5))


@cache
def dotted_lines() -> Floats:
    """Every dotted line from the left edge to the right one that can be drawn."""
    heights = range(SIDE - 1)
    lines = np.stack([_segment(0, r0, 27, r1) for r0 in heights for r1 in heights])
    return lines * (np.arange(SIDE) % 4 >= 2)


@cache
def zigzags() -> Floats:
    """Every zigzag: teeth 4 pixels long, 2 high on either side of a line that rises at most 5."""
    start, end, tooth, height = 2, 25, 4.0, 2.0
    drawn = []
    for r0 in range(SIDE - 1):
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
    """(28, 28): a soft line between two points, c0 < c1, fading out 1.45 pixels above and below."""
    grid = np.arange(SIDE)
    height = r0 + (r1 - r0) / (c1 - c0) * (grid - c0)
    distance = np.abs(grid[:, None] - height)
    line = 1 + np.log1p(-np.minimum(distance, 2.29) / 2.3)
    line[:, (grid < math.floor(c0)) | (grid >= math.ceil(c1))] = 0.0
    soft: Floats = np.maximum(line, 0.0).astype(np.float32)
    return soft
