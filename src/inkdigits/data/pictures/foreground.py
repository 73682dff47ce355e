"""What a pen writes, as coverage: digits of given inks and of strokes, letters, signs, scribbles.

A patch is (h, w) float32, how much of each pixel the pen covers, with a margin of at most a few
pixels. Sizes are in pixels of the picture that it is put into.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from inkdigits.data.fonts import Font
from inkdigits.data.hands import Hands
from inkdigits.data.pen_strokes import STYLES, spline
from inkdigits.types import Doubles, Floats, Ink, Labels, Pixels, Rng

# A given ink is enlarged to this many pixels a side before it is thickened or thinned.
_FINE = 112
# The widths of pens, relative to the digit's height: hairlines, and all others.
HAIRLINES, PENS = (0.006, 0.02), (0.02, 0.3)
# The shares of pens that draw hairlines, and of thin pens that draw hard pixels.
_HAIRLINE_SHARE, _HARD_SHARE = 0.25, 0.45
# Of digits those by other hands, where there are some; and of those the ones from strokes.
_HANDS_SHARE, _STROKES_SHARE = 0.25, 0.5
_LETTERS = "ABCDEFGHJKLMNPRTUVWXYabcdefhjkmnprtuvwxyzäöüñßÆλπΣΩЖФЯю"
_SIGNS = "+-=%&#*?!()/<>€$£¥→:;,."


@dataclass(frozen=True, slots=True)
class Sources:
    """What pictures are made from; each may be empty."""

    inks: Ink = field(default_factory=lambda: np.zeros((0, 28, 28), np.uint8))  # (N, 28, 28)
    labels: Labels = field(default_factory=lambda: np.zeros(0, np.int64))  # (N,) of the inks
    fonts: Sequence[Font] = ()  # for print, letters and symbols; see ``fonts.find_fonts``
    hands: Hands = field(default_factory=Hands)  # digits of other hands
    styles: bool = True  # whether digits are drawn in the styles of ``pen_strokes`` too
    # For letters as if by hand: fonts, with or without Latin letters, and names of ``SCRIPTS``.
    script_fonts: Sequence[Font] = ()
    scripts: Sequence[str] = ("Latin", "Greek", "Cyrillic")


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Return a number between two, each factor as likely.

    >>> 1 <= log_uniform(np.random.default_rng(0), 1, 100) <= 100
    True
    """
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def write_digit(
    height: float, rng: Rng, sources: Sources, *, drawn: bool, pen: float | None = None
) -> tuple[Floats, int]:
    """Write a digit about ``height`` pixels high; return its patch, and which digit it is.

    It is of strokes if ``drawn``, or else of a given ink; a share is by other hands. Strokes have a
    ``pen`` whose width is relative to the height; None draws it.

    >>> patch, digit = write_digit(20.0, np.random.default_rng(0), Sources(), drawn=True)
    >>> 18 <= len(patch) <= 45, 0 <= digit <= 9
    (True, True)
    """
    is_alone = not (sources.styles or len(sources.inks))
    if len(sources.hands) and (is_alone or rng.random() < _HANDS_SHARE):
        return _by_hand(height, rng, sources.hands, pen)
    if (drawn and sources.styles) or not len(sources.inks):
        digit = int(rng.choice([1, 4, 7]) if rng.random() < 0.3 else rng.integers(10))
        styles = list(STYLES[digit])
        return write_style(digit, styles[rng.integers(len(styles))], height, rng, pen), digit
    at = int(rng.integers(len(sources.inks)))
    return _of_ink(sources.inks[at], height, rng), int(sources.labels[at])


def _by_hand(height: float, rng: Rng, hands: Hands, pen: float | None) -> tuple[Floats, int]:
    """Write a digit of other hands: strokes with a pen, or a bitmap."""
    share = 0.0 if not hands.strokes else 1.0 if not len(hands.bitmaps) else _STROKES_SHARE
    if rng.random() >= share:
        at = int(rng.integers(len(hands.bitmaps)))
        return _of_ink(np.uint8(255) * hands.bitmaps[at], height, rng), int(hands.bitmap_labels[at])
    at = int(rng.integers(len(hands.strokes)))
    everything = np.concatenate(hands.strokes[at])
    low, extent = everything.min(axis=0), np.ptp(everything, axis=0)
    scale = np.array([rng.uniform(0.85, 1.18), 1.0]) * height / max(float(extent.max()), 1e-9)
    lines = [(line - low - extent / 2) * scale for line in hands.strokes[at]]
    angle, slant = math.radians(rng.uniform(-6, 6)), rng.normal(0, 0.08)
    return draw(_turned(lines, angle, slant), _pen(height, pen, rng), rng), int(
        hands.stroke_labels[at]
    )


def _pen(height: float, pen: float | None, rng: Rng) -> float:
    return max(0.8, height * (pen or pen_width(rng)))


def _turned(lines: Sequence[Doubles], angle: float, slant: float) -> list[Doubles]:
    cosine, sine = math.cos(angle), math.sin(angle)
    shape = np.array([[cosine, -sine], [sine, cosine]]) @ np.array([[1.0, -slant], [0.0, 1.0]])
    return [line @ shape.T for line in lines]


def _of_ink(ink: Pixels, height: float, rng: Rng) -> Floats:
    """Return a given ink (N, N) about ``height`` pixels high, thickened or thinned at times."""
    image = Image.fromarray(ink).resize((_FINE, _FINE), Image.Resampling.BICUBIC)
    look, covered = rng.random(), int((ink > 127).sum())
    if look < 0.25:
        image = image.filter(ImageFilter.MaxFilter(int(rng.choice([3, 5, 7, 9, 13]))))
    elif look < 0.5 and covered > 85:
        image = image.filter(ImageFilter.MinFilter(5 if covered > 110 and look < 0.38 else 3))
    box = image.point(lambda value: 255 * (value > 60)).getbbox() or (50, 40, 58, 72)
    image = image.crop((box[0] - 4, box[1] - 4, box[2] + 4, box[3] + 4))
    scale = height / max(1, image.height - 8)
    size = (max(3, round(image.width * scale)), max(4, round(image.height * scale)))
    method = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX
    image = image.resize(size, method)
    image = image.rotate(rng.uniform(-15, 15), Image.Resampling.BICUBIC, expand=True)
    values = np.asarray(image, np.float32) / np.float32(255)
    # Enlarging leaves ramps where a pen has edges.
    steep = np.float32(rng.uniform(1.0, max(1.2, min(5.0, scale * 5))))
    covers: Floats = np.clip((values - 0.42) * steep + 0.45, 0, 1) * (values > 0.03)
    return covers


def write_style(digit: int, name: str, height: float, rng: Rng, pen: float | None = None) -> Floats:
    """Return a digit in the style of that name of ``STYLES``, about ``height`` pixels high.

    >>> write_style(1, "lambda", 40.0, np.random.default_rng(0)).ndim
    2
    """
    style = STYLES[digit][name]
    is_ruler = rng.random() < 0.4  # straight lines, as a mouse or a ruler draws them
    bend = rng.normal(0, 0.005 if is_ruler else 0.03, (2, 2))
    size = height * np.array([style.width * rng.uniform(0.75, 1.3), 1.0])
    lines = []
    for stroke in style.strokes():
        pieces: list[Doubles] = []
        for piece in stroke:
            points = np.array(piece) + rng.normal(0, 0.006 if is_ruler else 0.028, (len(piece), 2))
            if pieces:
                points[0] = pieces[-1][-1]
            pieces.append(spline(points, 8))
        line = np.concatenate(pieces)
        # A bow along each axis: a hand's straight lines are not straight.
        line = line + np.sin(math.pi * line[:, ::-1]) * bend[0] + bend[1] * line**2
        lines.append((line - 0.5) * size)
    angle = math.radians(rng.uniform(-12, 12) if rng.random() < 0.8 else rng.uniform(-30, 30))
    # Many hands write upright; MNIST's lean to the right.
    slant = rng.uniform(-0.15, 0.4) if rng.random() < 0.7 else rng.normal(0, 0.04)
    return draw(_turned(lines, angle, slant), _pen(height, pen, rng), rng)


def pen_width(rng: Rng) -> float:
    """Return the width of a pen, relative to the height of a digit.

    >>> HAIRLINES[0] <= pen_width(np.random.default_rng(0)) <= PENS[1]
    True
    """
    return log_uniform(rng, *(HAIRLINES if rng.random() < _HAIRLINE_SHARE else PENS))


def draw(lines: Sequence[Doubles], pen: float, rng: Rng) -> Floats:
    """Return the coverage of lines (K, 2), x and y in pixels, by a pen of a diameter in pixels.

    >>> draw([np.array([[0.0, 0.0], [9.0, 0.0]])], 1.0, np.random.default_rng(0)).max() > 0
    np.True_
    """
    pen *= 0.85 + 0.3 * rng.random()
    factor = 3 if pen < 4 else 2
    if pen <= 2.2 and rng.random() < _HARD_SHARE:
        factor = 1  # hard pixels, as simple canvases draw them
    wide = max(1, round(pen * factor))
    everything = np.concatenate(lines) * factor
    low = everything.min(axis=0) - wide / 2 - factor
    extent = everything.max(axis=0) + wide / 2 + factor - low
    columns, rows = ((np.ceil(extent / factor).astype(int) + 1) * factor).tolist()
    image = Image.new("L", (columns, rows), 0)
    canvas = ImageDraw.Draw(image)
    for line in lines:
        points = [(x, y) for x, y in (line * factor - low).tolist()]
        canvas.line(points, fill=255, width=wide, joint="curve" if wide > 4 else None)
        ends = (points if wide > 8 else (points[0], points[-1])) if wide > 2 else ()
        for x, y in ends:
            canvas.ellipse((x - wide / 2, y - wide / 2, x + wide / 2, y + wide / 2), fill=255)
    return np.asarray(image.reduce(factor), np.float32) / np.float32(255)


def write_sign(height: float, rng: Rng, sources: Sources) -> Floats:
    """Return a large character or a scribble, written with the same pens.

    >>> write_sign(20.0, np.random.default_rng(0), Sources()).ndim
    2
    """
    look = rng.random()
    if look < 0.6 and sources.fonts:
        text = _LETTERS if rng.random() < 0.7 else _SIGNS
        return write_character(text[rng.integers(len(text))], height, rng, sources.fonts)
    pen = max(0.8, height * log_uniform(rng, 0.02, 0.12))
    points = rng.random((rng.integers(4, 16), 2)) * height * (rng.uniform(0.5, 1.5), 1)
    return draw([spline(points, 6)], pen, rng)


def write_dot(height: float, rng: Rng) -> Floats:
    """Return a dot, a comma or a dash, as between the digits of an amount of this height.

    >>> write_dot(30.0, np.random.default_rng(0)).max() > 0.5
    np.True_
    """
    if rng.random() < 0.3:
        end = (height * rng.uniform(0.3, 0.7), rng.normal(0, 0.04) * height)
    else:
        reach = height * rng.uniform(0.01, 0.2)
        end = (rng.normal(0, 0.3) * reach, reach)
    return draw([np.array([(0.0, 0.0), end])], max(1.0, height * rng.uniform(0.05, 0.14)), rng)


def write_character(character: str, height: float, rng: Rng, fonts: Sequence[Font]) -> Floats:
    """Return a character of a font, about as high as asked, slightly turned.

    >>> from inkdigits.data.fonts import find_fonts
    >>> write_character("7", 40.0, np.random.default_rng(0), find_fonts("train")).ndim
    2
    """
    face = font_face(rng, fonts, height * 1.35)
    left, top, right, bottom = (round(v) for v in face.getbbox(character))
    image = Image.new("L", (max(3, right - left + 4), max(3, bottom - top + 4)), 0)
    ImageDraw.Draw(image).text((2 - left, 2 - top), character, fill=255, font=face)
    turned = image.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC, expand=True)
    return np.asarray(turned, np.float32) / np.float32(255)


def font_face(rng: Rng, fonts: Sequence[Font], size: float) -> ImageFont.FreeTypeFont:
    """Return one of the fonts in about a size, in pixels.

    >>> from inkdigits.data.fonts import find_fonts
    >>> font_face(np.random.default_rng(0), find_fonts("train"), 20.0).size
    20
    """
    # Few sizes, so that faces are found again.
    step = max(6, round(size / 4) * 4 if size > 24 else round(size))
    return _face(str(fonts[int(rng.integers(len(fonts)))].path), step)


@lru_cache(maxsize=800)
def _face(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def draw_digits(n: int, rng: Rng) -> tuple[Pixels, Labels]:
    """Draw a digit on each of n canvases (n, 280, 280), black on white; the digits take turns.

    >>> draw_digits(3, np.random.default_rng(0))[1].tolist()
    [0, 1, 2]
    """
    labels = np.arange(n, dtype=np.int64) % 10
    pictures = np.full((n, 280, 280), 255, dtype=np.uint8)
    for picture, digit in zip(pictures, labels.tolist(), strict=True):
        styles, height, pen = list(STYLES[digit]), rng.uniform(90, 200), rng.uniform(0.04, 0.12)
        patch = write_style(digit, styles[rng.integers(len(styles))], height, rng, pen)[:280, :280]
        top, left = ((np.array((280, 280)) - patch.shape) * rng.random(2)).astype(int)
        area = slice(top, top + patch.shape[0]), slice(left, left + patch.shape[1])
        picture[area] = np.rint(255 * (1 - patch))
    return pictures, labels
