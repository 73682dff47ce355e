"""The fifteen corruptions of MNIST-C, on whole batches, in five severities; and low resolution.

N. Mu and J. Gilmer, "MNIST-C: A Robustness Benchmark for Computer Vision", arXiv:1906.02337,
2019. Eleven of them are those of D. Hendrycks and T. Dietterich ("Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations", ICLR 2019) or take their five severities from
there. The settings below are those of the MNIST-C repository (github.com/google-research/mnist-c),
and ``MNIST_C_SEVERITY`` says which severity its published files have. Stripe, dotted line, zigzag
and Canny edges have one setting there: it is severity 3 here, and the others are ours.

This is an implementation from the description, not the published files: random draws differ, and
so does rounding. One difference is known: by its code, the published glass blur smooths along
columns only (the library took a grey picture's rows for colour channels). This one smooths both
ways, as described, which is harder.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from scipy import ndimage

from inkdigits.data.overlays import dotted_lines, fog, zigzags
from inkdigits.types import Floats, Ink, Mask, Pixels, Rng

Matrix: TypeAlias = tuple[tuple[float, float], tuple[float, float]]

SEVERITIES = (1, 2, 3, 4, 5)
# Canny's thresholds of weak and strong edges; a step of height 1 has a Sobel gradient of 4.
CANNY_LOW, CANNY_HIGH = 0.1, 0.2
_SIDE = 28
# Pictures that are changed together: more takes memory and is not faster.
_BATCH_SIZE = 1000


def corrupt(inks: Ink, family: str, severity: int, rng: Rng) -> Ink:
    """Return a corrupted copy of each picture (N, 28, 28); each has its own random draws.

    The family is one of ``FAMILIES``, and the severity 1 (mild) to 5; MNIST-C's own is
    ``MNIST_C_SEVERITY[family]``.

    >>> blank = np.zeros((1, 28, 28), np.uint8)
    >>> corrupt(blank, "brightness", 5, np.random.default_rng(0)).max()
    np.uint8(128)
    """
    corruption = _CORRUPTIONS[family]
    setting = corruption.settings[severity - 1]
    changed = np.empty_like(inks)
    for start in range(0, len(inks), _BATCH_SIZE):
        batch = slice(start, start + _BATCH_SIZE)
        x = inks[batch].astype(np.float32) / np.float32(255.0)
        result = np.clip(corruption.apply(x, setting, rng), 0.0, 1.0)
        changed[batch] = np.rint(result * np.float32(255.0))
    return changed


def corrupt_mildly(inks: Ink, rng: Rng) -> Ink:
    """Return a copy of each (28, 28) picture, corrupted by one of the families in severity 1.

    The families get the same number of pictures each, as far as possible; ``rng`` draws which.

    >>> corrupt_mildly(np.zeros((15, 28, 28), np.uint8), np.random.default_rng(0)).shape
    (15, 28, 28)
    """
    changed = np.empty_like(inks)
    families = rng.permutation(len(inks)) % len(FAMILIES)
    for index, family in enumerate(FAMILIES):
        chosen = families == index
        changed[chosen] = corrupt(inks[chosen], family, SEVERITIES[0], rng)
    return changed


def lower_resolution(inks: Ink, rng: Rng) -> list[Pixels]:
    """Make digits as in small scans: 7 to 18 pixels high, most below 12, in few shades, cut close.

    Returns:
        N pictures (H, W) uint8, as small as that or enlarged by one of the usual filters.

    >>> len(lower_resolution(np.full((2, 28, 28), 255, np.uint8), np.random.default_rng(0)))
    2
    """
    names = ("NEAREST", "BOX", "BILINEAR", "BICUBIC", "LANCZOS")
    filters = [Image.Resampling[name] for name in names]
    pictures = []
    for ink in inks:
        image = Image.fromarray(ink)
        box = image.point(lambda value: 255 * (value > 40)).getbbox() or (4, 4, 24, 24)
        margin = int(rng.integers(0, 4))
        image = image.crop((box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin))
        height = int(rng.integers(7, 19, size=2).min())
        width = max(3, round(height * image.width / image.height))
        if rng.random() < 0.5:  # scans that fill a square, however narrow the digit is
            width = round(width + rng.uniform(0.3, 1.0) * (height - width))
        values = np.asarray(
            image.resize((width, height), filters[rng.integers(1, 4)]), dtype=np.float32
        )
        values = values * np.float32(255 / max(1.0, float(values.max())))
        shades = int(rng.choice([2, 2, 5, 17, 256]))
        if shades == 2:
            values = np.where(values > rng.uniform(70, 150), np.float32(255), np.float32(0))
        else:
            values = np.rint(values / 255 * (shades - 1)) * np.float32(255 / (shades - 1))
        small = Image.fromarray(np.rint(values).astype(np.uint8))
        if rng.random() < 0.6:
            factor = rng.uniform(1.5, 10)
            size = (round(width * factor), round(height * factor))
            small = small.resize(size, filters[rng.integers(len(filters))])
        edge = int(rng.integers(0, 3))
        picture = np.pad(np.asarray(small), edge)
        pictures.append(255 - picture if rng.random() < 0.3 else picture)
    return pictures


def canny(pictures: Floats, sigma: float) -> Mask:
    """Return edges one pixel wide (J. Canny, "A Computational Approach to Edge Detection", 1986).

    The steps are Gaussian smoothing, Sobel gradients, non-maximum suppression along the gradient,
    and hysteresis. The outermost pixels are never edges. Pictures are (N, 28, 28) float32, 0 to 1,
    and ``sigma`` of the smoothing is in pixels.

    >>> canny(np.ones((1, 28, 28), np.float32), 1.0).any()
    np.False_
    """
    # Beyond the border there is nothing: the weights inside are normalised to a sum of 1.
    weights = ndimage.gaussian_filter(np.ones((_SIDE, _SIDE)), sigma, mode="constant")
    blurred = ndimage.gaussian_filter(pictures, (0, sigma, sigma), mode="constant") / weights
    down, right = (
        ndimage.correlate1d(
            ndimage.correlate1d(blurred, (1, 2, 1), axis=across, mode="nearest"),
            (-1, 0, 1),
            axis=along,
            mode="nearest",
        )
        for along, across in ((1, 2), (2, 1))
    )
    height = np.hypot(down, right)
    weak = height >= CANNY_LOW
    weak[:, [0, -1]] = False
    weak[:, :, [0, -1]] = False
    picture, row, column = np.nonzero(weak)
    # One pixel along the gradient, in the direction in which it is steeper.
    steepest = np.maximum(np.abs(down[weak]), np.abs(right[weak]))
    dy, dx = down[weak] / steepest, right[weak] / steepest
    ahead, behind = (
        ndimage.map_coordinates(height, (picture, row + s * dy, column + s * dx), order=1)
        for s in (1, -1)
    )
    weak[weak] = height[weak] >= np.maximum(ahead, behind)
    # Pixels touch at sides or corners, inside one picture.
    structure = np.zeros((3, 3, 3), dtype=np.bool_)
    structure[1] = True
    components, count = ndimage.label(weak, structure)
    strong = np.zeros(count + 1, dtype=np.bool_)
    strong[components[weak & (height >= CANNY_HIGH)]] = True
    edges: Mask = strong[components]
    return edges


def _shot_noise(x: Floats, photons: float, rng: Rng) -> Floats:
    """Add Poisson noise, with that many photons for the darkest ink; the background has none."""
    noisy = np.zeros_like(x)
    inked = x > 0
    noisy[inked] = rng.poisson(x[inked] * photons) / photons
    return noisy


def _impulse_noise(x: Floats, share: float, rng: Rng) -> Floats:
    """Turn that share of the pixels into background or full ink, either as likely."""
    draw = rng.random(x.shape, dtype=np.float32)
    noisy = np.where(draw < share / 2, np.float32(0.0), x)
    return np.where(draw > 1 - share / 2, np.float32(1.0), noisy)


def _glass_blur(x: Floats, setting: tuple[float, int, int], rng: Rng) -> Floats:
    """Blur, swap pixels with neighbours, blur: (sigma, furthest swap, rounds)."""
    sigma, reach, rounds = setting
    n = len(x)
    # Position first: a swap then moves rows that lie together in memory.
    pixels = np.ascontiguousarray(_blur(x, sigma).reshape(n, -1).T)
    everyone = np.arange(n)
    for _ in range(rounds):
        for row in range(_SIDE - reach, reach, -1):
            # The pixel itself is drawn too, and half of the swaps are not made.
            draws = rng.integers(-reach, reach, size=(2, _SIDE - 2 * reach, n), dtype=np.int16)
            made = rng.random((_SIDE - 2 * reach, n), dtype=np.float32) < 0.5
            offsets = np.where(made, draws[0] * _SIDE + draws[1], 0)
            for step, column in enumerate(range(_SIDE - reach, reach, -1)):
                here = row * _SIDE + column
                there = here + offsets[step]
                swapped = pixels[there, everyone]
                pixels[there, everyone] = pixels[here]
                pixels[here] = swapped
    return _blur(np.ascontiguousarray(pixels.T).reshape(x.shape), sigma)


def _blur(x: Floats, sigma: float) -> Floats:
    blurred: Floats = ndimage.gaussian_filter(x, (0, sigma, sigma), mode="nearest")
    return blurred


def _motion_blur(x: Floats, setting: tuple[int, float], rng: Rng) -> Floats:
    """Smear along a line within 45° of the horizontal: (radius, sigma) of half a Gaussian."""
    radius, sigma = setting
    # Beyond four deviations there is nothing that a byte would show.
    length = min(2 * radius, math.ceil(4 * sigma)) + 1
    weights = np.exp(-0.5 * np.square(np.arange(length) / sigma))
    weights /= weights.sum()
    angles = rng.uniform(-math.pi / 4, math.pi / 4, (len(x), 1))
    pictures, grid = np.arange(len(x))[:, None, None], np.arange(_SIDE)
    smeared = np.zeros_like(x)
    for step, weight in enumerate(weights.astype(np.float32)):
        # Whole pixels; beyond the border the outermost pixel repeats.
        offsets = np.rint(step * np.sin(angles)), np.rint(step * np.cos(angles))
        rows, columns = (np.clip(grid + o.astype(np.intp), 0, _SIDE - 1) for o in offsets)
        smeared += weight * x[pictures, rows[:, :, None], columns[:, None]]
    return smeared


def _shear(x: Floats, angle: float, rng: Rng) -> Floats:
    """Slant by that angle (radians), either way, and stretch the height by 1 / cos of it."""
    sin, cos = math.sin(angle), math.cos(angle)
    return _either_way(x, rng, lambda sign: ((1.0, -sign * sin), (0.0, cos)))


def _rotate(x: Floats, angle: float, rng: Rng) -> Floats:
    """Rotate by that angle (radians), either way."""
    sin, cos = math.sin(angle), math.cos(angle)
    return _either_way(x, rng, lambda sign: ((cos, -sign * sin), (sign * sin, cos)))


def _either_way(x: Floats, rng: Rng, matrix: Callable[[int], Matrix]) -> Floats:
    """Warp each picture by ``matrix(1)`` or ``matrix(-1)``, either as likely."""
    positive = rng.random(len(x)) < 0.5
    changed = np.empty_like(x)
    for sign, members in ((1, positive), (-1, ~positive)):
        changed[members] = _warp(x[members], matrix(sign))
    return changed


def _warp(x: Floats, matrix: Matrix) -> Floats:
    """Resample bilinearly: pixel p is read at ``matrix @ (p - centre) + centre``, p = (x, y)."""
    (xx, xy), (yx, yy) = matrix
    # Axes are picture, row and column; whatever lies beyond the picture is background.
    turn = np.array([[1, 0, 0], [0, yy, yx], [0, xy, xx]])
    centre = np.array([0, (_SIDE - 1) / 2, (_SIDE - 1) / 2])
    offset = centre - turn @ centre
    warped: Floats = ndimage.affine_transform(x, turn, offset, order=1, mode="grid-constant")
    return warped


def _translate(x: Floats, pixels: int, rng: Rng) -> Floats:
    """Move by that many pixels on both axes, each either way; what leaves is lost."""
    padded = np.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels)))
    moved, directions = np.empty_like(x), rng.integers(4, size=len(x))
    for direction in range(4):
        top, left = 2 * pixels * (direction // 2), 2 * pixels * (direction % 2)
        members = directions == direction
        moved[members] = padded[members, top : top + _SIDE, left : left + _SIDE]
    return moved


def _stripe(x: Floats, width: int, _: Rng) -> Floats:
    """Invert that many columns at the left and as many at the right."""
    striped = x.copy()
    for edge in (slice(None, width), slice(_SIDE - width, None)):
        striped[:, :, edge] = 1 - striped[:, :, edge]
    return striped


def _spatter(x: Floats, setting: tuple[float, float, float, float, float], rng: Rng) -> Floats:
    """Add mud: (mean, deviation, sigma) of noise, the height that is mud, sigma of its edge."""
    mean, deviation, sigma, height, edge = setting
    noise = rng.standard_normal(x.shape, dtype=np.float32) * np.float32(deviation)
    mud = _blur((_blur(noise, sigma) > height - mean).astype(np.float32), edge)
    mud[mud < 0.8] = 0.0
    # Mud is a dark grey, a quarter of full ink, and hides what is below.
    return x * (1 - mud) + np.float32(63 / 255) * mud


def _fog(x: Floats, setting: tuple[float, float], rng: Rng) -> Floats:
    """Add fractal fog: (strength, factor by which finer detail is fainter)."""
    strength, decay = setting
    peak = x.max(axis=(1, 2), keepdims=True)
    foggy: Floats = x + np.float32(strength) * fog(len(x), decay, rng)
    foggy *= peak / (peak + np.float32(strength))
    return foggy


def _add_lines(
    lines: Callable[[], Floats], x: Floats, setting: tuple[int, float], rng: Rng
) -> Floats:
    """Add (how many, how dark) of the (K, 28, 28) ``lines``."""
    count, darkness = setting
    for _ in range(count):
        drawn = lines()[rng.integers(len(lines()), size=len(x))]
        x = np.minimum(x + np.float32(darkness) * drawn, 1)
    return x


def _canny_edges(x: Floats, setting: tuple[float, float], _: Rng) -> Floats:
    """Replace strokes by edges: (share of the stroke that stays, sigma of the smoothing)."""
    stays, sigma = setting
    edges: Floats = np.maximum(canny(x, sigma).astype(np.float32), np.float32(stays) * x)
    return edges


@dataclass(frozen=True, slots=True)
class _Corruption:
    apply: Callable[[Floats, Any, Rng], Floats]
    settings: tuple[Any, Any, Any, Any, Any]  # one a severity
    mnist_c: int  # the severity that MNIST-C has


_ANGLES = (0.2, 0.4, 0.6, 0.8, 1.0)
_LINES = ((1, 0.5), (1, 0.75), (1, 1.0), (2, 1.0), (3, 1.0))
_CORRUPTIONS = {
    "shot_noise": _Corruption(_shot_noise, (60, 25, 12, 5, 3), 5),
    "impulse_noise": _Corruption(_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27), 4),
    "glass_blur": _Corruption(
        _glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)), 1
    ),
    "motion_blur": _Corruption(_motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), 1),
    "shear": _Corruption(_shear, _ANGLES, 2),
    "scale": _Corruption(
        lambda x, f, _: _warp(x, ((1 / f, 0), (0, 1 / f))), (0.9, 0.8, 0.7, 0.6, 0.5), 3
    ),
    "rotate": _Corruption(_rotate, _ANGLES, 2),
    "brightness": _Corruption(
        lambda x, amount, _: x + np.float32(amount), (0.1, 0.2, 0.3, 0.4, 0.5), 5
    ),
    "translate": _Corruption(_translate, (1, 2, 3, 4, 5), 3),
    "stripe": _Corruption(_stripe, (3, 5, 7, 8, 9), 3),
    "fog": _Corruption(_fog, ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)), 5),
    "spatter": _Corruption(
        _spatter,
        (
            (0.65, 0.3, 4, 0.69, 0.6),
            (0.65, 0.3, 3, 0.68, 0.6),
            (0.65, 0.3, 2, 0.68, 0.5),
            (0.65, 0.3, 1, 0.65, 1.5),
            (0.67, 0.4, 1, 0.65, 1.5),
        ),
        4,
    ),
    "dotted_line": _Corruption(partial(_add_lines, dotted_lines), _LINES, 3),
    "zigzag": _Corruption(partial(_add_lines, zigzags), _LINES, 3),
    "canny_edges": _Corruption(
        _canny_edges, ((0.6, 1.0), (0.3, 1.0), (0.0, 1.0), (0.0, 1.4), (0.0, 1.8)), 3
    ),
}
FAMILIES = tuple(_CORRUPTIONS)
MNIST_C_SEVERITY = {name: corruption.mnist_c for name, corruption in _CORRUPTIONS.items()}
