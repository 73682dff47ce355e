"""What a camera, a scanner and a file format do to a picture, and to where its ink is."""

from __future__ import annotations

import io
import math
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageFilter

from inkdigits.data.pictures.writing import Bounds, Writing
from inkdigits.data.pixels import enlarge, to_bytes
from inkdigits.types import Floats, Rng

Captured: TypeAlias = tuple[Image.Image, Floats, list[Bounds]]
"""A picture of shades, the coverage of its ink, and the boxes of its digits."""


def capture(surface: Floats, written: Writing, contrast: float, rng: Rng) -> Captured:
    """Turn, reduce, blur and compress a surface (H, W), and add noise, each sometimes.

    ``contrast`` is that of ink and paper: noise is less where there is little.

    >>> empty = Writing(np.zeros((60, 60), np.float32), np.zeros((60, 60), np.float32), [], 30.0)
    >>> page, rng = np.full((60, 60), 200, np.float32), np.random.default_rng(0)
    >>> capture(page, empty, 99.0, rng)[0].mode
    'L'
    """
    chance, ink, boxes = rng.random, written.ink, written.boxes
    image = Image.fromarray(np.clip(surface, 0, 255))
    if chance() < 0.08:
        image, ink, boxes = turn(image, ink, boxes, rng)
    if chance() < 0.22:
        image, ink, boxes = _reduced(image, ink, boxes, written.height, rng)
    values = np.array(image)
    if chance() < 0.65:
        sigma = rng.uniform(0.5, 5 if contrast < 40 else 11)
        values += rng.standard_normal(values.shape, np.float32) * np.float32(sigma)
    elif chance() < 0.35 and contrast > 50:  # a webcam in little light
        shape = (values.shape[0], values.shape[1])
        coarse = rng.standard_normal((shape[0] // 2 + 1, shape[1] // 2 + 1), np.float32)
        values += enlarge(coarse, shape) * np.float32(rng.uniform(4, 16))
        values += rng.standard_normal(shape, np.float32) * np.float32(rng.uniform(4, 16))
    image = Image.fromarray(to_bytes(values))
    if chance() < 0.35:
        reach = 0.008 * max(values.shape)
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, max(0.6, reach))))
    if chance() < 0.1:
        image = image.filter(
            ImageFilter.UnsharpMask(rng.uniform(0.6, 2), int(rng.uniform(50, 200)))
        )
    if chance() < 0.45:
        image = compress(image, rng)
    return image, ink, boxes


def compress(image: Image.Image, rng: Rng) -> Image.Image:
    """Return a grey picture after JPEG of any quality.

    >>> compress(Image.new("L", (30, 20)), np.random.default_rng(0)).size
    (30, 20)
    """
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(25, 92)))
    return Image.open(file).convert("L")


def _reduced(
    image: Image.Image, ink: Floats, boxes: list[Bounds], height: float, rng: Rng
) -> Captured:
    """Reduce it to 24 to 72 pixels, but its digits to no less than 12."""
    scale = max(rng.uniform(24, 72) / max(image.size), 12 / height)
    if scale >= 1:
        return image, ink, boxes
    size = (max(8, round(image.width * scale)), max(8, round(image.height * scale)))
    x, y = size[0] / image.width, size[1] / image.height
    smaller = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BOX))
    moved = [(b[0] * x, b[1] * y, b[2] * x, b[3] * y) for b in boxes]
    return image.resize(size, Image.Resampling.BOX), smaller, moved


def turn(image: Image.Image, ink: Floats, boxes: list[Bounds], rng: Rng) -> Captured:
    """Turn a picture, with black, white or grey corners, or add bands along its sides.

    >>> ink = np.zeros((20, 30), np.float32)
    >>> turned, covered, _ = turn(Image.new("L", (30, 20)), ink, [], np.random.default_rng(0))
    >>> turned.size == covered.shape[::-1]
    True
    """
    fill = int(rng.choice([0, 0, 0, 255, 30, 128]))
    width, height = image.size
    if rng.random() < 0.6:
        degrees = rng.uniform(3, 35) * rng.choice([-1, 1])
        whole, method = bool(rng.random() < 0.5), Image.Resampling.BILINEAR
        turned = image.rotate(degrees, method, expand=whole, fillcolor=fill)
        covered = np.asarray(Image.fromarray(ink).rotate(degrees, method, expand=whole))
        angle = math.radians(degrees)
        cosine, sine = math.cos(angle), math.sin(angle)
        moved = []
        for left, top, right, bottom in boxes:
            x, y = (left + right - width) / 2, (top + bottom - height) / 2
            x, y = x * cosine + y * sine, y * cosine - x * sine
            x, y = x + covered.shape[1] / 2, y + covered.shape[0] / 2
            rows, columns = (bottom - top) / 2, (right - left) / 2
            moved.append((x - columns, y - rows, x + columns, y + rows))
        return turned, covered, moved
    left, top, right, bottom = (int(v) for v in rng.uniform(0, 0.15, 4) * max(width, height))
    framed = Image.new(image.mode, (width + left + right, height + top + bottom), fill)
    framed.paste(image, (left, top))
    moved = [(b[0] + left, b[1] + top, b[2] + left, b[3] + top) for b in boxes]
    return framed, np.pad(ink, ((top, bottom), (left, right))), moved
