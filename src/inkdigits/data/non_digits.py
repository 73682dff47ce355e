"""Pictures without a readable digit, made by code, to train and measure rejection.

They have the sizes and shades of users' pictures. Letters and symbols that have the shape of a
digit are left out (``DIGIT_SHAPED``): nobody could tell a printed O from a 0 without its
neighbours.
"""

# ruff: noqa: RUF001 - look-alikes from three alphabets are what this module is about
from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from inkdigits.data.fonts import Font, render_character
from inkdigits.data.letters import DIGIT_SHAPED, write_letter
from inkdigits.data.pen_strokes import draw_lines, spline
from inkdigits.data.pixels import Coverage, blend_ink, enlarge, to_bytes
from inkdigits.errors import ConfigError, DataError
from inkdigits.types import Doubles, Ink, Pixels, Rng

_LATIN = string.ascii_letters
_GREEK = "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩαβγδεζηθικλμνξοπρςστυφχψω"
_CYRILLIC = "АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя"
_SIGNS = string.punctuation + "°×÷±≠≈√∞∑∏∂∫€£¥§¶©®←↑→↓↔■□▲△▼◆◇★☆♠♣♥♦♪♫✓✗☺"
_EXCLUDED = frozenset("".join(DIGIT_SHAPED.values()))
LETTERS = "".join(c for c in _LATIN + _GREEK + _CYRILLIC if c not in _EXCLUDED)
SYMBOLS = "".join(c for c in _SIGNS if c not in _EXCLUDED)


@dataclass(frozen=True, slots=True)
class Sources:
    """The fonts and digits that some kinds are made from."""

    fonts: Sequence[Font] = ()  # for letters and symbols; see ``fonts.find_fonts``
    digits: Ink | None = None  # (N, 28, 28) inks that several or broken digits are made of
    # For letters as if by hand: fonts, with or without Latin letters, and names of ``SCRIPTS``.
    script_fonts: Sequence[Font] = ()
    scripts: Sequence[str] = ("Latin", "Greek", "Cyrillic")


def make_non_digits(kind: str, n: int, rng: Rng, sources: Sources | None = None) -> list[Pixels]:
    """Make n pictures (H, W) of one of ``KINDS``, about 15 to 450 pixels a side.

    Letters and symbols need fonts, and whatever is made of digits needs digits, as sources.

    Raises:
        ConfigError: an unknown kind.
        DataError: n below 0, or the fonts or digits that the kind needs are missing.

    >>> len(make_non_digits("scribble", 2, np.random.default_rng(0)))
    2
    """
    if kind not in _MAKERS:
        raise ConfigError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    if n < 0:
        raise DataError(f"n is {n}; at least 0 is needed")
    given = sources or Sources()
    return [_MAKERS[kind](rng, given) for _ in range(n)]


def _size(rng: Rng) -> tuple[int, int]:
    """Return a height and width as users' pictures have: often square, small as often as large."""
    height = int(28 * (400 / 28) ** rng.random())
    aspect = 1.0 if rng.random() < 0.6 else math.exp(rng.uniform(-0.5, 0.5))
    return height, min(400, max(28, round(height * aspect)))


def _ramp(shape: tuple[int, int], rng: Rng) -> Doubles:
    """Return (H, W), rising from about 0 to about 1 in some direction."""
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    ramp: Doubles = x * math.cos(angle) + y * math.sin(angle)
    return ramp


def _blank(rng: Rng, _: Sources) -> Pixels:
    """Make it plain, noisy, or lit from one side."""
    shape = _size(rng)
    picture = np.full(shape, rng.uniform(0, 255))
    look = rng.integers(3)
    if look == 1:
        picture += rng.normal(0, rng.uniform(0.5, 8), shape)
    if look == 2:
        picture += _ramp(shape, rng) * rng.uniform(10, 90)
        picture += rng.normal(0, rng.uniform(0, 3), shape)
    return to_bytes(picture)


def _scribble(rng: Rng, _: Sources) -> Pixels:
    """Draw a tangle, a hatching, a spiral or several strokes across each other."""
    look = rng.integers(4)
    if look == 0:
        lines = [spline(rng.random((rng.integers(9, 22), 2)))]
    elif look == 1:
        teeth = int(rng.integers(5, 12))
        along = np.linspace(0, 1, 2 * teeth) + rng.normal(0, 0.02, 2 * teeth)
        across = np.arange(2 * teeth) % 2 + rng.normal(0, 0.08, 2 * teeth)
        lines = [spline(np.stack([along, across], axis=1))]
    elif look == 2:
        turns = rng.uniform(2.5, 5)
        phase = np.linspace(0, 2 * math.pi * turns, int(10 * turns)) + rng.uniform(0, 7)
        reach = np.linspace(0.05, 1, len(phase)) + rng.normal(0, 0.02, len(phase))
        lines = [spline(np.stack([reach * np.cos(phase), reach * np.sin(phase)], axis=1))]
    else:
        lines = [spline(rng.random((rng.integers(2, 6), 2))) for _ in range(rng.integers(4, 9))]
    shape = rng.normal(0, 1, (2, 2))
    shape /= np.abs(np.linalg.det(shape)) ** 0.5 or 1.0
    # A random shape may be so thin that the scribble is a line, and a line is a 1.
    if np.linalg.cond(shape) > 2.5:
        shape = np.eye(2)
    return blend_ink(_drawn([line @ shape for line in lines], rng), rng)


def _wandering(rng: Rng, _: Sources) -> Pixels:
    """Draw a line that wanders: its direction changes smoothly and at random, as a bored pen's."""
    while True:
        steps = int(rng.integers(50, 220))
        curvature = np.zeros(steps)
        noise = rng.normal(0, rng.uniform(0.08, 0.3), steps)
        keep = rng.uniform(0.6, 0.95)
        for i in range(1, steps):
            curvature[i] = keep * curvature[i - 1] + noise[i]
        heading = np.cumsum(curvature + rng.normal(0, 0.04)) + rng.uniform(0, 7)
        line = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
        line[:, 1] *= rng.uniform(0.5, 1.5)
        # A digit's strokes are up to about four times as long as it is high.
        if steps > rng.uniform(5, 8) * np.ptp(line, axis=0).max():
            return blend_ink(_drawn([line], rng), rng)


def _drawn(lines: list[Doubles], rng: Rng) -> Coverage:
    """Draw lines of any unit on a canvas of a user's size."""
    side = int(rng.integers(60, 300))
    everything = np.concatenate(lines)
    low, extent = everything.min(axis=0), float(np.ptp(everything, axis=0).max())
    scale = side * rng.uniform(0.5, 0.85) / extent
    pen = side * rng.uniform(0.01, 0.05)
    margin = (side - scale * np.ptp(everything, axis=0)) * rng.uniform(0.3, 0.7)
    placed = [(line - low) * scale + margin for line in lines]
    return 1 - draw_lines(placed, (side, side), max(1.0, pen)).astype(np.float32) / 255


def _noise(rng: Rng, _: Sources) -> Pixels:
    """Make grains or clouds, all over the picture."""
    shape = _size(rng)
    look = rng.integers(3)
    if look == 0:
        return to_bytes(rng.normal(rng.uniform(60, 200), rng.uniform(25, 90), shape))
    if look == 1:
        return blend_ink((rng.random(shape) < rng.uniform(0.03, 0.5)).astype(np.float32), rng)
    cells = int(rng.integers(4, 16))
    cloud = enlarge(rng.normal(0, 1, (cells, cells)), shape, Image.Resampling.BICUBIC)
    return to_bytes(rng.uniform(90, 165) + rng.uniform(30, 70) * cloud)


def _texture(rng: Rng, _: Sources) -> Pixels:
    """Make stripes, checks, gratings, rings or dots, each at least three times."""
    shape = _size(rng)
    repeats = rng.uniform(3, 9)
    if min(shape) < 60:
        repeats = rng.uniform(3, 5)
    angle = rng.uniform(0, math.pi)
    y, x = np.mgrid[: shape[0], : shape[1]] / min(shape) - 0.5
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    phase = 2 * math.pi * repeats
    shift = rng.uniform(0, 2 * math.pi, 2)
    across, along = np.sin(phase * u + shift[0]), np.sin(phase * v + shift[1])
    look = rng.integers(5)
    if look == 0:
        ink = across > rng.uniform(-0.5, 0.7)
    elif look == 1:
        ink = across * along > 0
    elif look == 2:
        ink = 0.5 + 0.5 * across
    elif look == 3:
        ink = np.sin(phase * np.hypot(u, v) + shift[0]) > rng.uniform(-0.3, 0.6)
    else:
        ink = across + along > rng.uniform(0.6, 1.4)
    return blend_ink(ink.astype(np.float32), rng)


def _character(alphabet: str, fewest: int, rng: Rng, sources: Sources) -> Pixels:
    return blend_ink(render_character(alphabet, sources.fonts, fewest, rng)[0], rng)


def _handwritten_letter(rng: Rng, sources: Sources) -> Pixels:
    fonts = sources.script_fonts or sources.fonts
    return blend_ink(write_letter(fonts, sources.scripts, rng)[0], rng)


def several_digits(
    rng: Rng,
    digits: Ink,
    *,
    n: int | None = None,
    ratio: tuple[float, float] = (0.35, 1.0),
    darkness: tuple[float, float] = (0.3, 1.0),
    gap: tuple[float, float] = (-0.05, 2.0),
) -> Coverage:
    """Put two or more digits on a canvas that they fill, one after the other.

    Args:
        rng: draws all.
        digits: (N, 28, 28) inks to choose from.
        n: how many; None is 2 to 6, fewer more often.
        ratio: limits of the others' height, as a share of the first one's.
        darkness: limits of the others' darkness, as a share of the first one's.
        gap: limits of the distance between two, in heights of the first.

    >>> ink = np.full((1, 28, 28), 255, np.uint8)
    >>> several_digits(np.random.default_rng(0), ink, n=2, gap=(0, 0)).ndim
    2
    """
    n = n or int(rng.choice([2, 3, 4, 5, 6], p=[0.5, 0.2, 0.1, 0.1, 0.1]))
    factor = rng.uniform(1, 4 if n < 4 else 2.2)
    alike = n > 2 and rng.random() < 0.6  # a number's digits are of one size and darkness
    down = rng.random() < 0.15
    pieces: list[Coverage] = []
    corners: list[tuple[int, int]] = []
    at, height = 0.0, 0.0
    for i in range(n):
        first = i == 0 or alike
        share, dark = (1.0, 1.0) if first else (rng.uniform(*ratio), rng.uniform(*darkness))
        trimmed = _trimmed(digits[rng.integers(len(digits))])
        size = [max(2, round(side * factor * share)) for side in trimmed.shape[::-1]]
        image = Image.fromarray(trimmed).resize(size, Image.Resampling.BICUBIC)
        piece = np.float32(dark / 255) * np.asarray(image, dtype=np.float32)
        height = height or float(piece.shape[0])
        across = rng.uniform(-0.1, 0.1) if alike else rng.uniform(-0.4, 0.8)
        corner = (round(at), round(across * height))
        corners.append(corner if down else corner[::-1])
        pieces.append(piece)
        at += piece.shape[0 if down else 1] + rng.uniform(*gap) * height * (0.2 if alike else 1)
    top, left = (min(c[axis] for c in corners) for axis in (0, 1))
    placed = list(zip(corners, pieces, strict=True))
    bottom, right = (max(c[axis] + p.shape[axis] for c, p in placed) for axis in (0, 1))
    canvas = np.zeros((bottom - top, right - left), dtype=np.float32)
    for (row, column), piece in placed:
        place = canvas[row - top :, column - left :][: piece.shape[0], : piece.shape[1]]
        np.maximum(place, piece, out=place)
    return canvas


def _several_digits(rng: Rng, sources: Sources) -> Pixels:
    canvas = several_digits(rng, _digits(sources))
    return blend_ink(np.pad(canvas, int(rng.integers(3, 20))), rng)


def _two_digits(rng: Rng, sources: Sources) -> Pixels:
    """Put two digits side by side, apart or just touching."""
    digits = _digits(sources)
    first, second = (_trimmed(digits[rng.integers(len(digits))]) for _ in range(2))
    gap = int(rng.integers(0, 9))
    height = max(first.shape[0], second.shape[0])
    canvas = np.zeros((height + 8, first.shape[1] + gap + second.shape[1] + 8), dtype=np.uint8)
    left = 4
    for ink in (first, second):
        top = 4 + int(rng.integers(height - ink.shape[0] + 1))
        canvas[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
        left += ink.shape[1] + gap
    return blend_ink(_enlarged(canvas, rng), rng)


def _part_of_digit(rng: Rng, sources: Sources) -> Pixels:
    """Cut off about half of a digit; what remains sometimes looks like another digit."""
    part, _ = _cut(rng, sources, (0.35, 0.55))
    return blend_ink(_enlarged(np.pad(part, 5), rng), rng)


def _cut_digit(rng: Rng, sources: Sources) -> Pixels:
    """Cut off a part that matters at the edge of the picture, as a bad crop does."""
    part, (axis, end) = _cut(rng, sources, (0.45, 0.8))
    around = rng.integers(1, 8, (2, 2))
    around[axis, end] = 0
    return blend_ink(_enlarged(np.pad(part, around), rng), rng)


def _cut(rng: Rng, sources: Sources, kept: tuple[float, float]) -> tuple[Pixels, tuple[int, int]]:
    """Return what is left of a digit, too little to read, and at which axis and end it was cut."""
    digits = _digits(sources)
    for _ in range(50):
        digit = _trimmed(digits[rng.integers(len(digits))])
        axis = int(rng.integers(2))
        size = max(1, round(digit.shape[axis] * rng.uniform(*kept)))
        end = int(rng.integers(2))
        part = slice(None, size) if end else slice(-size, None)
        left = digit[part] if axis == 0 else digit[:, part]
        # A 1 cut short is a 1, and of some digits a half is one stroke.
        if min(_trimmed(left).shape) >= 7 and int(left.sum()) < 0.75 * int(digit.sum()):
            return left, (axis, end)
    raise DataError("in 50 digits there was none of which a part is more than a stroke")


def _broken_digit(rng: Rng, sources: Sources) -> Pixels:
    """Leave out pieces of a digit until about half of its ink is missing."""
    digits = _digits(sources)
    digit = _trimmed(digits[rng.integers(len(digits))]).astype(np.float32)
    left, rows, columns = digit.copy(), *np.indices(digit.shape)
    wanted = rng.uniform(0.4, 0.65) * float(digit.sum())
    while left.sum() > wanted:
        inked = np.argwhere(left > 0)
        y, x = inked[rng.integers(len(inked))]
        left[np.hypot(rows - y, columns - x) < rng.uniform(1.5, 4)] = 0
    return blend_ink(_enlarged(np.pad(left.astype(np.uint8), 4), rng), rng)


def _digits(sources: Sources) -> Ink:
    if sources.digits is None or len(sources.digits) == 0:
        raise DataError("this kind is made from digits, and none are given")
    return sources.digits


def _trimmed(ink: Pixels) -> Pixels:
    rows, columns = np.flatnonzero(ink.max(axis=1) > 25), np.flatnonzero(ink.max(axis=0) > 25)
    if not len(rows):
        return ink[:1, :1]
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _enlarged(ink: Pixels, rng: Rng) -> Coverage:
    factor = rng.uniform(1, 7)
    size = (round(ink.shape[1] * factor), round(ink.shape[0] * factor))
    image = Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float32) / 255


_MAKERS: dict[str, Callable[[Rng, Sources], Pixels]] = {
    "blank": _blank,
    "scribble": _scribble,
    "noise": _noise,
    "texture": _texture,
    "letter": partial(_character, LETTERS, 1),
    # A font with fewer symbols is not made for them, and may draw others in their place.
    "symbol": partial(_character, SYMBOLS, 30),
    "two_digits": _two_digits,
    "part_of_digit": _part_of_digit,
    "wandering": _wandering,
    "handwritten_letter": _handwritten_letter,
    "several_digits": _several_digits,
    "cut_digit": _cut_digit,
    "broken_digit": _broken_digit,
}
KINDS = tuple(_MAKERS)
