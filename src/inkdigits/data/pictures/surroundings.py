"""What paper is made of, lies on and is lit by: grain, edges, a table or a wall, light, shadows.

Light multiplies shades. No figure here is fitted to data: they cover the pictures that phones take.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from inkdigits.data.pixels import enlarge
from inkdigits.types import Floats, Rng

Scene: TypeAlias = Literal["table", "note"]


def grain_of(shape: tuple[int, int], rng: Rng) -> Floats:
    """Return the grain of paper: about standard normal values (H, W), in grains of 1 to 4 pixels.

    >>> grain_of((20, 30), np.random.default_rng(0)).shape
    (20, 30)
    """
    size = rng.uniform(1, 4)
    coarse = (max(2, int(shape[0] / size)), max(2, int(shape[1] / size)))
    return enlarge(rng.standard_normal(coarse, dtype=np.float32), shape) * np.float32(1.4)


def light_of(shape: tuple[int, int], rng: Rng) -> Floats:
    """Return uneven light: a factor (H, W), at most about 1.

    >>> bool(light_of((20, 30), np.random.default_rng(0)).max() <= 1)
    True
    """
    strength = rng.uniform(0.1, 0.65)
    look = rng.integers(3)
    if look == 0:
        along = _along(shape, rng.uniform(0, 2 * math.pi))
        along = along - along.min()
        factor = along / np.float32(max(1e-6, float(along.max())))
    elif look == 1:
        y = (np.arange(shape[0], dtype=np.float32) / shape[0] - rng.uniform(0.2, 0.8)) ** 2
        x = (np.arange(shape[1], dtype=np.float32) / shape[1] - rng.uniform(0.2, 0.8)) ** 2
        factor = (y[:, np.newaxis] + x) / np.float32(0.8)
    else:
        cells = int(rng.integers(2, 5))
        factor = enlarge(rng.random((cells, cells)), shape, Image.Resampling.BICUBIC)
    light: Floats = 1 - np.float32(strength) * np.clip(factor, 0, 1)
    return light


def shadow_of(shape: tuple[int, int], rng: Rng) -> Floats:
    """Return the edge of a shadow across a picture: a factor (H, W), at most 1.

    >>> bool(shadow_of((20, 30), np.random.default_rng(0)).max() <= 1)
    True
    """
    along = _along(shape, rng.uniform(0, 2 * math.pi))
    edge = rng.uniform(float(along.min()), float(along.max()))
    soft = max(shape) * rng.uniform(0.01, 0.12)
    lit = np.clip((along - np.float32(edge)) / np.float32(soft) + np.float32(0.5), 0, 1)
    dark = np.float32(rng.uniform(0.45, 0.85))
    factor: Floats = dark + (1 - dark) * lit
    return factor


def add_edges(surface: Floats, paper: float, box: tuple[int, int, int, int], rng: Rng) -> None:
    """Show what lies beside the paper, on up to two sides of the picture, but not over ``box``.

    >>> page = np.full((60, 60), 250, np.float32)
    >>> add_edges(page, 250.0, (20, 20, 40, 40), np.random.default_rng(2))
    >>> float(page[30, 30])
    250.0
    """
    height, width = surface.shape
    room = {"left": box[0], "top": box[1], "right": width - box[2], "bottom": height - box[3]}
    from_the_left = {
        "left": surface,
        "top": surface.T,
        "right": surface[:, ::-1],
        "bottom": surface[::-1].T,
    }
    shade = np.float32(rng.uniform(20, 120) if paper > 120 else rng.uniform(120, 230))
    for side in rng.permutation(list(room))[: rng.integers(0, 3)]:
        depth = int(min(0.7 * room[side], rng.uniform(0.01, 0.12) * max(surface.shape)))
        slope = rng.uniform(-0.03, 0.03)
        if depth < 1:
            continue
        view = from_the_left[side]
        view[np.arange(view.shape[1]) < np.arange(len(view))[:, np.newaxis] * slope + depth] = shade


def surroundings(scene: Scene, paper: float, shape: tuple[int, int], rng: Rng) -> Floats:
    """Return what a sheet lies on, (H, W) or (1, W): a table with its grain, or a wall.

    >>> surroundings("note", 200.0, (20, 30), np.random.default_rng(0)).shape
    (20, 30)
    """
    shade = np.float32(
        paper * (rng.uniform(0.4, 0.8) if scene == "note" else rng.uniform(0.2, 0.7))
    )
    if scene == "note":
        coarse = rng.standard_normal((shape[0] // 8 + 1, shape[1] // 8 + 1), dtype=np.float32)
        return shade + np.float32(4) * enlarge(coarse, shape)
    along = rng.standard_normal((1, shape[1]), dtype=np.float32).repeat(shape[0], axis=0)
    return shade + np.float32(0.06) * shade * along


def sheet_of(
    scene: Scene, box: tuple[float, float, float, float], shape: tuple[int, int], rng: Rng
) -> Floats:
    """Return (H, W) float32, 1 on the sheet: four straight sides around the digit's box.

    >>> float(sheet_of("note", (20, 20, 40, 40), (60, 60), np.random.default_rng(0))[30, 30])
    1.0
    """
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


def _along(shape: tuple[int, int], angle: float) -> Floats:
    """Return (H, W), each pixel's position along a direction, in pixels."""
    y = np.arange(shape[0], dtype=np.float32)[:, np.newaxis] * np.float32(math.sin(angle))
    x = np.arange(shape[1], dtype=np.float32) * np.float32(math.cos(angle))
    return y + x
