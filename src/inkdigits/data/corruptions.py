"""The fifteen corruptions of MNIST-C, on whole batches, in five severities. NumPy only.

N. Mu and J. Gilmer, "MNIST-C: A Robustness Benchmark for Computer Vision", arXiv:1906.02337,
2019; eleven of them are D. Hendrycks and T. Dietterich's ("Benchmarking Neural Network Robustness
to Common Corruptions and Perturbations", ICLR 2019) or take their five severities from there. The
figures below are those of the MNIST-C repository (github.com/google-research/mnist-c), and
``MNIST_C_SEVERITY`` says which severity its published files have. Stripe, dotted line, zigzag and
Canny edges have one setting there: it is severity 3 here, and the others are ours.

It is an implementation from the description, not the published files: random draws differ, and so
do libraries' roundings. One difference is known: by its code, the published glass blur smooths
along columns only (the library took a grey picture's rows for colour channels); this one smooths
both ways, as described, which is harder.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inkdigits.data.canny import canny, gaussian_matrix, smooth
from inkdigits.data.overlays import dotted_lines, fog, zigzags
from inkdigits.data.pixels import check_inks
from inkdigits.errors import ConfigError
from inkdigits.types import Floats, Ink, Rng

SIDE = 28
SEVERITIES = (1, 2, 3, 4, 5)
# Pictures that are changed together: more gains nothing and takes memory.
CHUNK = 1000


def corrupt(inks: Ink, family: str, severity: int, rng: Rng) -> Ink:
    """A corrupted copy of each picture; each draws its own randomness.

    Args:
        inks: (N, 28, 28) uint8, MNIST's way: 0 is paper, 255 is ink.
        family: one of ``FAMILIES``.
        severity: 1 (mild) to 5; MNIST-C's own is ``MNIST_C_SEVERITY[family]``.
        rng: the only source of randomness.

    Returns:
        (N, 28, 28) uint8.

    Raises:
        DataError: pictures of another shape or type.
        ConfigError: an unknown family or severity.
    """
    check_inks(inks)
    if family not in _CORRUPTIONS:
        raise ConfigError(f"family is {family!r}; it must be one of {', '.join(FAMILIES)}")
    if severity not in SEVERITIES:
        raise ConfigError(f"severity is {severity!r}; it must be a whole number from 1 to 5")
    corruption = _CORRUPTIONS[family]
    setting = corruption.settings[severity - 1]
    changed = np.empty_like(inks)
    for start in range(0, len(inks), CHUNK):
        part = inks[start : start + CHUNK].astype(np.float32) / np.float32(255.0)
        result = np.clip(corruption.apply(part, setting, rng), 0.0, 1.0)
        changed[start : start + CHUNK] = np.rint(result * np.float32(255.0))
    return changed


def corrupt_mildly(inks: Ink, rng: Rng) -> Ink:
    """A copy of each picture, corrupted by one of the families in severity 1.

    The families take as many pictures each as they can, drawn by ``rng``.

    Args:
        inks: (N, 28, 28) uint8, MNIST's way: 0 is paper, 255 is ink.
        rng: the only source of randomness.

    Returns:
        (N, 28, 28) uint8.

    Raises:
        DataError: pictures of another shape or type.
    """
    changed = np.empty_like(inks)
    families = rng.permutation(len(inks)) % len(FAMILIES)
    for index, family in enumerate(FAMILIES):
        chosen = families == index
        changed[chosen] = corrupt(inks[chosen], family, SEVERITIES[0], rng)
    return changed


def _shot_noise(x: Floats, photons: float, rng: Rng) -> Floats:
    """Poisson noise, with that many photons for the darkest ink; paper has none."""
    noisy = np.zeros_like(x)
    inked = x > 0
    noisy[inked] = rng.poisson(x[inked] * photons) / photons
    return noisy


def _impulse_noise(x: Floats, share: float, rng: Rng) -> Floats:
    """That share of the pixels becomes paper or full ink, either as likely."""
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
        for row in range(SIDE - reach, reach, -1):
            # The pixel itself is drawn too, and half of the swaps aren't made.
            draws = rng.integers(-reach, reach, size=(2, SIDE - 2 * reach, n), dtype=np.int16)
            made = rng.random((SIDE - 2 * reach, n), dtype=np.float32) < 0.5
            offsets = np.where(made, draws[0] * SIDE + draws[1], 0)
            for step, column in enumerate(range(SIDE - reach, reach, -1)):
                here = row * SIDE + column
                there = here + offsets[step]
                taken = pixels[there, everyone]
                pixels[there, everyone] = pixels[here]
                pixels[here] = taken
    return _blur(np.ascontiguousarray(pixels.T).reshape(x.shape), sigma)


def _blur(x: Floats, sigma: float) -> Floats:
    return smooth(x, gaussian_matrix(sigma))


def _motion_blur(x: Floats, setting: tuple[int, float], rng: Rng) -> Floats:
    """Smear along a line within 45° of the horizontal: (radius, sigma) of half a Gaussian."""
    radius, sigma = setting
    # Beyond four deviations there is nothing that a byte would show.
    length = min(2 * radius, math.ceil(4 * sigma)) + 1
    weights = np.exp(-0.5 * np.square(np.arange(length) / sigma))
    weights /= weights.sum()
    angles = rng.uniform(-math.pi / 4, math.pi / 4, len(x))
    padded = np.pad(x, ((0, 0), (length, length), (length, length)), mode="edge")
    smeared = np.zeros_like(x)
    for step, weight in enumerate(weights.astype(np.float32)):
        # Whole pixels, so pictures whose angles give the same ones are moved together.
        across = np.rint(step * np.cos(angles)).astype(np.int64)
        down = np.rint(step * np.sin(angles)).astype(np.int64)
        for a, d in np.unique(np.stack([across, down], axis=1), axis=0).tolist():
            members = np.flatnonzero((across == a) & (down == d))
            top, left = length + d, length + a
            moved = padded[members, top : top + SIDE, left : left + SIDE]
            smeared[members] += weight * moved
    return smeared


def _shear(x: Floats, angle: float, rng: Rng) -> Floats:
    """Slant by that angle (radians), either way, and stretch the height by 1 / cos of it."""
    return _either_way(
        x, rng, lambda sign: ((1.0, -math.sin(sign * angle)), (0.0, math.cos(angle)))
    )


def _rotate(x: Floats, angle: float, rng: Rng) -> Floats:
    """Turn by that angle (radians), either way."""

    def matrix(sign: int) -> Matrix:
        sin, cos = math.sin(sign * angle), math.cos(angle)
        return (cos, -sin), (sin, cos)

    return _either_way(x, rng, matrix)


def _scale(x: Floats, factor: float, _: Rng) -> Floats:
    """Shrink about the centre by that factor."""
    return _warp(x, ((1 / factor, 0.0), (0.0, 1 / factor)))


Matrix = tuple[tuple[float, float], tuple[float, float]]


def _either_way(x: Floats, rng: Rng, matrix: Callable[[int], Matrix]) -> Floats:
    positive: npt.NDArray[np.bool_] = rng.random(len(x)) < 0.5
    changed = np.empty_like(x)
    changed[positive] = _warp(x[positive], matrix(1))
    changed[~positive] = _warp(x[~positive], matrix(-1))
    return changed


def _warp(x: Floats, matrix: Matrix) -> Floats:
    """Bilinear resampling: pixel p is read at ``matrix @ (p - centre) + centre``, p = (x, y)."""
    centre = (SIDE - 1) / 2
    offset = np.arange(SIDE) - centre
    (xx, xy), (yx, yy) = matrix
    column = xx * offset[None, :] + xy * offset[:, None] + centre
    row = yx * offset[None, :] + yy * offset[:, None] + centre
    # Two pixels of paper on each side take whatever is read from beyond the picture.
    row, column = (np.clip(v, -1.5, SIDE + 0.5) + 2 for v in (row, column))
    top, left = np.floor(row).astype(np.intp), np.floor(column).astype(np.intp)
    down, right = (row - top).astype(np.float32), (column - left).astype(np.float32)
    wide = SIDE + 4
    # Position first, (1024, N): a pixel of all pictures lies together, and is moved at once.
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2))).reshape(len(x), wide * wide).T.copy()
    warped = np.zeros((SIDE * SIDE, len(x)), dtype=np.float32)
    for dy, vertical in ((0, 1 - down), (1, down)):
        for dx, horizontal in ((0, 1 - right), (1, right)):
            weight = (vertical * horizontal).reshape(-1, 1)
            warped += weight * padded[((top + dy) * wide + left + dx).ravel()]
    return warped.T.reshape(x.shape)


def _translate(x: Floats, pixels: int, rng: Rng) -> Floats:
    """Move by that many pixels on both axes, each either way; what leaves is lost."""
    padded = np.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels)))
    ways = rng.integers(4, size=len(x))
    moved = np.empty_like(x)
    for way in range(4):
        top, left = 2 * pixels * (way // 2), 2 * pixels * (way % 2)
        moved[ways == way] = padded[ways == way, top : top + SIDE, left : left + SIDE]
    return moved


def _brightness(x: Floats, amount: float, _: Rng) -> Floats:
    """Lighten everything by that much, paper too."""
    return x + np.float32(amount)


def _stripe(x: Floats, width: int, _: Rng) -> Floats:
    """Invert that many columns at the left and as many at the right."""
    striped = x.copy()
    for edge in (slice(None, width), slice(SIDE - width, None)):
        striped[:, :, edge] = 1 - striped[:, :, edge]
    return striped


def _fog(x: Floats, setting: tuple[float, float], rng: Rng) -> Floats:
    """Add fractal fog: (strength, factor by which finer detail is fainter)."""
    strength, decay = setting
    peak = x.max(axis=(1, 2), keepdims=True)
    foggy: Floats = x + np.float32(strength) * fog(len(x), decay, rng)
    foggy *= peak / (peak + np.float32(strength))
    return foggy


def _spatter(x: Floats, setting: tuple[float, float, float, float, float], rng: Rng) -> Floats:
    """Mud: (mean, deviation, sigma) of smooth noise, the height that is mud, sigma of its edge."""
    mean, deviation, sigma, height, edge = setting
    noise = rng.standard_normal(x.shape, dtype=np.float32) * np.float32(deviation)
    mud = _blur((_blur(noise, sigma) > height - mean).astype(np.float32), edge)
    mud[mud < 0.8] = 0.0
    # Mud is a dark grey, a quarter of full ink, and hides what is below.
    return x * (1 - mud) + np.float32(63 / 255) * mud


def _lines(x: Floats, setting: tuple[int, float], rng: Rng, drawn: Floats) -> Floats:
    """Add (how many, how dark) of the lines ``drawn``, (K, 28, 28)."""
    count, darkness = setting
    for _ in range(count):
        x = np.minimum(x + np.float32(darkness) * drawn[rng.integers(len(drawn), size=len(x))], 1)
    return x


def _dotted_line(x: Floats, setting: tuple[int, float], rng: Rng) -> Floats:
    return _lines(x, setting, rng, dotted_lines())


def _zigzag(x: Floats, setting: tuple[int, float], rng: Rng) -> Floats:
    return _lines(x, setting, rng, zigzags())


def _canny_edges(x: Floats, setting: tuple[float, float], _: Rng) -> Floats:
    """Edges instead of strokes: (share of the stroke that stays, sigma of the smoothing)."""
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
    "scale": _Corruption(_scale, (0.9, 0.8, 0.7, 0.6, 0.5), 3),
    "rotate": _Corruption(_rotate, _ANGLES, 2),
    "brightness": _Corruption(_brightness, (0.1, 0.2, 0.3, 0.4, 0.5), 5),
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
    "dotted_line": _Corruption(_dotted_line, _LINES, 3),
    "zigzag": _Corruption(_zigzag, _LINES, 3),
    "canny_edges": _Corruption(
        _canny_edges, ((0.6, 1.0), (0.3, 1.0), (0.0, 1.0), (0.0, 1.4), (0.0, 1.8)), 3
    ),
}
FAMILIES = tuple(_CORRUPTIONS)
MNIST_C_SEVERITY = {name: corruption.mnist_c for name, corruption in _CORRUPTIONS.items()}
