"""Canny's edge detector on whole batches of ink; training side. NumPy only.

J. Canny, "A Computational Approach to Edge Detection", IEEE Transactions on Pattern Analysis and
Machine Intelligence 8, 1986, pages 679 to 698.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from inkdigits.types import Floats, Mask

SIDE = 28
# Of a step of height 1, the Sobel filter's answer is 4.
LOW, HIGH = 0.1, 0.2


def canny(pictures: Floats, sigma: float, low: float = LOW, high: float = HIGH) -> Mask:
    """Edges one pixel wide.

    Gaussian smoothing, Sobel gradients, suppression of whatever isn't the highest along its own
    gradient, and hysteresis: a weak edge stays if it hangs together with a strong one. The
    outermost pixels are never edges.

    Args:
        pictures: (N, 28, 28) float32, 0 to 1.
        sigma: of the smoothing, in pixels, above 0.
        low: gradients from here are weak edges, in the Sobel filter's unit.
        high: gradients from here are strong ones.

    Returns:
        (N, 28, 28) bool.
    """
    blurred = smooth(pictures, gaussian_matrix(sigma, repeat_edge=False))
    padded = np.pad(blurred, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    down, right = rows[:, 2:] - rows[:, :-2], columns[:, :, 2:] - columns[:, :, :-2]
    height = np.hypot(down, right)
    weak = height >= low
    weak[:, [0, -1]] = False
    weak[:, :, [0, -1]] = False
    weak &= _is_ridge(height, down, right, weak)
    return _connected(weak & (height >= high), weak)


def _is_ridge(height: Floats, down: Floats, right: Floats, candidates: Mask) -> Mask:
    """Where no neighbour along the gradient is higher; between pixels, by interpolation."""
    at = np.flatnonzero(candidates)
    flat, dy, dx = height.ravel(), down.ravel()[at], right.ravel()[at]
    step_y, step_x = np.sign(dy).astype(np.intp) * SIDE, np.sign(dx).astype(np.intp)
    steep = np.abs(dy) >= np.abs(dx)
    straight, diagonal = np.where(steep, step_y, step_x), step_y + step_x
    share = np.minimum(np.abs(dy), np.abs(dx)) / np.maximum(np.abs(dy), np.abs(dx))
    here = flat[at]
    highest = np.ones(len(at), dtype=np.bool_)
    for sign in (1, -1):
        beside = (1 - share) * flat[at + sign * straight] + share * flat[at + sign * diagonal]
        highest &= here >= beside
    ridge = np.zeros(flat.shape, dtype=np.bool_)
    ridge[at] = highest
    return ridge.reshape(height.shape)


def _connected(strong: Mask, weak: Mask) -> Mask:
    """The weak pixels that touch strong ones, at sides or corners, over any number of steps."""
    reached = np.zeros((len(strong), SIDE + 2, SIDE + 2), dtype=np.bool_)
    inside = reached[:, 1:-1, 1:-1]
    inside |= strong
    count = -1
    while (now := int(np.count_nonzero(inside))) != count:
        count = now
        wide = reached[:, :, :-2] | reached[:, :, 1:-1] | reached[:, :, 2:]
        inside |= (wide[:, :-2] | wide[:, 1:-1] | wide[:, 2:]) & weak
    return inside.copy()


@cache
def gaussian_matrix(sigma: float, *, repeat_edge: bool = True) -> Floats:
    """(28, 28) float32: what ``smooth`` needs to blur with a Gaussian.

    The kernel ends at four standard deviations.

    Args:
        sigma: in pixels, above 0.
        repeat_edge: beyond the border the outermost pixel goes on; otherwise there is nothing,
            and the weights inside are brought to a sum of 1.
    """
    radius = int(4 * sigma + 0.5)
    steps = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * np.square(steps / sigma))
    rows, columns = np.broadcast_arrays(np.arange(SIDE)[:, None], np.arange(SIDE)[:, None] + steps)
    inside = (columns >= 0) & (columns < SIDE)
    matrix = np.zeros((SIDE, SIDE))
    kept = np.where(inside | repeat_edge, weights, 0.0)
    np.add.at(matrix, (rows, np.clip(columns, 0, SIDE - 1)), kept)
    weighted: Floats = (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
    return weighted


def smooth(pictures: Floats, matrix: Floats) -> Floats:
    """``matrix @ picture @ matrix.T`` of each of the (N, 28, 28) pictures."""
    # Two products of tall matrices: BLAS runs them ten times as fast as N small ones.
    across = (pictures.reshape(-1, SIDE) @ matrix.T).reshape(pictures.shape)
    turned: Floats = np.ascontiguousarray(across.transpose(0, 2, 1)).reshape(-1, SIDE) @ matrix.T
    return np.ascontiguousarray(turned.reshape(pictures.shape).transpose(0, 2, 1))
