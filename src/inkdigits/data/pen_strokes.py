"""How people of several countries write digits, as strokes of a pen.

A style is a path in a box 1 wide and 1 high, y down. No style comes from anybody's handwriting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from inkdigits.types import Doubles

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


_OVAL = "0.55,0 0.2,0.14 0.04,0.5 0.18,0.88 0.5,1 0.83,0.86 0.96,0.48 0.8,0.12"
STYLES: dict[int, dict[str, Style]] = {
    0: {
        "oval": Style(f"{_OVAL} 0.5,0.01"),
        "narrow": Style(f"{_OVAL} 0.5,0.01", 0.5),
        "open at the top": Style(_OVAL),
        "thin": Style(f"{_OVAL} 0.5,0.01", 0.34),
        "slashed": Style(f"{_OVAL} 0.5,0.01 | 0.82,0.14 0.2,0.86"),
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
        "bar in one stroke": Style("0.06,0.16 0.1,0.02; 0.9,0; 0.46,1 0.2,0.82 0.36,0.6 1,0.6"),
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
