"""Digits in a scene: a sheet on a table, a note on a wall, a small digit on a page.

They are for reports and tests; training does not use them. They measure preprocessing beyond
``photos``, where paper fills the picture and a digit has at least 30 % of its height.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from inkdigits.data.pixels import check_inks, enlarge, to_bytes
from inkdigits.types import Floats, Ink, Pixels, Rng

Scene: TypeAlias = Literal["table", "note", "page"]
SCENES: tuple[Scene, ...] = get_args(Scene)


def photograph_scenes(inks: Ink, rng: Rng, scene: Scene | None = None) -> list[Pixels]:
    """Photograph each digit in a scene, 400 to 700 pixels the longer side; empty ink leaves it out.

    "table" is a sheet on a darker table, which shows on two sides or more; "note" a small sheet
    that the digit fills, on a wall; "page" paper that fills the picture, in uneven light, with a
    digit of 8 to 20 % of its shorter side. None draws one per digit.

    >>> len(photograph_scenes(np.zeros((2, 28, 28), np.uint8), np.random.default_rng(0)))
    2
    """
    check_inks(inks)
    return [_scene(ink, scene or SCENES[rng.integers(len(SCENES))], rng) for ink in inks]


def _scene(ink: Ink, scene: Scene, rng: Rng) -> Pixels:
    longer = int(rng.integers(400, 701))
    shorter = round(longer * rng.uniform(0.7, 1.0))
    width, height = (shorter, longer) if rng.random() < 0.5 else (longer, shorter)
    paper = rng.uniform(185, 245)
    pen = rng.uniform(20, 0.5 * paper)
    surface = np.full((height, width), paper, dtype=np.float32)
    share = {"table": (0.15, 0.45), "note": (0.3, 0.5), "page": (0.08, 0.2)}[scene]
    size = round(min(height, width) * rng.uniform(*share))
    room = 0.3 * size if scene == "note" else 0.12 * min(height, width)
    left = rng.uniform(room, width - size - room)
    top = rng.uniform(room, height - size - room)
    if scene != "page":
        behind = _around(scene, paper, (height, width), rng)
        box = (left, top, left + size, top + size)
        sheet = _sheet(scene, box, (height, width), rng)
        surface += (1 - sheet) * (behind - surface)
    y, x = round(top), round(left)
    stroke = _stroke(ink, size, rng)
    part = surface[y : y + size, x : x + size]
    part += stroke * (np.float32(pen) - part)
    surface *= _light((height, width), rng)
    surface += rng.standard_normal(surface.shape, dtype=np.float32) * rng.uniform(1, 5)
    image = Image.fromarray(to_bytes(surface))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2))))


def _stroke(ink: Ink, size: int, rng: Rng) -> Floats:
    """Return (size, size) float32, how much of each pixel the pen covers."""
    image = Image.fromarray(ink).resize((size, size), Image.Resampling.BICUBIC)
    image = image.rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR)
    values = np.asarray(image, dtype=np.float32) / 255
    # Enlarging leaves ramps where a pen has edges.
    covered: Floats = np.clip((values - 0.4) * max(1.0, size / 28) + 0.5, 0, 1)
    return covered if ink.any() else np.zeros_like(values)


def _around(scene: Scene, paper: float, shape: tuple[int, int], rng: Rng) -> Floats:
    """Return what the sheet lies on: a table with its grain, or a wall."""
    shade = np.float32(
        paper * (rng.uniform(0.4, 0.8) if scene == "note" else rng.uniform(0.2, 0.7))
    )
    if scene == "note":
        coarse = rng.standard_normal((shape[0] // 8 + 1, shape[1] // 8 + 1), dtype=np.float32)
        return shade + np.float32(4) * enlarge(coarse, shape)
    along = rng.standard_normal((1, shape[1]), dtype=np.float32).repeat(shape[0], axis=0)
    return shade + np.float32(0.06) * shade * along


def _sheet(
    scene: Scene, box: tuple[float, float, float, float], shape: tuple[int, int], rng: Rng
) -> Floats:
    """Return (H, W) float32, 1 on the sheet: four straight sides around the digit's box."""
    height, width = shape
    left, top, right, bottom = box
    if scene == "table":
        # How far the sheet extends beyond the digit; farther than the picture on two sides.
        limits = [left, top, width - right, height - bottom]
        far = [limit * rng.uniform(0.4, 0.9) for limit in limits]
        for side in rng.permutation(4)[:2]:
            far[side] = limits[side] * 1.5 + 0.1 * max(shape)
    else:
        far = [(right - left) * rng.uniform(0.12, 0.3) for _ in range(4)]
    west, north, east, south = left - far[0], top - far[1], right + far[2], bottom + far[3]
    corners = np.array([(west, north), (east, north), (east, south), (west, south)])
    corners += rng.uniform(-0.04, 0.04, corners.shape) * (right - left)
    angle = math.radians(rng.uniform(-8, 8))
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    corners = (corners - middle) @ turn + middle
    mask = Image.new("L", (2 * width, 2 * height), 0)
    ImageDraw.Draw(mask).polygon([(2 * x, 2 * y) for x, y in corners.tolist()], fill=255)
    covered: Floats = np.asarray(mask.reduce(2)).astype(np.float32) / np.float32(255)
    return covered


def _light(shape: tuple[int, int], rng: Rng) -> Floats:
    """Return a lamp's light, brighter to one side and darker towards the picture's corners."""
    y = np.linspace(-0.5, 0.5, shape[0], dtype=np.float32)[:, np.newaxis]
    x = np.linspace(-0.5, 0.5, shape[1], dtype=np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    light = 1 + np.float32(rng.uniform(0, 0.5)) * (math.cos(angle) * x + math.sin(angle) * y)
    light *= 1 - np.float32(rng.uniform(0, 1.2)) * (x * x + y * y)
    return np.asarray(light / light.max(), dtype=np.float32)
