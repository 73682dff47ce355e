"""The background under the ink: its shade at each place, which side of it is ink, and its noise.

On a reduced copy the shade is a rank of each neighbourhood, wide enough that no stroke covers it.
Then the ink found with it is left out, and the shade is interpolated from the background nearby.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from inkdigits.types import Doubles, Floats, Mask

GRID = 32
# The grid is halved where its shorter side has this many pixels.
COARSE = 12
# The neighbourhood, in pixels of half the grid, and the least share of it that is background.
WINDOW, BACKGROUND_SHARE = 7, 0.3
# The neighbourhood in pixels of the grid, for whether ink is lighter or darker than the median.
SIGN_WINDOW = 13
# How much of a picture's variance its two shades explain; a gradient's is 0.75.
TWO_SHADES = 0.78
# The noise of a background that a digit fills, as a share of the range of shades.
FLAT = 0.05
# Of the picture's longer side; a marker's stroke is a third of its digit at most.
WIDEST_STROKE = 0.34
# The share of each side, at both ends, that is ignored for whether ink is lighter or darker.
OUTER = 0.13
# A darker background counts as this dark when light is evened out, so that noise is not amplified.
DARKEST = 24.0
GREATEST_GAIN = 3.0
# The share of the shade's local change that is subtracted from the ink.
DOUBT = 0.4


@dataclass(frozen=True, slots=True)
class Background:
    """The background of one picture, (h, w) float32 of at most GRID pixels a side."""

    shade: Floats  # the grey at each place
    gain: Floats  # 1 where light is brightest, more where it is darker
    sign: float  # 1 for light ink on a dark background, -1 for dark ink

    def contrast(self, grey: Floats, box: tuple[float, float, float, float]) -> Floats:
        """Return how far each pixel is from the background, towards the ink, in even light.

        Args:
            grey: (H, W) float32, a part of the picture at any scale.
            box: left, top, right, bottom of that part, in pixels of ``shade``.
        """
        shade, gain = (_resized(values, grey.shape, box) for values in (self.shade, self.gain))
        ink: Floats = (grey - shade) * gain * np.float32(self.sign)
        return ink

    def stroke_contrast(self, grey: Floats) -> tuple[Floats, Floats]:
        """Return the whole picture's contrast, of what is as narrow as a stroke can be.

        The shade is coarse, and leaves a line at the edge of a shadow. An opening by a square
        (erosion, then dilation) removes it with whatever is wider than the square.

        Returns:
            That contrast, and the picture with its background, turned so that ink is positive and
            as in even light; both (H, W) float32.
        """
        height, width = self.shade.shape
        ink = self.contrast(grey, (0, 0, width, height))
        change = square_filter(self.shade, 3, np.maximum) - square_filter(self.shade, 3, np.minimum)
        ink -= _resized(np.float32(DOUBT) * change * self.gain, grey.shape)
        towards = grey * np.float32(self.sign)
        square = 2 * round(WIDEST_STROKE * max(grey.shape) / 2) + 1
        opened = square_filter(square_filter(towards, square, np.minimum), square, np.maximum)
        top = towards - opened
        gain = _resized(self.gain, grey.shape)
        top *= gain
        return np.minimum(ink, top - np.median(top)), towards * gain


def estimate_background(grey: Floats, sign: float | None = None) -> Background:
    """Estimate the background of a picture of any size.

    Args:
        grey: (H, W) float32, 0 to 255.
        sign: 1 for light ink, -1 for dark ink; None finds out.

    >>> picture = np.full((100, 100), 180, np.float32)
    >>> picture[40:60, 48:52] = 20
    >>> found = estimate_background(picture)
    >>> found.sign, float(found.shade[16, 16].round())
    (-1.0, 180.0)
    """
    grid = downscale(grey, GRID)
    # A rank of a neighbourhood is slow to find, and at first a rough one suffices.
    coarse = np.asarray(Image.fromarray(grid).reduce(2)) if min(grid.shape) >= COARSE else grid
    if sign is None:
        sign = _sign(grid)
    towards = grid * np.float32(sign)
    shade = _resized(_ranked(coarse * np.float32(sign), BACKGROUND_SHARE, WINDOW), grid.shape)
    for _ in range(3):
        rest = towards - shade
        # On a gradient a rank is off by the same everywhere, which is not ink.
        middle, spread = _median_and_deviation(rest)
        inked = rest > middle + max(4.0, 2.5 * spread)
        shade = inpaint(towards, ~_dilate_cross(inked))
    shade *= np.float32(sign)
    bright = float(np.percentile(shade, 90))
    gain = np.clip(max(bright, DARKEST) / np.maximum(shade, DARKEST), 1.0, GREATEST_GAIN)
    return Background(shade=shade, gain=gain.astype(np.float32), sign=sign)


def _resized(
    values: Floats, shape: tuple[int, ...], box: tuple[float, float, float, float] | None = None
) -> Floats:
    size = (shape[1], shape[0])
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR, box=box))


def downscale(grey: Floats, side: int, reducing_gap: float | None = None) -> Floats:
    """Average a picture (H, W) down to at most ``side`` pixels a side.

    A ``reducing_gap``, as of ``PIL.Image.Image.resize``, is faster where the picture is much
    larger, and slightly different; None averages exactly.

    >>> downscale(np.zeros((100, 50), np.float32), 20).shape
    (20, 10)
    """
    scale = min(1.0, side / max(grey.shape))
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    image = Image.fromarray(grey).resize(size, Image.Resampling.BOX, reducing_gap=reducing_gap)
    return np.asarray(image)


def two_shades(grey: Floats) -> tuple[float, float, float] | None:
    """Return background and ink of a picture (H, W) that its digit fills, up to the border.

    Returns:
        The background's shade, 1 where ink is the lighter or else -1, and the background's noise;
        None where the picture is not of two shades.

    >>> picture = np.full((30, 30), 250, np.float32)
    >>> picture[:, 12:18] = 10
    >>> two_shades(picture)
    (250.0, -1.0, 0.0)
    """
    low, high = float(grey.min()), float(grey.max())
    middle = (low + high) / 2
    for _ in range(6):
        lighter = grey > middle
        share = float(lighter.mean())
        if not 0.0 < share < 1.0:
            return None
        total = float(grey.mean())
        above = float(grey[lighter].mean())
        below = (total - share * above) / (1 - share)
        middle = (above + below) / 2
    lighter = grey > middle
    if share * (1 - share) * (above - below) ** 2 < TWO_SHADES * float(grey.var()):
        return None
    sides = [lighter[0], lighter[-1], lighter[:, 0], lighter[:, -1]]
    around = np.concatenate(sides)
    corners = float(np.mean([side[end] for side in sides[:2] for end in (0, -1)]))
    is_light = float(around.mean()) + 2 * corners > 1.5
    # Beside a stroke a pixel is half ink, so the border tells more, where it is no foggier.
    outer = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])[around == is_light]
    shade, noise = _median_and_deviation(grey[lighter == is_light])
    if 5 * len(outer) >= len(around):
        at_border, noise_there = _median_and_deviation(outer)
        if noise_there <= noise:
            shade, noise = at_border, noise_there
    return shade, -1.0 if is_light else 1.0, noise


def _median_and_deviation(shades: Floats) -> tuple[float, float]:
    """Return the median, and the deviation of a normal distribution of this spread around it."""
    middle = float(np.median(shades))
    return middle, 1.4826 * float(np.median(np.abs(shades - middle)))


def shades_of_filled(grey: Floats) -> tuple[float, float, float] | None:
    """Return ``two_shades`` of a large picture that a drawn digit fills; None for other pictures.

    Such a picture has a flat background, more ink than a printed line, and ink that touches
    opposite sides in more than one place: a shadow's border is in one piece.

    >>> shades_of_filled(np.full((200, 200), 250, np.float32)) is None
    True
    """
    small = downscale(grey, 64, reducing_gap=3.0)
    shades = two_shades(small)
    if shades is None or shades[2] > FLAT * float(np.ptp(small)):
        return None
    inked = np.abs(small - shades[0]) > 0.5 * float(np.abs(small - shades[0]).max())
    sides = [float(side.mean()) for side in (inked[0], inked[-1], inked[:, 0], inked[:, -1])]
    is_touched = min(sides[:2]) > 0 or min(sides[2:]) > 0
    # What covers a whole side, or most of the picture, is a table or the background.
    if not is_touched or max(sides) > 0.9 or not 0.15 <= float(inked.mean()) <= 0.65:
        return None
    around = np.concatenate([inked[0], inked[1:, -1], inked[-1, -2::-1], inked[-2:0:-1, 0]])
    pieces = int(np.sum(around & ~np.roll(around, 1)))
    return shades if 2 <= pieces <= 8 else None


def lighting_surface(grey: Floats) -> Floats:
    """Fit a surface of second order (H, W) to most of a small picture, and to its border.

    >>> gradient = np.tile(np.arange(30, dtype=np.float32), (30, 1))
    >>> bool(np.abs(lighting_surface(gradient) - gradient).max() < 1e-3)
    True
    """
    basis = _basis(*grey.shape)
    values = grey.ravel().astype(np.float64)
    first = np.ones(grey.shape)
    first[1:-1, 1:-1] = 0.25
    outer: Doubles = first.ravel()
    weights = outer
    for _ in range(5):
        weighted = basis * weights
        surface = np.linalg.lstsq(weighted @ basis.T, weighted @ values, rcond=None)[0] @ basis
        away = np.abs(values - surface)
        weights = outer * (away <= max(1.0, 2.0 * 1.4826 * float(np.median(away))))
    whole: Floats = surface.reshape(grey.shape).astype(np.float32)
    return whole


@lru_cache(maxsize=64)
def _basis(height: int, width: int) -> Doubles:
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y]).reshape(6, -1)


def square_filter(values: Floats, width: int, extreme: np.ufunc) -> Floats:
    """Erode (``np.minimum``) or dilate (``np.maximum``) values (H, W) by a square.

    The windows double in width, so that a wide one takes few steps.

    >>> square_filter(np.float32([[0, 0, 0, 9, 0]]), 3, np.maximum).tolist()
    [[0.0, 0.0, 9.0, 9.0, 9.0]]
    """
    for _ in range(2):
        half = width // 2
        padded = np.pad(values, ((half, width - half - 1), (0, 0)), mode="edge")
        reached = 1
        while reached < width:
            step = min(reached, width - reached)
            padded = extreme(padded[:-step], padded[step:])
            reached += step
        values = padded.T
    return values


def _sign(grid: Floats) -> float:
    """Return 1 where the lighter side of the local median holds more, else -1."""
    rest = grid - _ranked(grid, 0.5, SIGN_WINDOW)
    # Beside a table, the background's side of the edge would count as ink.
    top, left = (int(side * OUTER) for side in grid.shape)
    rest = rest[top : len(rest) - top, left : rest.shape[1] - left]
    squares = np.square(rest)
    lighter = float(squares[rest > 0].sum())
    return 1.0 if lighter > float(squares.sum()) - lighter else -1.0


def _ranked(grid: Floats, share: float, window: int) -> Floats:
    """Return the shade that this share of each square neighbourhood is below."""
    window = min(window, 2 * ((min(grid.shape) - 1) // 2) + 1)
    rank = int(share * (window * window - 1))
    padded = np.pad(grid, window // 2, mode="edge")
    around = sliding_window_view(padded, (window, window)).reshape(*grid.shape, -1)
    ranked: Floats = np.partition(around, rank, axis=-1)[..., rank]
    return ranked


def _dilate_cross(mask: Mask) -> Mask:
    """Return the mask and its neighbours in the four directions."""
    dilated = mask.copy()
    dilated[1:] |= mask[:-1]
    dilated[:-1] |= mask[1:]
    dilated[:, 1:] |= mask[:, :-1]
    dilated[:, :-1] |= mask[:, 1:]
    return dilated


def inpaint(values: Floats, known: Mask) -> Floats:
    """Smooth known values lightly, and fill the others from what is known nearest.

    >>> row = np.float32([[5, 5, 0, 5, 5]])
    >>> inpaint(row, row > 0).round(2).tolist()
    [[5.0, 5.0, 5.0, 5.0, 5.0]]
    """
    weights = known.astype(np.float32)
    if not known.any():
        return np.full_like(values, np.median(values))
    weighted = values * weights
    result: Floats = np.full_like(values, weighted.sum() / weights.sum())
    for reach in (8.0, 3.0, 0.8):
        rows, columns = _gaussian(len(values), reach), _gaussian(values.shape[1], reach)
        near = rows @ weights @ columns
        total = rows @ weighted @ columns
        result = ((total + 0.05 * result) / (near + 0.05)).astype(np.float32)
    return result


@lru_cache(maxsize=256)
def _gaussian(n: int, reach: float) -> Floats:
    """Return (n, n) weights of a normal distribution, symmetric, whole rows adding up to 1."""
    away = np.arange(n)[:, np.newaxis] - np.arange(n)
    weights = np.exp(-0.5 * np.square(away / reach)) / (reach * np.sqrt(2 * np.pi))
    whole: Floats = weights.astype(np.float32)
    return whole
