"""What is written in a picture, before there is anything around it: digits and signs anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from PIL import Image

from inkdigits.data.pictures.foreground import (
    Sources,
    pen_width,
    write_character,
    write_digit,
    write_dot,
    write_sign,
)
from inkdigits.types import Floats, Rng

Bounds: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""


@dataclass(slots=True, eq=False)
class Writing:
    """What is written, before there is anything around it."""

    ink: Floats
    darkness: Floats  # the ink, weaker where the pen was
    boxes: list[Bounds]
    height: float  # of digits, in pixels
    digits: list[int] = field(default_factory=list)  # which digit each of the boxes has
    cut: float = 0.0  # the share of a digit's ink that is outside of the picture

    @property
    def box(self) -> Bounds | None:
        """Around all that is written."""
        rows = np.flatnonzero(self.ink.max(axis=1) > 0.3)
        columns = np.flatnonzero(self.ink.max(axis=0) > 0.3)
        if not len(rows):
            return None
        return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def write(
    kind: str,
    shape: tuple[int, int],
    height: float,
    rng: Rng,
    sources: Sources,
    sign: Floats | None = None,
) -> Writing:
    """Write one of ``pairs.KINDS`` in a picture (H, W), in digits of about a height in pixels.

    ``sign`` is a patch that is written instead.

    >>> written = write("one", (60, 60), 30.0, np.random.default_rng(0), Sources())
    >>> len(written.boxes)
    1
    """
    ink = np.zeros(shape, np.float32)
    written = Writing(ink, ink.copy(), [], height)
    drawn = rng.random() < 0.5
    if sign is not None:
        scale = height / max(1, len(sign))
        _place(written, _scaled(sign, scale), rng, None)
    elif kind == "several":
        _write_row(written, drawn, rng, sources)
    elif kind == "pair":
        _write_pair(written, drawn, rng, sources)
    elif kind == "sign":
        for _ in range(1 if rng.random() < 0.7 else rng.integers(2, 6)):
            _place(written, write_sign(height, rng, sources), rng, None)
    elif kind != "empty":
        if kind == "one" and sources.fonts and rng.random() < 0.03:
            digit = int(rng.integers(10))
            patch = write_character(str(digit), height, rng, sources.fonts)
        else:
            patch, digit = write_digit(height, rng, sources, drawn=drawn)
        _place(written, patch, rng, digit, cut=kind == "cut")
    if rng.random() < 0.04:  # of hard pixels
        written.ink = np.where(written.ink > 0.5, np.float32(1), np.float32(0))
        written.darkness = written.ink * (written.darkness > 0)
    return written


def _fitted(patch: Floats, height: int, width: int) -> Floats:
    scale = min(1.0, height / patch.shape[0], width / patch.shape[1])
    return patch if scale == 1.0 else _scaled(patch, scale)


def _scaled(patch: Floats, scale: float) -> Floats:
    size = (max(2, int(patch.shape[1] * scale)), max(3, int(patch.shape[0] * scale)))
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    image = Image.fromarray(patch.astype(np.float32)).resize(size, method)
    scaled: Floats = np.clip(np.asarray(image), 0, 1)
    return scaled


def _place(
    written: Writing, patch: Floats, rng: Rng, digit: int | None, *, cut: bool = False
) -> None:
    """Write a patch anywhere, or so that an edge of the picture cuts off a part."""
    height, width = written.ink.shape
    patch = _fitted(patch, height, width)
    rows, columns = patch.shape
    top, left = rng.uniform(0, height - rows + 1), rng.uniform(0, width - columns + 1)
    if rng.random() < 0.12:  # flush with an edge
        top = float(rng.choice([0, height - rows]))
    if rng.random() < 0.12:
        left = float(rng.choice([0, width - columns]))
    if cut:
        share = rng.uniform(0.05, 0.45)
        side = rng.integers(4)
        top = -share * rows if side == 0 else height - (1 - share) * rows if side == 1 else top
        left = -share * columns if side == 2 else left
        left = width - (1 - share) * columns if side == 3 else left
    _put(written, patch, top, left, digit)


def _put(
    written: Writing,
    patch: Floats,
    top: float,
    left: float,
    digit: int | None,
    darkness: float = 1.0,
) -> None:
    height, width = written.ink.shape
    y, x = round(top), round(left)
    seen = patch[max(0, -y) : max(0, height - y), max(0, -x) : max(0, width - x)]
    if not seen.size or seen.max() < 0.3:
        return
    y, x = max(0, y), max(0, x)
    area = slice(y, y + seen.shape[0]), slice(x, x + seen.shape[1])
    written.ink[area] = np.maximum(written.ink[area], seen)
    written.darkness[area] = np.maximum(written.darkness[area], seen * np.float32(darkness))
    written.cut = max(written.cut, 1 - float(seen.sum() / patch.sum()))
    if digit is not None:
        written.boxes.append((x, y, x + seen.shape[1], y + seen.shape[0]))
        written.digits.append(digit)


def _write_row(written: Writing, drawn: bool, rng: Rng, sources: Sources) -> None:
    """Write a number: digits that touch, overlap or stand apart, with commas, dots and dashes."""
    height, width = written.ink.shape
    n = int(rng.integers(2, 11))
    patch: Floats
    which: int | None
    digit = min(height * rng.uniform(0.3, 0.92), width * rng.uniform(0.8, 1.1) / (n * 0.62))
    digit = written.height = max(9.0, digit)
    varies = rng.uniform(0, 0.3) if rng.random() < 0.4 else 0.05
    gap = rng.uniform(-0.15, 0.12) if rng.random() < 0.5 else rng.uniform(0, 0.6)
    left = rng.uniform(0, max(1.0, width - n * (0.6 + gap) * digit))
    base = rng.uniform(min(digit, 0.9 * height), height)
    tilt = rng.normal(0, 0.02)
    pen = pen_width(rng) if rng.random() < 0.8 else None
    for _ in range(n):
        if rng.random() < 0.08:
            patch, which = write_dot(digit, rng), None
        elif rng.random() < 0.03:
            patch, which = write_sign(digit, rng, sources), None
        else:
            own = max(8.0, digit * (1 - rng.random() * varies))
            patch, which = write_digit(own, rng, sources, drawn=drawn, pen=pen)
        patch = _fitted(patch, height, width)
        top = base - patch.shape[0] + tilt * left + rng.normal(0, 0.03) * digit
        if left + patch.shape[1] > width:
            return
        _put(written, patch, max(0.0, top), left, which)
        left += patch.shape[1] + (gap + rng.normal(0, 0.04)) * digit
        left = max(0.0, left)


def _write_pair(written: Writing, drawn: bool, rng: Rng, sources: Sources) -> None:
    """Write two to four digits anywhere, the others smaller or fainter than the first."""
    height, width = written.ink.shape
    first = min(written.height, 0.6 * max(height, width))
    patch, digit = write_digit(first, rng, sources, drawn=drawn)
    _place(written, patch, rng, digit)
    for _ in range(1 if rng.random() < 0.7 else rng.integers(2, 4)):
        own = max(8.0, first * rng.uniform(0.3, 1.0))
        patch, digit = write_digit(own, rng, sources, drawn=drawn)
        patch = _fitted(patch, height, width)
        darkness = rng.uniform(0.25, 1.0) if rng.random() < 0.5 else 1.0
        for _ in range(12):
            top = rng.uniform(0, height - patch.shape[0] + 1)
            left = rng.uniform(0, width - patch.shape[1] + 1)
            y, x = round(top), round(left)
            if written.ink[y : y + patch.shape[0], x : x + patch.shape[1]].max(initial=0) < 0.1:
                _put(written, patch, top, left, digit, darkness)
                break


def inner_box(written: Writing) -> Bounds:
    """Return the box of what is written, or of what could be.

    >>> empty = Writing(np.zeros((60, 60), np.float32), np.zeros((60, 60), np.float32), [], 30.0)
    >>> inner_box(empty)
    (21.0, 15.0, 39.0, 45.0)
    """
    box = written.box
    if box is not None:
        return box
    height, width = written.ink.shape
    size = max(8.0, min(written.height, 0.6 * min(height, width)))
    left, top = 0.5 * (width - 0.6 * size), 0.5 * (height - size)
    return left, top, left + 0.6 * size, top + size
