"""Ink on any background, found by a network in two passes. NumPy and Pillow only.

The first pass sees the whole picture, the second the region in which the first one found ink. The
network itself is a callable that the caller passes in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from PIL import Image

from inkdigits.ink.components import connected_components, dilate
from inkdigits.types import Floats, Grey, Mask, Pixels

Segmenter: TypeAlias = Callable[[Floats], Floats]
"""A network: (1, 1, H, W) standardised views → (1, 2, H, W) logits of ink and centres of digits."""
GreyT = TypeVar("GreyT", Floats, Pixels)
Window: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of the picture; it may extend beyond the picture."""

# Sides of views are multiples of this: the network halves them five times.
STEP = 32
# The longer side of the first view, by the picture's (up to the key, in pixels).
FIRST_SIDES = ((160, 128), (480, 192), (math.inf, 256))
# The second view: a square, or a strip of this height where the ink is wider than high.
SECOND_SIDE, STRIP_HEIGHT, LONGEST_STRIP = 128, 96, 640
STRIP_ASPECT = 1.6
# The first view is such a strip of a picture that is wider than this many times its height.
STRIP_SHAPE = 2.2
# How far the second view extends beyond the ink, in all, relative to the ink's longer side.
MARGIN = 0.5
# The least deviation of shades that is scaled up, of 255.
LEAST_DEVIATION = 4.0
# Coverage from which pixels form components, and to which a component has to rise somewhere.
CONNECTED, CERTAIN = 0.4, 0.6
# Smaller components, by their share of the largest one's ink, are specks.
SPECK_SHARE = 0.04
# A component has at least this ink, in pixels of the view.
LEAST_INK = 3.0
# Around components, coverage above this belongs to them.
FAINTEST = 0.15
# The second view is taken if its side is below this share of the first one's.
NEARER = 0.85
# Coverage above this may be ink, and is noise below.
DOUBTFUL = 0.08


@dataclass(frozen=True, slots=True, eq=False)
class InkMap:
    """How much of each pixel of a view ink covers, and where in the picture it is."""

    coverage: Floats  # (h, w), 0 to 1; 0 outside of components that are ink
    window: Window  # of this part of the view, in pixels of the picture
    doubtful: float  # what may be ink and was left out, relative to the ink

    @property
    def certainty(self) -> float:
        """The highest coverage."""
        return float(self.coverage.max())

    def on_picture(self, shape: tuple[int, int]) -> Floats:
        """Return the coverage of each pixel of the picture, which has this height and width."""
        (height, width), (left, top, right, bottom) = self.coverage.shape, self.window
        x, y = width / (right - left), height / (bottom - top)
        turned = (-left * x, -top * y, (shape[1] - left) * x, (shape[0] - top) * y)
        return view(self.coverage, turned, shape, repeat=False)


def whole_window(shape: tuple[int, ...]) -> tuple[Window, tuple[int, int]]:
    """Return the window of the first view of a picture (H, W), and the view's height and width.

    >>> whole_window((100, 300))[1]
    (96, 288)
    """
    height, width = shape
    longer = max(height, width)
    side = next(side for limit, side in FIRST_SIDES if longer <= limit)
    if width > STRIP_SHAPE * height:
        side = min(LONGEST_STRIP, STRIP_HEIGHT * width // height)
    scale = longer / side
    size = (_up(height / scale), _up(width / scale))
    down, across = (size[0] * scale - height) / 2, (size[1] * scale - width) / 2
    return (-across, -down, width + across, height + down), size


def near_window(box: Window) -> tuple[Window, tuple[int, int]]:
    """Return the window of the second view, around a box of ink, and the view's height and width.

    >>> near_window((10.0, 10.0, 30.0, 50.0))
    ((-10.0, 0.0, 50.0, 60.0), (128, 128))
    """
    left, top, right, bottom = box
    x, y = (left + right) / 2, (top + bottom) / 2
    width, height = right - left, bottom - top
    if width <= STRIP_ASPECT * max(height, 8.0):
        half = max((1 + MARGIN) * max(width, height), 12.0) / 2
        return (x - half, y - half, x + half, y + half), (SECOND_SIDE, SECOND_SIDE)
    high = max((1 + MARGIN) * height, 12.0)
    size = (STRIP_HEIGHT, min(LONGEST_STRIP, _up((width + MARGIN * height) / high * STRIP_HEIGHT)))
    wide = max(width + MARGIN * height, high * size[1] / STRIP_HEIGHT)
    high = wide * STRIP_HEIGHT / size[1]
    return (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2), size


def _up(side: float) -> int:
    """Return the next multiple of STEP; fractions of a pixel do not count."""
    return max(STEP, math.ceil((side - 0.5) / STEP) * STEP)


def view(picture: GreyT, window: Window, size: tuple[int, int], *, repeat: bool = True) -> GreyT:
    """Resample a window of a picture (H, W) to ``size``, height and width.

    Where the window extends beyond the picture, the picture's edge is repeated, or there is 0.

    >>> view(np.full((4, 4), 7, np.uint8), (-2.0, 0.0, 6.0, 4.0), (32, 64)).max()
    np.uint8(7)
    """
    # Only what the view shows is padded and resampled.
    x, y = max(0, math.floor(window[0]) - 2), max(0, math.floor(window[1]) - 2)
    part = picture[y : math.ceil(window[3]) + 2, x : math.ceil(window[2]) + 2]
    left, top, right, bottom = window[0] - x, window[1] - y, window[2] - x, window[3] - y
    above, before = max(0, math.ceil(-top)), max(0, math.ceil(-left))
    below = max(0, math.ceil(bottom - part.shape[0]))
    behind = max(0, math.ceil(right - part.shape[1]))
    if above or before or below or behind:
        sides = ((above, below), (before, behind))
        part = np.pad(part, sides, mode="edge") if repeat else np.pad(part, sides)
    left, right, top, bottom = left + before, right + before, top + above, bottom + above
    is_reduced = right - left > size[1]
    method = Image.Resampling.BOX if is_reduced else Image.Resampling.BILINEAR
    box = (max(0.0, left), max(0.0, top), min(part.shape[1], right), min(part.shape[0], bottom))
    image = Image.fromarray(np.ascontiguousarray(part))
    resampled: GreyT = np.asarray(image.resize((size[1], size[0]), method, box=box))
    return resampled


def standardise_view(shades: Grey) -> Floats:
    """Return a view (H, W) as the network takes it: (1, 1, H, W) without its mean and deviation.

    >>> standardise_view(np.zeros((32, 32), np.uint8)).shape
    (1, 1, 32, 32)
    """
    values = shades.astype(np.float32)
    values -= values.mean()
    values /= max(LEAST_DEVIATION, float(values.std()))
    return values[np.newaxis, np.newaxis]


def find_ink(picture: Pixels, network: Segmenter, box: Window | None = None) -> InkMap | None:
    """Return the ink of a picture (H, W), of shades 0 to 255; None where there is none.

    ``box`` is where all ink must be, if that is known: the first view is then around it.

    >>> find_ink(np.zeros((64, 64), np.uint8), lambda x: np.repeat(x - 9, 2, axis=1)) is None
    True
    """
    window, size = whole_window(picture.shape) if box is None else near_window(box)
    found = _look(picture, window, size, network)
    if found is None:
        return None
    rows = np.flatnonzero(found.coverage.any(axis=1))
    columns = np.flatnonzero(found.coverage.any(axis=0))
    scale = (window[2] - window[0]) / size[1]
    x, y = found.window[:2]
    left, right = (x + scale * float(at) for at in (columns[0], columns[-1] + 1))
    top, bottom = (y + scale * float(at) for at in (rows[0], rows[-1] + 1))
    near, near_size = near_window((left, top, right, bottom))
    if (near[2] - near[0]) / near_size[1] >= NEARER * scale:
        return found
    return _look(picture, near, near_size, network)


def _look(
    picture: Pixels, window: Window, size: tuple[int, int], network: Segmenter
) -> InkMap | None:
    logits = network(standardise_view(view(picture, window, size)))[0]
    coverage, window = _inside(1 / (1 + np.exp(-logits[0])), window, picture.shape)
    mask = coverage > CONNECTED
    if not mask.any():
        return None
    found = connected_components(mask, coverage)
    certain = (found.peak >= CERTAIN) & (found.ink >= LEAST_INK)
    if not certain.any():
        return None
    kept: Mask = certain & (found.ink >= SPECK_SHARE * found.ink[certain].max())
    inside = dilate(dilate(found.pixels(kept))) & (coverage > FAINTEST)
    ink = np.where(inside, coverage, np.float32(0))
    left_out = coverage[~inside & (coverage > DOUBTFUL)]
    return InkMap(ink, window, float(left_out.sum() / ink.sum()))


def _inside(coverage: Floats, window: Window, shape: tuple[int, ...]) -> tuple[Floats, Window]:
    """Leave out what a view shows beyond the picture: strokes do not continue there."""
    scale = (window[2] - window[0]) / coverage.shape[1]
    kept = []
    for start, n, side in zip(window[:2], coverage.shape[::-1], shape[::-1], strict=True):
        first = min(n - 1, max(0, round(-start / scale)))
        kept.append((first, max(first + 1, min(n, round((side - start) / scale)))))
    (left, right), (top, bottom) = kept
    x, y = window[:2]
    inside = (x + scale * left, y + scale * top, x + scale * right, y + scale * bottom)
    return coverage[top:bottom, left:right], inside
