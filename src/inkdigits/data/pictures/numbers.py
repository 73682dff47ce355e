"""Numbers and tables: several digits on one line, by one writer where the writers are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias, get_args

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from inkdigits.data.mnist import Digits
from inkdigits.data.pictures.surroundings import light_of
from inkdigits.data.pixels import enlarge, to_bytes
from inkdigits.decision.ctc import OTHER, SYMBOLS
from inkdigits.types import Floats, Ink, Labels, Pixels, Rng

Setting: TypeAlias = Literal["spaced", "boxed", "touching", "photographed"]
SETTINGS: tuple[Setting, ...] = get_args(Setting)


# Signs as strokes: width by height, and the corners of each line in shares of both, y down.
_S = ((0.95, 0.2), (0.5, 0.1), (0.1, 0.25), (0.5, 0.5), (0.9, 0.72), (0.5, 0.9), (0.05, 0.8))
_SIGNS: dict[str, tuple[float, tuple[tuple[tuple[float, float], ...], ...]]] = {
    "$": (0.5, (_S, ((0.5, 0.0), (0.5, 1.0)))),
    "#": (0.7, (((0.1, 0.38), (1.0, 0.32)), ((0.0, 0.68), (0.9, 0.62)),
                ((0.38, 0.1), (0.2, 0.9)), ((0.8, 0.1), (0.62, 0.9)))),
    "=": (0.4, (((0.0, 0.42), (1.0, 0.4)), ((0.0, 0.62), (1.0, 0.6)))),
    "*": (0.35, (((0.5, 0.3), (0.5, 0.7)), ((0.05, 0.4), (0.95, 0.6)), ((0.05, 0.6), (0.95, 0.4)))),
    "x": (0.4, (((0.0, 0.4), (1.0, 0.85)), ((1.0, 0.4), (0.0, 0.85)))),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class WrittenDigits:
    """Digits to write numbers with."""

    inks: Ink  # (N, 28, 28)
    labels: Labels  # (N,), 0 to 9
    writers: Labels | None = None  # (N,); None where they are not known

    @classmethod
    def of(cls, digits: Digits) -> WrittenDigits:
        """Write with the digits of a data set."""
        writers = None if digits.writers is None else digits.writers.numpy()
        return cls(digits.inks.numpy(), digits.labels.numpy(), writers)

    def draw(self, length: int, rng: Rng) -> Labels:
        """Return the places of ``length`` digits, any digit as often, of one writer if known."""
        candidates = np.arange(len(self.labels))
        if self.writers is not None:
            candidates = np.flatnonzero(self.writers == rng.choice(self.writers))
        known = np.unique(self.labels[candidates])
        wanted = rng.choice(known, length)
        places = [rng.choice(candidates[self.labels[candidates] == digit]) for digit in wanted]
        return np.array(places, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class WrittenNumber:
    """A picture of a number, and what it is."""

    picture: Pixels  # (H, W)
    text: str  # its digits
    boxes: tuple[tuple[int, int, int, int], ...]  # of each digit: left, top, width, height


def write_numbers(
    digits: WrittenDigits,
    n: int,
    rng: Rng,
    setting: Setting,
    *,
    lengths: tuple[int, int] = (3, 8),
    signs: float = 0.3,
) -> list[WrittenNumber]:
    """Write n numbers, each as one field of a form.

    "spaced" digits are apart, sometimes on a printed line; "boxed" ones each in a printed box;
    of "touching" ones more than half of the neighbours touch or overlap; "photographed" ones are
    spaced or boxed, on paper in uneven light.

    ``lengths`` are the fewest and most digits of a number, and ``signs`` the share of numbers with
    commas, dots, dashes or currency signs.

    >>> digits = WrittenDigits(np.full((1, 28, 28), 255, np.uint8), np.array([8]))
    >>> write_numbers(digits, 1, np.random.default_rng(0), "spaced", lengths=(3, 3))[0].text
    '888'
    """
    return [_number(digits, setting, lengths, signs, rng) for _ in range(n)]


def write_table(
    digits: WrittenDigits, rows: int, columns: int, rng: Rng, *, empty: float = 0.3
) -> tuple[Pixels, list[tuple[tuple[int, int, int, int], str]]]:
    """Write a table with one digit per cell, and leave a share of the cells empty.

    Returns:
        The picture (H, W), and left, top, width, height of each cell with its digit or "".

    >>> digits = WrittenDigits(np.full((1, 28, 28), 255, np.uint8), np.array([8]))
    >>> picture, cells = write_table(digits, 2, 3, np.random.default_rng(0))
    >>> len(cells)
    6
    """
    side = int(rng.integers(36, 80))
    width = side * rng.uniform(1.0, 1.8)
    margin = side // 2
    shape = (rows * side + 2 * margin, round(columns * width) + 2 * margin)
    coverage, lines = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    xs = [margin + round(i * width) for i in range(columns + 1)]
    ys = [margin + i * side for i in range(rows + 1)]
    thick = int(rng.integers(1, 4))
    for y in ys:
        lines[y : y + thick, xs[0] : xs[-1] + thick] = 1
    for x in xs:
        lines[ys[0] : ys[-1] + thick, x : x + thick] = 1
    cells = []
    for top in ys[:-1]:
        for left, right in pairwise(xs):
            text = ""
            if rng.random() >= empty:
                (at,) = digits.draw(1, rng)
                text = str(digits.labels[at])
                stroke = _trimmed(digits.inks[at], side * rng.uniform(0.45, 0.75), 0.0, rng)
                free_y, free_x = side - stroke.shape[0], right - left - stroke.shape[1]
                y = top + thick + int(rng.uniform(0.1, 0.9) * max(0, free_y - thick))
                x = left + thick + int(rng.uniform(0.1, 0.9) * max(0, free_x - thick))
                _lay(coverage, stroke, y, x)
            cells.append(((left, top, right - left, side), text))
    return _printed_and_written(coverage, lines, rng), cells


def _number(
    digits: WrittenDigits, setting: Setting, lengths: tuple[int, int], signs: float, rng: Rng
) -> WrittenNumber:
    how = SETTINGS[rng.integers(2)] if setting == "photographed" else setting
    height = rng.uniform(24, 70)
    places = digits.draw(int(rng.integers(lengths[0], lengths[1] + 1)), rng)
    slant = rng.uniform(-0.25, 0.35)
    strokes = [_trimmed(digits.inks[at], height * rng.uniform(0.88, 1.08), slant, rng)
               for at in places]  # fmt: skip
    tall = round(1.15 * height)
    margins = [round(height * rng.uniform(0.2, 0.9)) for _ in range(4)]
    pitch = round(max(1.25 * height, 0.25 * height + max(s.shape[1] for s in strokes)))
    width = sum(s.shape[1] for s in strokes) + len(strokes) * pitch + 4 * tall
    coverage = np.zeros((tall + margins[0] + margins[1], width), dtype=np.float32)
    lines = np.zeros_like(coverage)
    marked = how != "boxed" and rng.random() < signs
    right, boxes = margins[2], []
    if marked and rng.random() < 0.3:
        first = "$" if rng.random() < 0.7 else "-#=*x"[rng.integers(5)]
        right = _sign(coverage, first, right, margins[0], tall, rng)
    comma = rng.integers(1, len(strokes)) if marked and len(strokes) > 1 else 0
    for i, stroke in enumerate(strokes):
        top = margins[0] + round(rng.uniform(0, max(0, tall - stroke.shape[0])))
        if how == "boxed":
            left = margins[2] + i * pitch + (pitch - stroke.shape[1]) // 2
        elif i and how == "touching" and rng.random() < 0.65 and i != comma:
            left = _contact(coverage, stroke, top, rng)
        else:
            left = right + (round(max(2, height * rng.uniform(0.06, 0.4))) if i else 0)
        _lay(coverage, stroke, top, left)
        boxes.append((left, top, stroke.shape[1], stroke.shape[0]))
        right = max(right, left + stroke.shape[1])
        if comma == i + 1:
            right = _sign(coverage, ".,"[rng.integers(2)], right, margins[0], tall, rng)
    if marked and rng.random() < 0.3:
        last = "-" if rng.random() < 0.7 else "#=*x"[rng.integers(4)]
        right = _sign(coverage, last, right, margins[0], tall, rng)
    if how == "boxed":
        right = margins[2] + len(strokes) * pitch
        _print_cells(lines, margins[2], margins[0], pitch, len(strokes), tall, rng)
    elif rng.random() < 0.25:
        base = min(len(lines) - 2, margins[0] + tall + round(height * rng.uniform(-0.04, 0.12)))
        lines[base : base + int(rng.integers(1, 3))] = 1
    coverage, lines = (a[:, : right + margins[3]] for a in (coverage, lines))
    text = "".join(str(digit) if digit >= 0 else SYMBOLS[OTHER] for digit in digits.labels[places])
    picture = (_captured if setting == "photographed" else _printed_and_written)(
        coverage, lines, rng
    )
    return WrittenNumber(picture, text, tuple(boxes))


def _trimmed(ink: Ink, height: float, slant: float, rng: Rng) -> Floats:
    """Return the box of a digit's ink, as high as 20 of its pixels are at ``height``."""
    scale = height / 20
    image = Image.fromarray(np.pad(ink, 8))
    side = round(44 * scale)
    image = image.resize((side, side), Image.Resampling.BICUBIC)
    shear = (1, slant, -slant * side / 2, 0, 1, 0)
    image = image.transform(image.size, Image.Transform.AFFINE, shear, Image.Resampling.BILINEAR)
    image = image.rotate(rng.normal(0, 2.5), Image.Resampling.BILINEAR)
    values = np.asarray(image, dtype=np.float32) / 255
    covered: Floats = np.clip((values - 0.42) * np.float32(max(1.0, scale)) + 0.5, 0, 1)
    covered[values < 0.05] = 0
    ys, xs = np.nonzero(covered > 0.3)
    if not len(ys):
        return covered[:1, :1]
    return covered[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]


def _lay(coverage: Floats, stroke: Floats, top: int, left: int) -> None:
    part = coverage[top : top + stroke.shape[0], left : left + stroke.shape[1]]
    np.maximum(part, stroke[: part.shape[0], : part.shape[1]], out=part)


def _contact(coverage: Floats, stroke: Floats, top: int, rng: Rng) -> int:
    """Return where a stroke's left side goes, so that it touches or overlaps what is there."""
    there = coverage[top : top + stroke.shape[0]] > 0.5
    own = stroke[: len(there)] > 0.5
    rows = np.flatnonzero(there.any(axis=1) & own.any(axis=1))
    ends = there.shape[1] - np.argmax(there[rows, ::-1], axis=1)
    touch = int((ends - np.argmax(own[rows], axis=1)).max()) if len(rows) else int(
        np.flatnonzero(coverage.any(axis=0)).max(initial=0)
    )  # fmt: skip
    return max(0, touch - int(rng.integers(1, max(2, round(0.08 * stroke.shape[0])) + 1)))


def _sign(coverage: Floats, sign: str, right: int, top: int, tall: int, rng: Rng) -> int:
    """Write a sign after what is there, and return where it ends."""
    left = right + max(2, round(tall * rng.uniform(0.05, 0.15)))
    pen = max(2.0, tall * rng.uniform(0.05, 0.1))
    base = top + tall * rng.uniform(0.85, 0.98)
    if sign in _SIGNS:
        aspect, lines = _SIGNS[sign]
        wide = tall * aspect * rng.uniform(0.8, 1.2)
        strokes = [[(left + x * wide, top + y * tall) for x, y in line] for line in lines]
    elif sign == "-":
        wide = tall * rng.uniform(0.2, 0.45)
        y = top + tall * rng.uniform(0.45, 0.6)
        strokes = [[(left, y), (left + wide, y)]]
    else:
        wide = 1.2 * pen
        drop = tall * rng.uniform(0.08, 0.18) if sign == "," else 0.3
        strokes = [[(left + wide, base), (left + wide - 0.5 * drop, base + drop)]]
    _draw(coverage, strokes, pen)
    return round(left + wide + tall * rng.uniform(0.03, 0.12))


def _draw(coverage: Floats, strokes: Sequence[Sequence[tuple[float, float]]], pen: float) -> None:
    image = Image.new("L", coverage.shape[::-1], 0)
    draw = ImageDraw.Draw(image)
    for stroke in strokes:
        draw.line(list(stroke), fill=255, width=round(pen), joint="curve")
    np.maximum(coverage, np.asarray(image, np.float32) / 255, out=coverage)


def _print_cells(
    lines: Floats, left: int, top: int, pitch: int, n: int, tall: int, rng: Rng
) -> None:
    """Print a box for each digit: joined or apart, some of them open at the top."""
    thick = int(rng.integers(1, 4))
    over = round(tall * rng.uniform(0.08, 0.2))
    low, high = max(0, top - over), min(len(lines) - thick, top + tall + over)
    apart = round(rng.uniform(0.04, 0.1) * pitch) if rng.random() < 0.4 else 0
    has_top = rng.random() < 0.85
    for i in range(n):
        start, end = left + i * pitch + apart, left + (i + 1) * pitch - apart
        for y in (low, high) if has_top else (high,):
            lines[y : y + thick, start : end + thick] = 1
        for x in (start, end):
            lines[low : high + thick, x : x + thick] = 1


def _printed_and_written(coverage: Floats, lines: Floats, rng: Rng) -> Pixels:
    """Return what a scanner or a canvas has: a plain background with a little noise at times."""
    light = rng.uniform(225, 255) if rng.random() < 0.6 else 255.0
    pen, print_shade = rng.uniform(0, 90), rng.uniform(0, 190)
    surface = light + lines * np.float32(print_shade - light)
    surface += coverage * (np.float32(pen) - surface)
    if rng.random() < 0.4:
        surface += rng.normal(0, rng.uniform(0.5, 3), surface.shape).astype(np.float32)
    return to_bytes(surface if rng.random() < 0.9 else 255 - surface)


def _captured(coverage: Floats, lines: Floats, rng: Rng) -> Pixels:
    """Return a photograph: paper with its grain in uneven light, a lens and a sensor."""
    paper = rng.uniform(150, 245)
    pen, print_shade = rng.uniform(15, 0.5 * paper), rng.uniform(0.3, 0.8) * paper
    shape = coverage.shape
    coarse = rng.standard_normal((shape[0] // 3 + 2, shape[1] // 3 + 2), dtype=np.float32)
    surface = paper * (1 + np.float32(rng.uniform(0.0, 0.04)) * enlarge(coarse, shape))
    surface = surface + lines * np.float32(0.8) * (np.float32(print_shade) - surface)
    surface += coverage * (np.float32(pen) - surface)
    surface *= light_of((shape[0], shape[1]), rng)
    surface += rng.standard_normal(shape, dtype=np.float32) * rng.uniform(1, 5)
    image = Image.fromarray(to_bytes(surface)).rotate(
        rng.normal(0, 1.2), Image.Resampling.BILINEAR, fillcolor=int(surface.mean())
    )
    return np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2))))
