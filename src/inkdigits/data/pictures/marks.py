"""What is on paper beside ink: printed lines, lattices, boxes, text, patterns, and dust.

Every function changes a surface, (H, W) float32 of shades 0 to 255, in place. None of what they add
is ink.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from inkdigits.data.fonts import Font
from inkdigits.data.pictures.foreground import font_face, log_uniform
from inkdigits.data.pictures.writing import Bounds
from inkdigits.data.pixels import enlarge
from inkdigits.types import Floats, Rng

_Line: TypeAlias = list[tuple[float, float]]

_WORDS = (  # noqa: SIM905 - a list of them takes 65 lines
    "Name Datum Betrag Total Amount 2024 No. Seite Euro EUR 12.50 Pay to the order of Form "
    "Nr. Class Date Address Tel: 0049 page Zip Code Month Day Year abc Quiz Question Score "
    "Points (3) A) Bank CHEQUE Firma km/h Art. Menge Preis 17 % * # ___ .... ---- x= y+ kg 1 "
    "2 3 4 5 6 7 8 9 0"
).split()


def _shade(surface: Floats, pen: float, rng: Rng, *, like_ink: float) -> np.float32:
    """Return a shade of print: the ink's in this share of cases, or else fainter than it."""
    if rng.random() < like_ink:
        return np.float32(pen)
    base = float(surface[:: max(1, len(surface) // 8)].mean())
    return np.float32(base * rng.uniform(0.05, 0.88) if base > 90 else rng.uniform(base + 30, 250))


def _periodic_lines(position: Floats, period: float, width: float) -> Floats:
    """Return the coverage of lines at whole numbers of ``position`` (H, W), in periods."""
    distance = np.abs(position - np.rint(position)) * np.float32(period)
    covered: Floats = np.clip(np.float32(width / 2 + 0.5) - distance, 0, min(1.0, width))
    return covered


def _axes(shape: tuple[int, int], angle: float) -> tuple[Floats, Floats]:
    """Return positions along a turned pair of axes, in pixels."""
    y = np.arange(shape[0], dtype=np.float32)[:, np.newaxis]
    x = np.arange(shape[1], dtype=np.float32)
    cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return x * cosine + y * sine, y * cosine - x * sine


def print_lines(surface: Floats, scale: float, pen: float, rng: Rng) -> None:
    """Print lines in one or two directions, or dots where they cross; cells may be oblong.

    ``scale`` is about the height of what is written, and ``pen`` its shade.

    >>> page = np.full((60, 60), 250, np.float32)
    >>> print_lines(page, 20.0, 0.0, np.random.default_rng(0))
    >>> bool(page.min() < 250)
    True
    """
    angle = 0.0 if rng.random() < 0.4 else math.radians(rng.normal(0, 3))
    across, down = _axes((surface.shape[0], surface.shape[1]), angle)
    period = max(5.0, scale * log_uniform(rng, 0.2, 2.2))
    width = max(0.6, period * rng.uniform(0.01, 0.08))
    if rng.random() < 0.25:  # hard lines of whole pixels
        period, width = max(5.0, float(round(period))), float(max(1, round(width)))
    other = max(5.0, period * (1.0 if rng.random() < 0.5 else rng.uniform(0.5, 3.0)))
    first = _periodic_lines(down / np.float32(period) + np.float32(rng.random()), period, width)
    look = rng.random()
    if look < 0.3:
        covered = first
    else:
        position = across / np.float32(other) + np.float32(rng.random())
        second = _periodic_lines(position, other, width)
        crossing = np.minimum(first, second) if look > 0.93 else np.maximum(first, second)
        covered = crossing
    strength = np.float32(rng.uniform(0.1, 0.9) if rng.random() < 0.6 else 1.0)
    surface += covered * strength * (_shade(surface, pen, rng, like_ink=0.3) - surface)


def print_pattern(surface: Floats, scale: float, pen: float, rng: Rng) -> None:
    """Print waves, rays, stripes or a grain of wood, as on cheques, cloth and tables.

    >>> page = np.full((60, 60), 250, np.float32)
    >>> print_pattern(page, 20.0, 0.0, np.random.default_rng(0))
    >>> bool(page.min() < 250)
    True
    """
    shape = (surface.shape[0], surface.shape[1])
    shade = _shade(surface, pen, rng, like_ink=0.1)
    for _ in range(rng.integers(1, 3)):
        period = max(2.5, scale * log_uniform(rng, 0.03, 0.4))
        u, v = _axes(shape, rng.uniform(0, math.pi))
        position = u / np.float32(period)
        look = rng.integers(4)
        if look == 0:
            wave = np.float32(2 * math.pi / (period * rng.uniform(2, 12)))
            position = position + np.float32(rng.uniform(0.2, 2.5)) * np.sin(v * wave)
        elif look == 1:
            y, x = v - np.float32(rng.uniform(-0.3, 1.3) * shape[0]), u - u.mean()
            rays = np.sin(np.arctan2(y, x) * int(rng.integers(3, 14)))
            position = np.hypot(x, y) / np.float32(period) + np.float32(rng.uniform(0, 1.5)) * rays
        elif look == 2:
            position = position + np.float32(rng.uniform(1, 4)) * enlarge(rng.random((4, 4)), shape)
        width = rng.uniform(0.5, max(0.6, min(3.0, 0.35 * period)))
        covered = _periodic_lines(position, period, width) * np.float32(rng.uniform(0.08, 0.6))
        if rng.random() < 0.2:  # dashes
            dash = np.float32(2 * math.pi / max(3.0, period * rng.uniform(0.5, 1.5)))
            covered = covered * (np.sin(v * dash) > rng.uniform(-0.3, 0.6))
        surface += covered * (shade - surface)


def print_boxes(
    surface: Floats, box: Bounds, pen: float, rng: Rng, *, is_empty: bool = False
) -> None:
    """Print what forms have around a digit: a box, cells, combs, guide lines, single sides.

    The digit's ``box`` may be left free, touched or crossed. Single sides are not printed where it
    ``is_empty``: one line alone is a 1, and two are a 7.

    >>> page = np.full((60, 60), 250, np.float32)
    >>> print_boxes(page, (20, 20, 40, 40), 0.0, np.random.default_rng(0))
    >>> bool(page.min() < 250)
    True
    """
    height, width = surface.shape
    digit = max(6.0, box[3] - box[1])
    hard = rng.random() < 0.3
    factor = 1 if hard else 2
    image = Image.new("L", (width * factor, height * factor))
    canvas = ImageDraw.Draw(image)
    wide = max(1, round(factor * max(0.6, digit * log_uniform(rng, 0.008, 0.09))))
    gap = digit * rng.uniform(-0.12, 0.5)
    sides = rng.uniform(0.5, 1.5, 2)
    left, top = (box[0] - gap * sides[0]) * factor, (box[1] - gap) * factor
    right, bottom = (box[2] + gap * sides[1]) * factor, (box[3] + gap) * factor
    if right - left < 8 or bottom - top < 8:
        left, top = box[0] * factor - 8, box[1] * factor - 8
        right, bottom = box[2] * factor + 8, box[3] * factor + 8
    look = _LOOKS[rng.integers(len(_LOOKS) - 2 * is_empty)]
    for line in look((left, top, right, bottom), (width * factor, height * factor), rng):
        canvas.line(line, fill=255, width=wide)
    shade = _shade(surface, pen, rng, like_ink=0.45)
    covered = np.asarray(image.reduce(factor), np.float32) / np.float32(255)
    strength = np.float32(1.0 if rng.random() < 0.6 else rng.uniform(0.25, 1))
    surface += covered * strength * (shade - surface)


def _frame(box: Bounds, _: tuple[int, int], rng: Rng) -> list[_Line]:
    left, top, right, bottom = box
    skew = rng.normal(0, 0.02, 3) * (bottom - top) * (rng.random() < 0.5)
    corners = [(left, top), (right, top + skew[0]), (right + skew[1], bottom)]
    return [[*corners, (left + skew[1], bottom + skew[2]), (left, top)]]


def _cells(box: Bounds, _: tuple[int, int], rng: Rng) -> list[_Line]:
    left, top, right, bottom = box
    n, wide = int(rng.integers(1, 9)), max(right - left, 0.4 * (bottom - top))
    start = left - wide * rng.integers(0, n + 1)
    rows = int(rng.integers(1, 4)) if rng.random() < 0.4 else 1
    first = top - (bottom - top) * rng.integers(0, rows)
    lines: list[_Line] = []
    for i in range(n + 2):
        x = start + i * wide
        lines.append([(x, first), (x, first + rows * (bottom - top))])
    for i in range(rows + 1):
        y = first + i * (bottom - top)
        lines.append([(start, y), (start + (n + 1) * wide, y)])
    return lines


def _comb(box: Bounds, _: tuple[int, int], rng: Rng) -> list[_Line]:
    left, top, right, bottom = box
    n, wide = int(rng.integers(2, 9)), max(right - left, 0.5 * (bottom - top))
    start, reach = left - wide * rng.integers(0, n), (bottom - top) * rng.uniform(0.15, 0.4)
    teeth: list[_Line] = [
        [(start + i * wide, bottom - reach), (start + i * wide, bottom)] for i in range(n + 1)
    ]
    return [*teeth, [(start, bottom), (start + n * wide, bottom)]]


def _some_sides(box: Bounds, _: tuple[int, int], rng: Rng) -> list[_Line]:
    left, top, right, bottom = box
    longer = (right - left) * (rng.random() < 0.4) * rng.uniform(0, 2)
    around: list[_Line] = [
        [(left - longer, top), (right + longer, top)],
        [(left - longer, bottom), (right + longer, bottom)],
        [(left, top - longer), (left, bottom + longer)],
        [(right, top - longer), (right, bottom + longer)],
    ]
    return [around[side] for side in rng.permutation(4)[: rng.integers(1, 4)]]


def _guides(box: Bounds, size: tuple[int, int], rng: Rng) -> list[_Line]:
    left, top, right, bottom = box
    lines: list[_Line] = []
    for _ in range(rng.integers(1, 4)):
        tilt = rng.normal(0, 0.02) * (rng.random() < 0.6)
        if rng.random() < 0.6:
            y = rng.uniform(top - 0.2 * (bottom - top), bottom + 0.2 * (bottom - top))
            lines.append([(0, y), (size[0], y + tilt * size[0])])
        else:
            x = rng.uniform(left - 0.3 * (bottom - top), right + 0.3 * (bottom - top))
            lines.append([(x, 0), (x + tilt * size[1], size[1])])
    return lines


_LOOKS: tuple[Callable[[Bounds, tuple[int, int], Rng], list[_Line]], ...] = (
    _frame, _frame, _cells, _cells, _comb, _guides, _guides, _some_sides, _some_sides,
)  # fmt: skip


def print_edge(surface: Floats, pen: float, rng: Rng) -> None:
    """Print a frame at or near the picture's edges, on any sides of it.

    >>> page = np.full((60, 60), 250, np.float32)
    >>> print_edge(page, 0.0, np.random.default_rng(0))
    >>> bool(page.min() < 250)
    True
    """
    height, width = surface.shape
    wide = max(1, round(min(height, width) * log_uniform(rng, 0.006, 0.06)))
    inset = int(rng.uniform(0, 0.08) * min(height, width)) if rng.random() < 0.5 else 0
    shade = _shade(surface, pen, rng, like_ink=0.5)
    sides = rng.permutation(4)[: 4 if rng.random() < 0.5 else rng.integers(1, 4)]
    for side in sides:
        view = (surface, surface[::-1], surface.T, surface.T[::-1])[side]
        view[inset : inset + wide, inset : view.shape[1] - inset] = shade


def print_text(
    surface: Floats, box: Bounds | None, scale: float, pen: float, rng: Rng, fonts: Sequence[Font]
) -> None:
    """Print words, smaller than what is written, mostly not across the digit's box.

    Where there is no digit, none is printed alone either: it would be one.

    >>> from inkdigits.data.fonts import find_fonts
    >>> page = np.full((60, 60), 250, np.float32)
    >>> print_text(page, None, 60.0, 0.0, np.random.default_rng(1), find_fonts("train"))
    """
    height, width = surface.shape
    image = Image.new("L", (width, height))
    canvas = ImageDraw.Draw(image)
    many = int(rng.integers(1, 7)) if rng.random() < 0.85 else int(rng.integers(8, 20))
    size = scale * rng.uniform(0.08, 0.3)
    known = [word for word in _WORDS if box is not None or len(word) > 1]
    for _ in range(many):
        face = font_face(rng, fonts, min(max(size, 6.0), 60.0))
        words = " ".join(known[i] for i in rng.integers(len(known), size=rng.integers(1, 6)))
        x, y = rng.uniform(-0.2, 0.9) * width, rng.uniform(-0.05, 1) * height
        if box is not None and rng.random() > 0.08:
            left, top, right, bottom = canvas.textbbox((x, y), words, font=face)
            apart = right < box[0] - 2 or left > box[2] + 2 or bottom < box[1] - 2 or top > box[3]
            if not apart:
                continue
        canvas.text((x, y), words, fill=int(rng.uniform(110, 255)), font=face)
    shade = _shade(surface, pen, rng, like_ink=0.4)
    surface += np.asarray(image, np.float32) / np.float32(255) * (shade - surface)


def scatter_specks(surface: Floats, scale: float, pen: float, rng: Rng) -> None:
    """Add dust and fibres, much smaller than a digit of this height, few as dark as the ink.

    >>> page = np.full((60, 60), 250, np.float32)
    >>> scatter_specks(page, 40.0, 0.0, np.random.default_rng(0))
    >>> bool(page.min() < 250)
    True
    """
    height, width = surface.shape
    image = Image.new("L", (width, height))
    canvas = ImageDraw.Draw(image)
    for _ in range(int(log_uniform(rng, 1, 40))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        level = int(rng.uniform(60, 256))
        if rng.random() < 0.8:
            radius = rng.uniform(0.2, 0.018 * scale + 0.6)
            canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=level)
        else:
            reach = 0.1 * scale
            end = (x + rng.uniform(-reach, reach), y + rng.uniform(-reach, reach))
            canvas.line([(x, y), end], fill=level, width=1)
    surface += np.asarray(image, np.float32) / np.float32(255) * (np.float32(pen) - surface)
