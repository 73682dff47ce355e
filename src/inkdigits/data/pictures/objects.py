"""What lies on paper and is no ink: pens, coins, clips, fingers, cables, other sheets."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from inkdigits.data.pen_strokes import spline
from inkdigits.data.pictures.writing import Bounds
from inkdigits.data.pixels import enlarge
from inkdigits.types import Floats, Rng


def lay_objects(surface: Floats, box: Bounds | None, rng: Rng) -> None:
    """Lay pens, coins, clips, fingers, cables and corners of other sheets beside the digit's box.

    >>> page = np.full((60, 60), 250, np.float32)
    >>> lay_objects(page, None, np.random.default_rng(0))
    >>> bool((page != 250).any())
    True
    """
    height, width = surface.shape
    for _ in range(rng.integers(1, 4)):
        covered = _object(height, width, rng)
        if box is not None:
            margin = int(0.04 * max(height, width)) + 2
            rows = slice(max(0, int(box[1]) - margin), int(box[3]) + margin)
            columns = slice(max(0, int(box[0]) - margin), int(box[2]) + margin)
            if covered[rows, columns].max(initial=0) > 0.05:
                continue
        if rng.random() < 0.4:
            covered = covered * (0.75 + 0.25 * enlarge(rng.random((5, 5)), (height, width)))
        surface += covered * (np.float32(rng.uniform(10, 245)) - surface)


def _object(height: int, width: int, rng: Rng) -> Floats:
    longer = max(height, width)
    image = Image.new("L", (width, height))
    canvas = ImageDraw.Draw(image)
    x, y = rng.uniform(-0.1, 1.1) * width, rng.uniform(-0.1, 1.1) * height
    look = rng.integers(5)
    if look == 0:
        angle, reach = rng.uniform(0, math.pi), longer * rng.uniform(0.15, 0.9) / 2
        dx, dy = math.cos(angle) * reach, math.sin(angle) * reach
        wide = max(3, round(longer * rng.uniform(0.03, 0.08)))
        canvas.line([(x - dx, y - dy), (x + dx, y + dy)], fill=255, width=wide)
        # Light along the middle: a bar of one shade is a 1.
        canvas.line([(x - dx, y - dy), (x + dx, y + dy)], fill=120, width=max(1, wide // 3))
    elif look in (1, 2):
        radius = longer * (rng.uniform(0.03, 0.2) if look == 1 else rng.uniform(0.1, 0.3))
        flat = radius * rng.uniform(0.5, 1)
        canvas.ellipse((x - radius, y - flat, x + radius, y + flat), fill=255)
        if look == 2:
            image = image.filter(ImageFilter.GaussianBlur(longer * 0.03))
    elif look == 3:
        points = np.cumsum(rng.normal(0, 0.12 * longer, (6, 2)), axis=0) + np.array((x, y))
        wide = max(2, round(longer * rng.uniform(0.012, 0.04)))
        canvas.line([(a, b) for a, b in spline(points).tolist()], fill=255, width=wide)
    else:
        corners = rng.uniform(0, 0.35 * longer, (4, 2)) + np.array((x, y))
        canvas.polygon([(a, b) for a, b in corners.tolist()], fill=255)
    return np.asarray(image, np.float32) / np.float32(255)
