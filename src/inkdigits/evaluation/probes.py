"""Pictures that people send and that a clean test set does not have, made of given digits.

A digit that is cut off, flush with an edge, in a printed frame, or tiny in a large picture; ones as
people other than MNIST's write them; several digits in one picture; empty paper with print or with
objects. ``robustness`` reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
from PIL import Image

from inkdigits.data.pictures.foreground import Sources, write_style
from inkdigits.data.pictures.pairs import Look, make_pair
from inkdigits.data.pixels import Coverage, to_bytes
from inkdigits.types import Floats, Ink, Pixels, Rng

Maker: TypeAlias = Callable[[Ink, Rng], Pixels]
"""Makes a picture (H, W) of a digit's ink (28, 28)."""

SIDES = ("top", "right", "bottom", "left")  # np.rot90 brings the next one to the top
# Styles of ``pen_strokes`` that are ones of each kind.
ONES = {
    "upright ones": ("bar", "stick", "bar and foot"),
    "flagged ones": ("flag", "long flag", "serif", "serif and foot", "curved flag"),
    "lambda ones": ("lambda", "wide lambda", "flag to the base"),
}
# Background's and pen's shades, and the noise's deviation, 0 to 255.
BACKGROUNDS = {
    "white": ((255, 255), (0, 60), 0),
    "dim": ((95, 150), (10, 40), 3),
    "bright": ((225, 250), (20, 90), 3),
}
# Sides of a picture of 1.5 megapixels, and the height of its digit.
_LARGE, _TINY = (1225, 1225), 30


def on_background(coverage: Coverage, rng: Rng, background: str = "white") -> Pixels:
    """Draw coverage (H, W) on a background of ``BACKGROUNDS``.

    >>> on_background(np.zeros((2, 2)), np.random.default_rng(0)).tolist()
    [[255, 255], [255, 255]]
    """
    shades, pens, noise = BACKGROUNDS[background]
    shade, pen = rng.uniform(*shades), rng.uniform(*pens)
    picture = shade + (pen - shade) * coverage
    return to_bytes(picture + rng.normal(0, noise, coverage.shape) if noise else picture)


def digit_makers() -> dict[str, Maker]:
    """Return by name what makes a picture of each digit that must be read, or not accepted.

    >>> sorted(digit_makers())[:2]
    ['cut off by 20 %, bottom', 'cut off by 20 %, left']
    """
    makers: dict[str, Maker] = {
        f"cut off by {100 * share:.0f} %, {name}": partial(_cut, share=share, side=side)
        for share in (0.2, 0.35)
        for side, name in enumerate(SIDES)
    }
    return {
        **makers,
        "flush with an edge": partial(_flush, corner=False),
        "flush with a corner": partial(_flush, corner=True),
        "frame on some sides": partial(_framed, touched=False),
        "frame that touches": partial(_framed, touched=True),
        "tiny in a large picture": _tiny,
    }


def draw_ones(name: str, n: int, rng: Rng) -> list[Pixels]:
    """Draw n ones of a kind of ``ONES`` with pens of 4 to 12 % of their height.

    >>> len(draw_ones("lambda ones", 2, np.random.default_rng(0)))
    2
    """
    styles = ONES[name]
    pictures = []
    for _ in range(n):
        height, pen = rng.uniform(90, 220), rng.uniform(0.04, 0.12)
        patch = write_style(1, styles[rng.integers(len(styles))], height, rng, pen)
        pictures.append(on_background(np.pad(patch, int(rng.integers(10, 60))), rng))
    return pictures


def several_makers(inks: Ink) -> dict[str, Callable[[Rng], Pixels]]:
    """Return by name what makes pictures of several digits, all of which must be rejected.

    >>> len(several_makers(np.zeros((1, 28, 28), np.uint8)))
    7
    """
    alike: dict[str, object] = {"ratio": (0.9, 1.0), "darkness": (0.9, 1.0)}
    ways = {f"two digits on {name}": (name, {"n": 2, **alike}) for name in BACKGROUNDS}
    ways["3 to 10 digits"] = ("white", alike)
    ways["second smaller"] = ("white", {"n": 2, "ratio": (0.35, 0.6), "darkness": (1.0, 1.0)})
    ways["second fainter"] = ("white", {"n": 2, "ratio": (0.9, 1.0), "darkness": (0.3, 0.6)})
    ways["second far away"] = ("white", {"n": 2, **alike, "gap": (2.0, 6.0)})
    return {
        name: partial(_several, inks, background, how) for name, (background, how) in ways.items()
    }


def empty_makers(sources: Sources) -> dict[str, Callable[[Rng], Pixels]]:
    """Return by name what makes pages with print, objects or nothing, which must be rejected.

    >>> sorted(empty_makers(Sources()))
    ['empty canvas with marks', 'empty paper', 'empty paper in a scene']
    """
    looks: dict[str, Look] = {
        "empty canvas with marks": "plain",
        "empty paper": "paper",
        "empty paper in a scene": "scene",
    }
    return {name: partial(_empty, sources, look) for name, look in looks.items()}


def _empty(sources: Sources, look: Look, rng: Rng) -> Pixels:
    return make_pair(rng, sources, "empty", look).picture


def _trimmed(ink: Ink, height: int) -> Floats:
    """Return a digit's coverage without a margin, scaled to a height."""
    rows, columns = (np.flatnonzero((ink > 40).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return np.zeros((height, height), dtype=np.float32)
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    size = (max(2, round(height * box.shape[1] / box.shape[0])), height)
    image = Image.fromarray(box).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image).astype(np.float32) / np.float32(255)


def _height(rng: Rng) -> int:
    return int(rng.integers(24, 160))


def _cut(ink: Ink, rng: Rng, share: float, side: int) -> Pixels:
    """Leave a share of the digit's height or width outside of the picture."""
    digit = np.rot90(_trimmed(ink, _height(rng)), side)  # the side to cut is now the top
    rest = digit[round(share * digit.shape[0]) :]
    around = [int(rng.integers(4, 2 + max(6, rest.shape[1]))) for _ in range(3)]
    padded = np.pad(rest, ((0, around[0]), (around[1], around[2])))
    return on_background(np.rot90(padded, -side), rng)


def _flush(ink: Ink, rng: Rng, *, corner: bool) -> Pixels:
    """Put the whole digit at an edge of the picture, or into a corner."""
    digit = _trimmed(ink, _height(rng))
    room = [int(rng.integers(8, 8 + 2 * side)) for side in digit.shape]
    at = [int(rng.integers(space + 1)) for space in room]
    axis = int(rng.integers(2))
    for fixed in (0, 1) if corner else (axis,):
        at[fixed] = 0 if rng.random() < 0.5 else room[fixed]
    around = [(before, space - before) for before, space in zip(at, room, strict=True)]
    return on_background(np.pad(digit, around), rng)


def _framed(ink: Ink, rng: Rng, *, touched: bool) -> Pixels:
    """Draw printed lines on one to four sides of the digit; it reaches them if ``touched``."""
    height = max(40, _height(rng))
    digit = _trimmed(ink, height)
    margin = [int(height * rng.uniform(0.15, 0.5)) for _ in range(4)]
    canvas = np.pad(digit, ((margin[0], margin[2]), (margin[3], margin[1])))
    wide = int(rng.integers(1, max(2, height // 20) + 1))
    chosen = rng.permutation(4)[: int(rng.integers(1, 5))]
    for number, side in enumerate(chosen):
        turned = np.rot90(canvas, int(side))
        away = margin[side]
        at = away - wide if touched and number == 0 else int(rng.uniform(0.1, 0.7) * away)
        turned[at : at + wide] = np.maximum(turned[at : at + wide], rng.uniform(0.5, 1.0))
    return on_background(canvas, rng, "bright")


def _tiny(ink: Ink, rng: Rng) -> Pixels:
    digit = _trimmed(ink, _TINY)
    canvas = np.zeros(_LARGE, dtype=np.float32)
    top, left = (int(rng.integers(20, side - 60)) for side in _LARGE)
    canvas[top : top + digit.shape[0], left : left + digit.shape[1]] = digit[:, : _LARGE[1] - left]
    return on_background(canvas, rng, "bright")


def several_digits(
    rng: Rng,
    digits: Ink,
    *,
    n: int,
    ratio: tuple[float, float] = (0.35, 1.0),
    darkness: tuple[float, float] = (0.3, 1.0),
    gap: tuple[float, float] = (-0.05, 2.0),
) -> Coverage:
    """Put two or more digits on a canvas that they fill, one after the other.

    ``ratio`` and ``darkness`` are limits of the others' height and darkness, as shares of the first
    one's, and ``gap`` those of the distance between two, in heights of the first.

    >>> ink = np.full((1, 28, 28), 255, np.uint8)
    >>> several_digits(np.random.default_rng(0), ink, n=2, gap=(0, 0)).ndim
    2
    """
    first = rng.uniform(20, 80 if n < 4 else 44)
    placed, at = [], 0.0
    for i in range(n):
        share, dark = (rng.uniform(*ratio), rng.uniform(*darkness)) if i else (1.0, 1.0)
        height = max(4, round(first * share))
        piece = np.float32(dark) * _trimmed(digits[rng.integers(len(digits))], height)
        placed.append((round(rng.uniform(-0.4, 0.8) * (first - height)), round(at), piece))
        at += piece.shape[1] + rng.uniform(*gap) * first
    top, left = min(y for y, _, _ in placed), min(x for _, x, _ in placed)
    bottom = max(y + piece.shape[0] for y, _, piece in placed)
    right = max(x + piece.shape[1] for _, x, piece in placed)
    canvas = np.zeros((bottom - top, right - left), dtype=np.float32)
    for y, x, piece in placed:
        place = canvas[y - top :, x - left :][: piece.shape[0], : piece.shape[1]]
        np.maximum(place, piece, out=place)
    return canvas


def _several(inks: Ink, background: str, how: dict[str, object], rng: Rng) -> Pixels:
    wanted = {"n": int(rng.integers(3, 11)), **how}
    canvas = several_digits(rng, inks, **wanted)  # type: ignore[arg-type]
    return on_background(np.pad(canvas, int(rng.integers(4, 30))), rng, background)
