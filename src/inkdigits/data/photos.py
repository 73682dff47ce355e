"""Digits on paper as a camera sees them, made from 28x28 inks.

A photograph is paper (shade, grain, printed lines) with a stroke on it (width, darkness, gaps as of
a pencil or chalk) and dirt. It is lit (gradient, vignetting, a shadow's edge) and captured (blur,
noise, resolution, JPEG). Light multiplies shades. No figure here is fitted to data: they cover the
pictures that phones take.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from inkdigits.data.pixels import check_inks, enlarge, to_bytes
from inkdigits.errors import ConfigError
from inkdigits.types import Floats, Ink, Pixels, Rng

# The conditions of a picture, and how often each applies when none are asked for.
PROBABILITIES = {
    "lighting": 0.6,  # gradient, clouds of light or vignetting, up to strong
    "shadow": 0.2,  # the edge of a shadow across the picture
    "texture": 0.5,  # grain of the paper
    "ruled": 0.12,  # lines in one direction, sometimes a margin line
    "squared": 0.12,  # lines in two directions
    "faint": 0.2,  # little between paper and ink
    "pencil": 0.2,  # thinned and with the paper's grain in the stroke
    "marker": 0.2,  # thickened
    "chalk": 0.15,  # light on dark
    "grey": 0.2,  # paper of a middle shade
    "specks": 0.25,  # dots and fibres
    "frame": 0.15,  # a table's edge, or a printed box around the digit
    "blur": 0.3,
    "noise": 0.6,
    "jpeg": 0.5,
    "low_resolution": 0.2,  # 24 to 64 pixels in the end
}
CONDITIONS = tuple(PROBABILITIES)
# Of two that exclude each other, the first is kept.
_EXCLUSIVE = (("squared", "ruled"), ("marker", "pencil"), ("chalk", "grey"))


def photograph(inks: Ink, rng: Rng, conditions: Sequence[str] | None = None) -> list[Pixels]:
    """Make a picture like a photograph of each digit.

    The digit is 30 to 90 % of the picture's height, anywhere in it, rotated by up to 15 degrees.
    The longer side has 100 to 400 pixels, or 24 to 64 in low resolution. Every picture gets the
    ``conditions``; None draws them for each picture, with ``PROBABILITIES``.

    Raises:
        DataError: inks of another shape or type.
        ConfigError: an unknown condition.

    >>> ink = np.zeros((1, 28, 28), np.uint8)
    >>> int(np.ptp(photograph(ink, np.random.default_rng(0), ["ruled"])[0])) > 0
    True
    """
    check_inks(inks)
    unknown = [name for name in conditions or () if name not in PROBABILITIES]
    if unknown:
        raise ConfigError(f"condition is {unknown[0]!r}; it must be one of {', '.join(CONDITIONS)}")
    given = None if conditions is None else frozenset(conditions)
    return [_photo(ink, _drawn(rng) if given is None else given, rng) for ink in inks]


def photograph_paper(n: int, rng: Rng) -> list[Pixels]:
    """Make n pictures of the same paper with nothing on it, which readers must reject as blank.

    Specks and frames are left out, because they are not blank.

    >>> len(photograph_paper(2, np.random.default_rng(0)))
    2
    """
    nothing = np.zeros((28, 28), dtype=np.uint8)
    return [_photo(nothing, _drawn(rng) - {"specks", "frame"}, rng) for _ in range(n)]


def _drawn(rng: Rng) -> frozenset[str]:
    names = {name for name, share in PROBABILITIES.items() if rng.random() < share}
    for kept, dropped in _EXCLUSIVE:
        if kept in names:
            names.discard(dropped)
    return frozenset(names)


def _photo(ink: Ink, has: frozenset[str], rng: Rng) -> Pixels:
    longer = 100 * 4.0 ** rng.random()
    aspect = 1.0 if rng.random() < 0.4 else rng.uniform(0.7, 1.4)
    height, width = round(longer * min(1.0, aspect)), round(longer / max(1.0, aspect))
    shape = (height, width)
    digit_height = height * rng.uniform(0.3, 0.9)
    coverage, box = _stroke(ink, shape, digit_height, has, rng)

    paper, pen = _shades(has, rng)
    grain = grain_of(shape, rng) if has & {"texture", "pencil", "chalk"} else None
    surface = np.full(shape, paper, dtype=np.float32)
    if grain is not None and "texture" in has:
        surface += np.float32(paper * rng.uniform(0.01, 0.06)) * grain
    if has & {"ruled", "squared"}:
        _print_lines(surface, paper, digit_height, "squared" in has, rng)
    if "frame" in has and rng.random() < 0.5:
        _print_box(surface, paper, box, rng)
    if grain is not None and has & {"pencil", "chalk"}:
        # Graphite and chalk stay on the paper's peaks.
        coverage = coverage * np.clip(0.85 + rng.uniform(0.05, 0.3) * grain, 0, 1)
    surface += coverage * (np.float32(pen) - surface)
    if "specks" in has:
        _add_specks(surface, pen, box, rng)
    if "frame" in has:
        add_edges(surface, paper, box, rng)
    if "lighting" in has:
        surface *= light_of(shape, rng)
    if "shadow" in has:
        surface *= shadow_of(shape, rng)
    return _capture(surface, has, rng)


def _shades(has: frozenset[str], rng: Rng) -> tuple[float, float]:
    """Return the reflected light of paper and pen, of 255."""
    paper = rng.uniform(85, 170) if "grey" in has else rng.uniform(185, 250)
    pen = rng.uniform(5, 0.5 * paper)
    if "chalk" in has:
        paper, pen = rng.uniform(15, 95), rng.uniform(165, 250)
    if "faint" in has:
        contrast = rng.uniform(30, 60)
        pen = paper + contrast if pen > paper else max(0.0, paper - contrast)
    return paper, pen


def _stroke(
    ink: Ink, shape: tuple[int, int], digit_height: float, has: frozenset[str], rng: Rng
) -> tuple[Floats, tuple[int, int, int, int]]:
    """Return (H, W) float32, how much of each pixel the pen covers, and the box of that."""
    height, width = shape
    fine = Image.fromarray(ink).resize((84, 84), Image.Resampling.BICUBIC)
    covered = int((ink > 127).sum())
    if "marker" in has:
        fine = fine.filter(ImageFilter.MaxFilter(int(rng.choice([3, 5, 5, 7]))))
    elif "pencil" in has and covered > 90:
        fine = fine.filter(ImageFilter.MinFilter(3))
    elif rng.random() < 0.2:
        fine = fine.filter(ImageFilter.MaxFilter(3))
    bounds = fine.point(lambda value: 255 * (value > 60)).getbbox() or (40, 32, 44, 52)
    digit_width, rows = bounds[2] - bounds[0], bounds[3] - bounds[1]
    scale = min(digit_height / rows, 0.9 * width / digit_width)
    angle = math.radians(rng.uniform(-15, 15))
    cosine, sine = math.cos(angle), math.sin(angle)
    reach_x = (digit_width * cosine + rows * abs(sine)) * scale / 2
    reach_y = (digit_width * abs(sine) + rows * cosine) * scale / 2
    centre_x = _between(reach_x + 2, width - reach_x - 2, rng)
    centre_y = _between(reach_y + 2, height - reach_y - 2, rng)
    left, top = max(0, int(centre_x - reach_x) - 3), max(0, int(centre_y - reach_y) - 3)
    right = min(width, int(centre_x + reach_x) + 4)
    bottom = min(height, int(centre_y + reach_y) + 4)
    # The affine transform from a pixel of the patch to the fine digit.
    a, b = cosine / scale, sine / scale
    middle_x, middle_y = (bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2
    # Pillow adds half a pixel itself.
    offset_x, offset_y = left + 0.5 - centre_x - 0.5, top + 0.5 - centre_y - 0.5
    patch = fine.transform(
        (right - left, bottom - top),
        Image.Transform.AFFINE,
        (
            a, b, a * offset_x + b * offset_y + middle_x,
            -b, a, -b * offset_x + a * offset_y + middle_y,
        ),
        Image.Resampling.BILINEAR,
    )  # fmt: skip
    values = np.asarray(patch, dtype=np.float32) / 255
    # Enlarging leaves ramps where a pen has edges.
    steep = np.float32(rng.uniform(1.0, max(1.2, min(4.0, scale * 1.3))))
    values = np.clip((values - 0.42) * steep + 0.42, 0, 1)
    coverage = np.zeros(shape, dtype=np.float32)
    coverage[top:bottom, left:right] = values
    return coverage, (left, top, right, bottom)


def _between(low: float, high: float, rng: Rng) -> float:
    return float(rng.uniform(low, high)) if low < high else (low + high) / 2


def grain_of(shape: tuple[int, int], rng: Rng) -> Floats:
    """Return the grain of paper: about standard normal values (H, W), in grains of 1 to 4 pixels.

    >>> grain_of((20, 30), np.random.default_rng(0)).shape
    (20, 30)
    """
    size = rng.uniform(1, 4)
    coarse = (max(2, int(shape[0] / size)), max(2, int(shape[1] / size)))
    return enlarge(rng.standard_normal(coarse, dtype=np.float32), shape) * np.float32(1.4)


def _along(shape: tuple[int, int], angle: float) -> Floats:
    """Return (H, W), each pixel's position along a direction, in pixels."""
    y = np.arange(shape[0], dtype=np.float32)[:, np.newaxis] * np.float32(math.sin(angle))
    x = np.arange(shape[1], dtype=np.float32) * np.float32(math.cos(angle))
    return y + x


def _print_lines(
    surface: Floats, paper: float, digit_height: float, squared: bool, rng: Rng
) -> None:
    angle = math.radians(rng.normal(0, 3))
    period = digit_height * (rng.uniform(0.25, 1.2) if squared else rng.uniform(0.5, 1.5))
    period = max(8.0, period)
    width = max(0.5, period * rng.uniform(0.015, 0.06))
    strength = np.float32(rng.uniform(0.1, 0.55))
    shade = np.float32(rng.uniform(0.3, 0.8) * paper if paper > 100 else rng.uniform(140, 230))

    def print_lines(distance: Floats) -> None:
        line = np.clip(np.float32(width / 2 + 0.5) - distance, 0, min(1.0, width)) * strength
        surface[:] += line * (shade - surface)

    directions = [angle + math.pi / 2] + ([angle] if squared else [])
    if not squared and rng.random() < 0.15:
        directions = [angle]
    for direction in directions:
        along = _along(surface.shape, direction) / np.float32(period) + np.float32(rng.random())
        print_lines(np.abs(along - np.rint(along)) * np.float32(period))
    if not squared and rng.random() < 0.3:  # the margin's line
        margin = np.float32(rng.uniform(0, 0.3) * len(surface))
        print_lines(np.abs(_along(surface.shape, angle) - margin))


def _print_box(surface: Floats, paper: float, box: tuple[int, int, int, int], rng: Rng) -> None:
    """Print a frame around the digit, as forms have."""
    gap = int(rng.uniform(0.05, 0.3) * (box[3] - box[1])) + 2
    thick = max(1, round(rng.uniform(0.005, 0.015) * len(surface)))
    left, top = box[0] - gap, box[1] - gap
    right, bottom = box[2] + gap, box[3] + gap
    shade = np.float32(rng.uniform(0.1, 0.6) * paper if paper > 100 else 200)
    for view, low, high, start, end in (
        (surface, top, bottom, left, right),
        (surface.T, left, right, top, bottom),
    ):
        for at in (low, high - thick):
            if 0 <= at < len(view):
                view[at : at + thick, max(0, start) : max(0, end)] = shade


def add_edges(surface: Floats, paper: float, box: tuple[int, int, int, int], rng: Rng) -> None:
    """Show what lies beside the paper, on up to two sides of the picture, but not over ``box``.

    >>> page = np.full((60, 60), 250, np.float32)
    >>> add_edges(page, 250.0, (20, 20, 40, 40), np.random.default_rng(2))
    >>> float(page[30, 30])
    250.0
    """
    height, width = surface.shape
    room = {"left": box[0], "top": box[1], "right": width - box[2], "bottom": height - box[3]}
    from_the_left = {
        "left": surface,
        "top": surface.T,
        "right": surface[:, ::-1],
        "bottom": surface[::-1].T,
    }
    shade = np.float32(rng.uniform(20, 120) if paper > 120 else rng.uniform(120, 230))
    for side in rng.permutation(list(room))[: rng.integers(0, 3)]:
        depth = int(min(0.7 * room[side], rng.uniform(0.01, 0.12) * max(surface.shape)))
        slope = rng.uniform(-0.03, 0.03)
        if depth < 1:
            continue
        view = from_the_left[side]
        view[np.arange(view.shape[1]) < np.arange(len(view))[:, np.newaxis] * slope + depth] = shade


def _add_specks(surface: Floats, pen: float, box: tuple[int, int, int, int], rng: Rng) -> None:
    """Add dots and fibres, few of them as dark as the ink."""
    height, width = surface.shape
    mask = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(mask)
    for _ in range(rng.integers(1, 12)):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        level = int(rng.uniform(60, 255))
        if rng.random() < 0.8:
            radius = rng.uniform(0.3, 0.012 * (box[3] - box[1]) + 1.0)
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=level)
        else:
            reach = 0.08 * height
            end = (x + rng.uniform(-reach, reach), y + rng.uniform(-reach, reach))
            draw.line([(x, y), end], fill=level, width=1)
    surface += np.asarray(mask, dtype=np.float32) / 255 * (np.float32(pen) - surface)


def light_of(shape: tuple[int, int], rng: Rng) -> Floats:
    """Return uneven light: a factor (H, W), at most about 1.

    >>> bool(light_of((20, 30), np.random.default_rng(0)).max() <= 1)
    True
    """
    strength = rng.uniform(0.1, 0.65)
    look = rng.integers(3)
    if look == 0:
        along = _along(shape, rng.uniform(0, 2 * math.pi))
        along = along - along.min()
        factor = along / np.float32(max(1e-6, float(along.max())))
    elif look == 1:
        y = (np.arange(shape[0], dtype=np.float32) / shape[0] - rng.uniform(0.2, 0.8)) ** 2
        x = (np.arange(shape[1], dtype=np.float32) / shape[1] - rng.uniform(0.2, 0.8)) ** 2
        factor = (y[:, np.newaxis] + x) / np.float32(0.8)
    else:
        cells = int(rng.integers(2, 5))
        factor = enlarge(rng.random((cells, cells)), shape, Image.Resampling.BICUBIC)
    light: Floats = 1 - np.float32(strength) * np.clip(factor, 0, 1)
    return light


def shadow_of(shape: tuple[int, int], rng: Rng) -> Floats:
    """Return the edge of a shadow across a picture: a factor (H, W), at most 1.

    >>> bool(shadow_of((20, 30), np.random.default_rng(0)).max() <= 1)
    True
    """
    along = _along(shape, rng.uniform(0, 2 * math.pi))
    edge = rng.uniform(float(along.min()), float(along.max()))
    soft = max(shape) * rng.uniform(0.01, 0.12)
    lit = np.clip((along - np.float32(edge)) / np.float32(soft) + np.float32(0.5), 0, 1)
    dark = np.float32(rng.uniform(0.45, 0.85))
    factor: Floats = dark + (1 - dark) * lit
    return factor


def _capture(surface: Floats, has: frozenset[str], rng: Rng) -> Pixels:
    """Apply what the camera and the file format do."""
    image = Image.fromarray(surface)
    if "low_resolution" in has:
        scale = rng.uniform(24, 64) / max(surface.shape)
        size = (max(8, round(image.width * scale)), max(8, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BOX)
    values = np.array(image)
    if "noise" in has:
        sigma = np.float32(rng.uniform(0.5, 8))
        values += rng.standard_normal(values.shape, dtype=np.float32) * sigma
    image = Image.fromarray(to_bytes(values))
    if "blur" in has:
        reach = 0.008 * max(values.shape)
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, max(0.6, reach))))
    if "jpeg" in has:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(rng.integers(25, 92)))
        image = Image.open(file)
    return np.asarray(image)
