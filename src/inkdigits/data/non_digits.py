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
from inkdigits.data.pen_strokes import draw_lines, spline
from inkdigits.data.pixels import Coverage, blend_ink, enlarge, to_bytes
from inkdigits.errors import ConfigError, DataError
from inkdigits.types import Doubles, Ink, Pixels, Rng

# Characters with the shape of a digit, printed or handwritten, once they are scaled to one size.
DIGIT_SHAPED = {
    0: "OoQDΟοΘθσΦφОоФфЮю°@()",
    1: "IliJjΙι`|!/\\-_'\",.;:∫",
    2: "Zz?Ζ",
    3: "ЗзЭэζξ",
    4: "Чч",
    5: "Ss$ς",
    6: "bGбδ∂",
    8: "B&ΒβВв",
    9: "gqд",
}
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
    digits: Ink | None = None  # (N, 28, 28) inks for two_digits and part_of_digit


def make_non_digits(kind: str, n: int, rng: Rng, sources: Sources | None = None) -> list[Pixels]:
    """Make n pictures (H, W) of one of ``KINDS``, about 15 to 450 pixels a side.

    "letter" and "symbol" need fonts, and "two_digits" and "part_of_digit" digits, as sources.

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


def _two_digits(rng: Rng, sources: Sources) -> Pixels:
    """Put two digits side by side, apart or just touching."""
    first, second = (_trimmed(_digit(rng, sources)) for _ in range(2))
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
    for _ in range(50):
        digit = _trimmed(_digit(rng, sources))
        axis = int(rng.integers(2))
        kept = max(1, round(digit.shape[axis] * rng.uniform(0.35, 0.55)))
        part = slice(None, kept) if rng.random() < 0.5 else slice(-kept, None)
        left = digit[part] if axis == 0 else digit[:, part]
        # A 1 cut short is a 1, and of some digits a half is one stroke.
        if min(_trimmed(left).shape) >= 7 and int(left.sum()) < 0.75 * int(digit.sum()):
            return blend_ink(_enlarged(np.pad(left, 5), rng), rng)
    raise DataError("in 50 digits there was none of which a half is more than a stroke")


def _digit(rng: Rng, sources: Sources) -> Pixels:
    if sources.digits is None or len(sources.digits) == 0:
        raise DataError("this kind is made from digits, and none are given")
    ink: Pixels = sources.digits[rng.integers(len(sources.digits))]
    return ink


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
}
KINDS = tuple(_MAKERS)
