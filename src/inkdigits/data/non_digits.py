"""What is written or seen and is no readable digit, made by code, to train and measure rejection.

Letters and symbols that have the shape of a digit are left out (``DIGIT_SHAPED``): nobody could
tell a printed O from a 0 without its neighbours.
"""

# ruff: noqa: RUF001 - look-alikes from three alphabets are what this module is about
from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from PIL import Image

from inkdigits.data.fonts import render_character
from inkdigits.data.letters import DIGIT_SHAPED, write_letter
from inkdigits.data.pen_strokes import spline
from inkdigits.data.pictures.foreground import Sources, draw
from inkdigits.data.pixels import Coverage, blend_ink, enlarge
from inkdigits.errors import DataError
from inkdigits.types import Doubles, Floats, Ink, Pixels, Rng

_GREEK = "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩαβγδεζηθικλμνξοπρςστυφχψω"
_CYRILLIC = "АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя"
_SIGNS = string.punctuation + "°×÷±≠≈√∞∑∏∂∫€£¥§¶©®←↑→↓↔■□▲△▼◆◇★☆♠♣♥♦♪♫✓✗☺"
_EXCLUDED = frozenset("".join(DIGIT_SHAPED.values()))
LETTERS = "".join(c for c in string.ascii_letters + _GREEK + _CYRILLIC if c not in _EXCLUDED)
SYMBOLS = "".join(c for c in _SIGNS if c not in _EXCLUDED)


def make_non_digits(kind: str, n: int, rng: Rng, sources: Sources) -> list[Pixels]:
    """Make n pictures (H, W) of one of ``KINDS`` on clean canvases, about 15 to 600 pixels a side.

    Errors are those of ``draw_non_digit``.

    >>> len(make_non_digits("scribble", 2, np.random.default_rng(0), Sources()))
    2
    """
    return [blend_ink(draw_non_digit(kind, rng, sources), rng) for _ in range(n)]


def draw_non_digit(kind: str, rng: Rng, sources: Sources) -> Coverage:
    """Draw one of ``KINDS``; a DataError says that the fonts or inks that it needs are missing.

    >>> draw_non_digit("texture", np.random.default_rng(0), Sources()).ndim
    2
    """
    return _MAKERS[kind](rng, sources)


def _size(rng: Rng) -> tuple[int, int]:
    """Return a height and width as users' pictures have: often square, small as often as large."""
    height = int(28 * (400 / 28) ** rng.random())
    aspect = 1.0 if rng.random() < 0.6 else math.exp(rng.uniform(-0.5, 0.5))
    return height, min(400, max(28, round(height * aspect)))


def _scribble(rng: Rng, _: Sources) -> Coverage:
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
    return _with_pen([line @ shape for line in lines], rng)


def _wandering(rng: Rng, _: Sources) -> Coverage:
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
            return _with_pen([line], rng)


def _with_pen(lines: Sequence[Doubles], rng: Rng) -> Coverage:
    """Draw lines of any unit on a canvas of a user's size."""
    side = int(rng.integers(60, 300))
    everything = np.concatenate(lines)
    scale = side * rng.uniform(0.5, 0.85) / float(np.ptp(everything, axis=0).max())
    pen = max(1.0, side * rng.uniform(0.01, 0.05))
    return np.pad(draw([line * scale for line in lines], pen, rng), int(rng.integers(2, side // 4)))


def _noise(rng: Rng, _: Sources) -> Coverage:
    """Make grains or clouds, all over the picture."""
    shape = _size(rng)
    if rng.random() < 0.5:
        return (rng.random(shape) < rng.uniform(0.03, 0.5)).astype(np.float32)
    cells = int(rng.integers(4, 16)) if rng.random() < 0.5 else min(shape)
    cloud = enlarge(rng.normal(0, 1, (cells, cells)), shape, Image.Resampling.BICUBIC)
    clouds: Floats = np.clip(0.5 + rng.uniform(0.12, 0.3) * cloud, 0, 1)
    return clouds


def _texture(rng: Rng, _: Sources) -> Coverage:
    """Make stripes, checks, gratings, rings or dots, each at least three times."""
    shape = _size(rng)
    repeats = rng.uniform(3, 9 if min(shape) >= 60 else 5)
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
    coverage: Floats = ink.astype(np.float32)
    return coverage


def _cut_digit(rng: Rng, sources: Sources) -> Coverage:
    """Cut off a part that matters, within the picture or at its edge, as a bad crop does."""
    for _ in range(50):
        digit = _trimmed(_any(sources.inks, rng))
        axis, end = int(rng.integers(2)), int(rng.integers(2))
        size = max(1, round(digit.shape[axis] * rng.uniform(0.35, 0.8)))
        part = slice(None, size) if end else slice(-size, None)
        left = digit[part] if axis == 0 else digit[:, part]
        # A 1 cut short is a 1, and of some digits a half is one stroke.
        if min(_trimmed(left).shape) >= 7 and int(left.sum()) < 0.75 * int(digit.sum()):
            around = rng.integers(1, 8, (2, 2))
            around[axis, end] *= rng.random() < 0.4
            return _enlarged(np.pad(left, around), rng)
    raise DataError("in 50 digits there was none of which a part is more than a stroke")


def _broken_digit(rng: Rng, sources: Sources) -> Coverage:
    """Leave out pieces of a digit until about half of its ink is missing."""
    digit = _trimmed(_any(sources.inks, rng)).astype(np.float32)
    left, rows, columns = digit.copy(), *np.indices(digit.shape)
    wanted = rng.uniform(0.4, 0.65) * float(digit.sum())
    while left.sum() > wanted:
        inked = np.argwhere(left > 0)
        y, x = inked[rng.integers(len(inked))]
        left[np.hypot(rows - y, columns - x) < rng.uniform(1.5, 4)] = 0
    return _enlarged(np.pad(left.astype(np.uint8), 4), rng)


def _any(digits: Ink, rng: Rng) -> Pixels:
    if not len(digits):
        raise DataError("this kind is made from digits, and none are given")
    digit: Pixels = digits[rng.integers(len(digits))]
    return digit


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


def _character(alphabet: str, fewest: int, rng: Rng, sources: Sources) -> Coverage:
    return render_character(alphabet, sources.fonts, fewest, rng)[0]


def _letter(rng: Rng, sources: Sources) -> Coverage:
    return write_letter(sources.script_fonts or sources.fonts, sources.scripts, rng)[0]


_MAKERS: dict[str, Callable[[Rng, Sources], Coverage]] = {
    "blank": lambda rng, _: np.zeros(_size(rng), np.float32),
    "scribble": _scribble,
    "noise": _noise,
    "texture": _texture,
    "letter": partial(_character, LETTERS, 1),
    # A font with fewer symbols is not made for them, and may draw others in their place.
    "symbol": partial(_character, SYMBOLS, 30),
    "wandering": _wandering,
    "handwritten_letter": _letter,
    "cut_digit": _cut_digit,
    "broken_digit": _broken_digit,
}
KINDS = tuple(_MAKERS)
