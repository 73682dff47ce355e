"""Digits as pen strokes on a canvas, as people of several countries write them.

A style is a path in a box 1 wide and 1 high, y down. Each drawing moves the points a little, bends,
slants, rotates and stretches the whole, and picks its pen. No style comes from anybody's
handwriting; ``draw_hand`` draws strokes that somebody wrote.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from inkdigits.errors import DataError
from inkdigits.types import Doubles, Labels, Pixels, Rng

CANVAS = 280
Points: TypeAlias = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Style:
    """One way to write a digit."""

    # Strokes separated by "|", of pieces separated by ";", of points "x,y". A piece starts where
    # the last one ended. Two points are a straight line, more are a smooth curve.
    path: str
    width: float = 0.68  # of the digit, relative to its height

    def strokes(self) -> list[list[Points]]:
        """Return the pieces of each stroke, with the points where they start."""
        strokes = []
        for stroke in self.path.split("|"):
            pieces: list[Points] = []
            for piece in stroke.split(";"):
                points = [(float(x), float(y)) for x, y in (p.split(",") for p in piece.split())]
                pieces.append([*(pieces[-1][-1:] if pieces else []), *points])
            strokes.append(pieces)
        return strokes


STYLES: dict[int, dict[str, Style]] = {
    0: {
        "oval": Style(
            "0.55,0 0.2,0.14 0.04,0.5 0.18,0.88 0.5,1 0.83,0.86 0.96,0.48 0.8,0.12 0.5,0.01",
        ),
        "narrow": Style(
            "0.55,0 0.2,0.14 0.04,0.5 0.18,0.88 0.5,1 0.83,0.86 0.96,0.48 0.8,0.12 0.5,0.01",
            0.5,
        ),
        "open at the top": Style(
            "0.55,0 0.2,0.14 0.04,0.5 0.18,0.88 0.5,1 0.83,0.86 0.96,0.48 0.8,0.12",
        ),
        "thin": Style(
            "0.55,0 0.2,0.14 0.04,0.5 0.18,0.88 0.5,1 0.83,0.86 0.96,0.48 0.8,0.12 0.5,0.01",
            0.34,
        ),
        "slashed": Style(
            "0.55,0 0.2,0.14 0.04,0.5 0.18,0.88 0.5,1 0.83,0.86 0.96,0.48 0.8,0.12 0.5,0.01"
            " | 0.82,0.14 0.2,0.86",
        ),
        "slash beyond the oval": Style(
            "0.55,0.04 0.2,0.16 0.06,0.5 0.18,0.84 0.5,0.96 0.83,0.84 0.94,0.48 0.8,0.14 0.5,0.05"
            " | 1,-0.03 0.02,1.03",
        ),
        "knot at the top": Style(
            "0.7,0.1 0.3,0.06 0.04,0.5 0.2,0.9 0.55,1 0.86,0.84 0.96,0.45 0.78,0.1 0.5,0.02 "
            "0.42,0.2",
        ),
    },
    1: {
        "bar": Style("0.5,0 0.5,1", 0.3),
        "stick": Style("0.5,0 0.5,1", 0.05),
        "bar and foot": Style("0.5,0 0.5,1 | 0.1,1 0.9,1", 0.4),
        "serif": Style("0.22,0.16 0.5,0; 0.5,1", 0.34),
        "serif and foot": Style("0.25,0.16 0.55,0; 0.55,1 | 0.15,1 0.95,1", 0.42),
        "curved flag": Style("0.1,0.3 0.35,0.22 0.6,0; 0.6,1", 0.42),
        "lambda": Style("0.02,0.88 0.62,0; 0.72,1", 0.55),
        "wide lambda": Style("0,0.98 0.5,0; 0.85,1", 0.6),
        "flag": Style("0.15,0.3 0.6,0; 0.6,1", 0.45),
        "flag and base": Style("0.12,0.28 0.52,0; 0.52,1 | 0.12,1 0.92,1", 0.5),
        "long flag": Style("0,0.5 0.8,0; 0.8,1", 0.48),
        "flag to the base": Style("0,0.7 0.85,0; 0.8,1", 0.55),
        "long flag and base": Style("0,0.4 0.55,0; 0.55,1 | 0.1,1 1,1", 0.6),
    },
    2: {
        "straight base": Style("0.08,0.26 0.3,0.02 0.72,0.05 0.82,0.34 0.45,0.7 0.05,1; 0.95,1"),
        "loop": Style(
            "0.1,0.2 0.4,0 0.8,0.2 0.6,0.6 0.25,0.94 0.05,0.9 0.2,0.76 0.5,0.9 0.95,0.96",
        ),
    },
    3: {
        "round": Style("0.1,0.12 0.5,0 0.8,0.2 0.66,0.4 0.4,0.46; 0.88,0.66 0.6,0.98 0.08,0.9"),
        "flat top": Style("0.1,0 0.85,0; 0.4,0.42; 0.88,0.66 0.6,0.98 0.08,0.9"),
    },
    4: {
        "open": Style("0.2,0 0.1,0.58; 0.95,0.58 | 0.72,0.08 0.7,1"),
        "closed": Style("0.68,0 0.03,0.66; 0.97,0.66 | 0.68,0 0.68,1"),
        "short stem": Style("0.5,0 0.05,0.62; 0.97,0.62 | 0.66,0.36 0.62,1"),
        "leaning stem": Style("0.45,0 0.05,0.6; 0.95,0.5 | 0.85,0.22 0.42,1"),
        "looped": Style("0.3,0 0.12,0.4 0.2,0.6 0.55,0.5 0.85,0.1 0.74,0.5 0.62,1"),
        "open and square": Style("0.1,0 0.08,0.55; 0.92,0.55 | 0.72,0.26 0.72,1"),
        "closed in one stroke": Style("0.72,1 0.72,0; 0.04,0.68; 0.98,0.66"),
        "open, equal arms": Style("0.16,0.02 0.1,0.56; 0.9,0.54 | 0.84,0 0.8,1"),
    },
    5: {
        "one stroke": Style("0.88,0 0.26,0; 0.2,0.44; 0.58,0.36 0.9,0.64 0.62,0.98 0.08,0.92"),
        "bar apart": Style(
            "0.24,0.03 0.2,0.44; 0.58,0.36 0.9,0.64 0.62,0.98 0.08,0.92 | 0.28,0.02 0.92,0",
        ),
        "flowing": Style("0.88,0.04 0.4,0.06 0.22,0.34 0.6,0.44 0.86,0.7 0.5,0.98 0.08,0.9"),
    },
    6: {
        "curved": Style("0.78,0.02 0.34,0.26 0.1,0.68 0.42,1 0.86,0.76 0.52,0.5 0.14,0.72"),
        "straight": Style("0.6,0 0.16,0.6; 0.2,0.92 0.6,0.98 0.84,0.7 0.5,0.54 0.15,0.72"),
    },
    7: {
        "plain": Style("0.06,0.02 0.92,0; 0.38,1"),
        "bar": Style("0.06,0.02 0.92,0; 0.38,1 | 0.3,0.52 0.9,0.48"),
        "hook": Style("0.08,0.16 0.1,0; 0.92,0; 0.6,0.4 0.45,1"),
        "looped": Style("0.2,0.24 0.04,0.14 0.14,0 0.3,0.1 0.6,0.08 0.94,0.02; 0.5,0.5 0.4,1"),
        "wave": Style("0.06,0.12 0.3,0.02 0.62,0.1 0.92,0; 0.42,1"),
        "upright and bar": Style("0.08,0 0.86,0; 0.7,0.5 0.66,1 | 0.42,0.5 1,0.46"),
        "hook and bar": Style("0.08,0.18 0.1,0.02; 0.92,0; 0.55,0.5 0.4,1 | 0.28,0.5 0.86,0.52"),
    },
    8: {
        "from the middle": Style(
            "0.5,0.47 0.18,0.24 0.5,0 0.82,0.24 0.5,0.47 0.1,0.74 0.5,1 0.9,0.74 0.5,0.47",
        ),
        "crossing": Style(
            "0.8,0.14 0.48,0 0.2,0.22 0.5,0.46 0.86,0.76 0.5,1 0.14,0.76 0.48,0.48 "
            "0.8,0.22 0.76,0.08",
        ),
        "two rings": Style(
            "0.5,0.46 0.2,0.24 0.5,0 0.8,0.24 0.5,0.46 | 0.5,0.46 0.1,0.74 0.5,1 0.9,0.74 0.5,0.46",
        ),
    },
    9: {
        "straight stem": Style("0.86,0.24 0.55,0 0.14,0.22 0.42,0.52 0.86,0.24; 0.78,1"),
        "curled": Style("0.86,0.24 0.55,0 0.14,0.22 0.42,0.52 0.86,0.24; 0.84,0.7 0.52,1 0.12,0.9"),
        "hook": Style("0.86,0.24 0.55,0 0.14,0.22 0.42,0.52 0.86,0.24; 0.8,0.95 0.3,1 0.14,0.8"),
        "upright stem": Style("0.84,0.28 0.5,0 0.12,0.26 0.45,0.54 0.84,0.26; 0.84,1"),
        "wide curl": Style(
            "0.84,0.24 0.5,0 0.14,0.22 0.42,0.5 0.84,0.24; 0.86,0.7 0.56,1 0.1,0.9 0.06,0.72"
        ),
        "open ring": Style(
            "0.84,0.15 0.48,0 0.14,0.24 0.42,0.5 0.85,0.26 0.88,0.6 0.62,0.98 0.1,0.92",
        ),
        "open ring, straight stem": Style("0.8,0.1 0.45,0 0.14,0.26 0.42,0.5 0.83,0.24; 0.74,1"),
    },
}


def draw_digits(n: int, rng: Rng) -> tuple[Pixels, Labels]:
    """Draw one digit per canvas (n, 280, 280): black ink on white, anywhere on it, not too small.

    The digits (n,), which are returned too, take turns; the styles are drawn at random. n below 1
    raises a DataError.

    >>> draw_digits(3, np.random.default_rng(0))[1].tolist()
    [0, 1, 2]
    """
    if n < 1:
        raise DataError(f"n is {n}; at least 1 is needed")
    labels = np.arange(n, dtype=np.int64) % 10
    pictures = np.empty((n, CANVAS, CANVAS), dtype=np.uint8)
    for picture, digit in zip(pictures, labels.tolist(), strict=True):
        styles = list(STYLES[digit].values())
        picture[:] = _draw(styles[rng.integers(len(styles))], rng)
    return pictures, labels


def draw_style(digit: int, name: str, rng: Rng) -> Pixels:
    """Draw a digit in the style of that name of ``STYLES`` on a canvas (280, 280).

    >>> draw_style(1, "lambda", np.random.default_rng(0)).shape
    (280, 280)
    """
    return _draw(STYLES[digit][name], rng)


def _draw(style: Style, rng: Rng) -> Pixels:
    bend = rng.normal(0, 0.03, (2, 2))
    lines = []
    for stroke in style.strokes():
        pieces: list[Doubles] = []
        for piece in stroke:
            points = np.array(piece) + rng.normal(0, 0.028, (len(piece), 2))
            if pieces:
                points[0] = pieces[-1][-1]
            pieces.append(spline(points))
        line = np.concatenate(pieces)
        # A bow along each axis: a hand's straight lines are not straight.
        line = line + np.sin(math.pi * line[:, ::-1]) * bend[0] + bend[1] * line**2
        lines.append((line - 0.5) * (style.width * rng.uniform(0.8, 1.25), 1.0))
    # Many hands write upright; MNIST's lean to the right.
    slant = rng.uniform(-0.15, 0.4) if rng.random() < 0.7 else rng.normal(0, 0.04)
    return _on_canvas(lines, slant, 12, rng)


def draw_hand(strokes: Sequence[Doubles], rng: Rng) -> Pixels:
    """Draw somebody's strokes, lines (K, 2) in any unit with y down, on a canvas (280, 280).

    They are stretched, slanted and turned a little.

    >>> draw_hand([np.array([[0.0, 0.0], [0.0, 9.0]])], np.random.default_rng(0)).shape
    (280, 280)
    """
    everything = np.concatenate(list(strokes))
    low, extent = everything.min(axis=0), np.ptp(everything, axis=0)
    scale = np.array([rng.uniform(0.85, 1.18), 1.0]) / max(float(extent.max()), 1e-9)
    lines = [(line - low - extent / 2) * scale for line in strokes]
    return _on_canvas(lines, rng.normal(0, 0.08), 6, rng)


def _on_canvas(lines: Sequence[Doubles], slant: float, degrees: float, rng: Rng) -> Pixels:
    """Draw lines in a box about 1 high, turned by up to some degrees, with a pen, anywhere."""
    height = rng.uniform(90, 220)
    # Most pens are 4 to 12 % of the height; a fineliner is thinner, and a marker thicker.
    share = rng.uniform(0.04, 0.12) if rng.random() < 0.8 else rng.choice([0.02, 0.16, 0.2])
    pen = max(2.0, height * share)
    angle = math.radians(rng.uniform(-degrees, degrees))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shape = turn @ np.array([[height, -slant * height], [0.0, height]])
    placed = [line @ shape.T for line in lines]
    everything = np.concatenate(placed)
    low, high = everything.min(axis=0) - pen, everything.max(axis=0) + pen
    corner = np.maximum(CANVAS - (high - low), 0) * rng.random(2)
    return draw_lines([line - low + corner for line in placed], (CANVAS, CANVAS), pen)


def spline(points: Doubles, per_piece: int = 12) -> Doubles:
    """Return a smooth line through points; it closes smoothly where the ends nearly meet.

    The method is that of E. Catmull and R. Rom, "A class of local interpolating splines", in
    Computer Aided Geometric Design, 1974, pages 317 to 326. From (K, 2) points, K at least 2, it
    makes ((K - 1) * per_piece + 1, 2).

    >>> spline(np.array([[0.0, 0.0], [2.0, 4.0]]), 2).tolist()
    [[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]]
    """
    closed = len(points) > 3 and bool(np.hypot(*(points[0] - points[-1])) < 0.08)
    before = points[-2] if closed else 2 * points[0] - points[1]
    after = points[1] if closed else 2 * points[-1] - points[-2]
    p = np.concatenate([[before], points, [after]])
    t = np.linspace(0, 1, per_piece, endpoint=False)[:, None, None]
    p0, p1, p2, p3 = p[:-3], p[1:-2], p[2:-1], p[3:]
    curve = 0.5 * (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    return np.concatenate([curve.transpose(1, 0, 2).reshape(-1, 2), points[-1:]])


def draw_lines(lines: list[Doubles], size: tuple[int, int], pen: float) -> Pixels:
    """Draw lines with a round pen, black on white, with smooth edges.

    Lines are (K, 2), x and y in pixels; ``size`` is width and height; ``pen`` is a diameter.

    >>> draw_lines([np.array([[2.0, 5.0], [18.0, 5.0]])], (20, 10), 3.0).shape
    (10, 20)
    """
    # Twice as large, then averaged down: Pillow's lines have hard edges.
    image = Image.new("L", (2 * size[0], 2 * size[1]), 255)
    draw = ImageDraw.Draw(image)
    for line in lines:
        points = [(2 * x, 2 * y) for x, y in line.tolist()]
        draw.line(points, fill=0, width=max(1, round(2 * pen)))
        # A disc at every point rounds the ends and fills the joints, faster than joint="curve".
        for x, y in points:
            draw.ellipse((x - pen, y - pen, x + pen, y + pen), fill=0)
    return np.asarray(image.reduce(2))
