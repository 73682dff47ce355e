"""Pixel arithmetic that the generators of pictures share."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from inkdigits.types import Floats, Pixels, Rng

Coverage: TypeAlias = npt.NDArray[np.floating]
"""(H, W); how much of each pixel the pen covers: 0 is background, 1 is ink."""


def to_bytes(shades: npt.NDArray[np.floating]) -> Pixels:
    """Round shades and limit them to 0 to 255.

    >>> to_bytes(np.array([-3.0, 99.6, 300.0])).tolist()
    [0, 100, 255]
    """
    pixels: Pixels = np.clip(np.rint(shades), 0, 255).astype(np.uint8)
    return pixels


def enlarge(
    coarse: npt.NDArray[np.floating],
    shape: tuple[int, int],
    kernel: Image.Resampling = Image.Resampling.BILINEAR,
) -> Floats:
    """Resample a coarse picture to (H, W), smoothly.

    >>> enlarge(np.ones((2, 2)), (4, 6)).shape
    (4, 6)
    """
    image = Image.fromarray(coarse.astype(np.float32))
    return np.asarray(image.resize(shape[::-1], kernel))


def blend_ink(coverage: Coverage, rng: Rng) -> Pixels:
    """Blend ink over a background, either being the darker, with a little noise sometimes.

    >>> blend_ink(np.eye(28), np.random.default_rng(0)).shape
    (28, 28)
    """
    dark, light = rng.uniform(0, 80), rng.uniform(190, 255)
    if rng.random() < 0.5:  # a clean canvas
        dark, light = 0.0, 255.0
    background, pen = (light, dark) if rng.random() < 0.7 else (dark, light)
    picture = background + (pen - background) * coverage
    if rng.random() < 0.4:
        picture = picture + rng.normal(0, rng.uniform(0.5, 4), coverage.shape)
    return to_bytes(picture)
