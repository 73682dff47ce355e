"""Digits in a scene: a sheet on a table, a note on a wall, a small digit on a page, a number.

They are for reports and tests; training does not use them. They measure preprocessing beyond
``photos``, where paper fills the picture and a digit has at least 30 % of its height. Numbers are
several digits on one line, by one writer where the writers are known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias, get_args

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from inkdigits.data.pixels import check_inks, enlarge, to_bytes
from inkdigits.errors import DataError
from inkdigits.types import Floats, Ink, Labels, Pixels, Rng

Scene: TypeAlias = Literal["table", "note", "page"]
SCENES: tuple[Scene, ...] = get_args(Scene)


def photograph_scenes(inks: Ink, rng: Rng, scene: Scene | None = None) -> list[Pixels]:
    """Photograph each digit in a scene, 400 to 700 pixels the longer side; empty ink leaves it out.

    "table" is a sheet on a darker table, which shows on two sides or more; "note" a small sheet
    that the digit fills, on a wall; "page" paper that fills the picture, in uneven light, with a
    digit of 8 to 20 % of its shorter side. None draws one per digit.

    >>> len(photograph_scenes(np.zeros((2, 28, 28), np.uint8), np.random.default_rng(0)))
    2
    """
    check_inks(inks)
    return [_scene(ink, scene or SCENES[rng.integers(len(SCENES))], rng) for ink in inks]


def _scene(ink: Ink, scene: Scene, rng: Rng) -> Pixels:
    longer = int(rng.integers(400, 701))
    shorter = round(longer * rng.uniform(0.7, 1.0))
    width, height = (shorter, longer) if rng.random() < 0.5 else (longer, shorter)
    paper = rng.uniform(185, 245)
    pen = rng.uniform(20, 0.5 * paper)
    surface = np.full((height, width), paper, dtype=np.float32)
    share = {"table": (0.15, 0.45), "note": (0.3, 0.5), "page": (0.08, 0.2)}[scene]
    size = round(min(height, width) * rng.uniform(*share))
    room = 0.3 * size if scene == "note" else 0.12 * min(height, width)
    left = rng.uniform(room, width - size - room)
    top = rng.uniform(room, height - size - room)
    if scene != "page":
        behind = surroundings(scene, paper, (height, width), rng)
        box = (left, top, left + size, top + size)
        sheet = sheet_of(scene, box, (height, width), rng)
        surface += (1 - sheet) * (behind - surface)
    y, x = round(top), round(left)
    stroke = _stroke(ink, size, rng)
    part = surface[y : y + size, x : x + size]
    part += stroke * (np.float32(pen) - part)
    surface *= _light((height, width), rng)
    surface += rng.standard_normal(surface.shape, dtype=np.float32) * rng.uniform(1, 5)
    image = Image.fromarray(to_bytes(surface))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2))))


def _stroke(ink: Ink, size: int, rng: Rng) -> Floats:
    """Return (size, size) float32, how much of each pixel the pen covers."""
    image = Image.fromarray(ink).resize((size, size), Image.Resampling.BICUBIC)
    image = image.rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR)
    values = np.asarray(image, dtype=np.float32) / 255
    # Enlarging leaves ramps where a pen has edges.
    covered: Floats = np.clip((values - 0.4) * max(1.0, size / 28) + 0.5, 0, 1)
    return covered if ink.any() else np.zeros_like(values)


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


def _light(shape: tuple[int, int], rng: Rng) -> Floats:
    """Return a lamp's light, brighter to one side and darker towards the picture's corners."""
    y = np.linspace(-0.5, 0.5, shape[0], dtype=np.float32)[:, np.newaxis]
    x = np.linspace(-0.5, 0.5, shape[1], dtype=np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    light = 1 + np.float32(rng.uniform(0, 0.5)) * (math.cos(angle) * x + math.sin(angle) * y)
    light *= 1 - np.float32(rng.uniform(0, 1.2)) * (x * x + y * y)
    return np.asarray(light / light.max(), dtype=np.float32)


Setting: TypeAlias = Literal["spaced", "boxed", "touching", "photographed"]
SETTINGS: tuple[Setting, ...] = get_args(Setting)


@dataclass(frozen=True, slots=True)
class WrittenDigits:
    """Digits to write numbers with."""

    inks: Ink  # (N, 28, 28)
    labels: Labels  # (N,), 0 to 9
    writers: Labels | None = None  # (N,); None where they are not known

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

    Args:
        digits: what is written with.
        n: how many.
        rng: the source of randomness.
        setting: how they are written.
        lengths: the fewest and most digits of a number.
        signs: the share of numbers with commas, dots, dashes or currency signs.

    Raises:
        DataError: no digits, or of another shape.

    >>> digits = WrittenDigits(np.full((1, 28, 28), 255, np.uint8), np.array([8]))
    >>> write_numbers(digits, 1, np.random.default_rng(0), "spaced", lengths=(3, 3))[0].text
    '888'
    """
    check_inks(digits.inks)
    if not len(digits.labels):
        raise DataError("there are no digits to write numbers with")
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
        right = _sign(coverage, "$" if rng.random() < 0.7 else "-", right, margins[0], tall, rng)
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
        right = _sign(coverage, "-", right, margins[0], tall, rng)
    if how == "boxed":
        right = margins[2] + len(strokes) * pitch
        _print_cells(lines, margins[2], margins[0], pitch, len(strokes), tall, rng)
    elif rng.random() < 0.25:
        base = min(len(lines) - 2, margins[0] + tall + round(height * rng.uniform(-0.04, 0.12)))
        lines[base : base + int(rng.integers(1, 3))] = 1
    coverage, lines = coverage[:, : right + margins[3]], lines[:, : right + margins[3]]
    text = "".join(str(digits.labels[at]) for at in places)
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
        np.flatnonzero(coverage.any(axis=0)).max()
    )  # fmt: skip
    return max(0, touch - int(rng.integers(1, max(2, round(0.08 * stroke.shape[0])) + 1)))


def _sign(coverage: Floats, sign: str, right: int, top: int, tall: int, rng: Rng) -> int:
    """Write a sign after what is there, and return where it ends."""
    left = right + max(2, round(tall * rng.uniform(0.05, 0.15)))
    pen = max(2.0, tall * rng.uniform(0.05, 0.1))
    base = top + tall * rng.uniform(0.85, 0.98)
    if sign == "$":
        wide = 0.5 * tall
        s = [(0.95, 0.2), (0.5, 0.1), (0.1, 0.25), (0.5, 0.5), (0.9, 0.72), (0.5, 0.9), (0.05, 0.8)]
        strokes = [[(left + x * wide, top + y * tall) for x, y in s]]
        strokes.append([(left + wide / 2, top), (left + wide / 2, top + tall)])
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
    surface *= _light((shape[0], shape[1]), rng)
    surface += rng.standard_normal(shape, dtype=np.float32) * rng.uniform(1, 5)
    image = Image.fromarray(to_bytes(surface)).rotate(
        rng.normal(0, 1.2), Image.Resampling.BILINEAR, fillcolor=int(surface.mean())
    )
    return np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2))))
