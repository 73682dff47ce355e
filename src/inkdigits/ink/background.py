"""The paper under the ink: its shade at each place, which side of it is ink, and its noise.

On a reduced copy of 32 pixels a side the shade is a rank of each neighbourhood, wide enough that no
stroke covers it; then the ink that this finds is left out, and the shade is what paper there is
nearby. Ranks keep the edge of a shadow where a mean would smear it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from inkdigits.types import Floats

GRID = 32
# Halved where the shorter side has this many pixels.
COARSE = 12
# The neighbourhood, in pixels of half the grid, and the share of it that is paper at the least.
WINDOW = 7
# In pixels of the grid, for what is lighter or darker than the shade in the middle nearby.
SIGN_WINDOW = 13
PAPER_SHARE = 0.3
# How much of a picture's variance its two shades explain; a gradient's is 0.75.
TWO_SHADES = 0.78
# The noise of paper that a digit fills, as a share of what lies between the lightest and darkest.
FLAT = 0.05
# Of the picture's longer side; a marker's stroke is a third of its digit at most.
WIDEST_STROKE = 0.34
# The share of each side, at both ends, that doesn't say whether ink is lighter or darker.
OUTER = 0.13
# Darker paper is taken for this dark when light is evened out, so that noise isn't blown up.
DARKEST = 24.0
GREATEST_GAIN = 3.0
# Of the change of the paper's shade from one place to the next, what isn't taken for ink.
DOUBT = 0.4


@dataclass(frozen=True, slots=True)
class Paper:
    """The paper of one picture.

    Attributes:
        shade: (h, w) float32, at most GRID a side: the paper's grey at each place.
        gain: (h, w) float32: 1 where light is brightest, more where it's darker.
        sign: 1 for light ink on dark paper, -1 for dark ink.
    """

    shade: Floats
    gain: Floats
    sign: float

    def ink(self, grey: Floats, box: tuple[float, float, float, float]) -> Floats:
        """How far each pixel is from the paper, towards the ink, in even light.

        Args:
            grey: (H, W) float32, a part of the picture at any scale.
            box: left, top, right, bottom of that part, in pixels of ``shade``.
        """
        size = (grey.shape[1], grey.shape[0])
        shade, gain = (
            np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR, box=box))
            for values in (self.shade, self.gain)
        )
        ink: Floats = (grey - shade) * gain * np.float32(self.sign)
        return ink

    def standing_out(self, grey: Floats) -> tuple[Floats, Floats]:
        """The whole picture's ``ink``, but nothing that isn't narrower than a stroke can be.

        The shade is coarse, and leaves a line at the edge of a shadow; such an edge has no
        narrow top, and the opening by a square (the least, then the greatest of each
        neighbourhood) takes it away with whatever is wider than the square.

        Returns:
            That ink, and the picture as it is but turned so that ink is positive and with
            contrasts as in even light; both (H, W) float32.
        """
        height, width = self.shade.shape
        size = (grey.shape[1], grey.shape[0])
        ink = self.ink(grey, (0, 0, width, height))
        ink -= np.asarray(Image.fromarray(self._doubt()).resize(size, Image.Resampling.BILINEAR))
        towards = grey * np.float32(self.sign)
        square = 2 * round(WIDEST_STROKE * max(grey.shape) / 2) + 1
        top = towards - extreme(extreme(towards, square, np.minimum), square, np.maximum)
        gain = np.asarray(Image.fromarray(self.gain).resize(size, Image.Resampling.BILINEAR))
        top *= gain
        return np.minimum(ink, top - np.median(top)), towards * gain

    def _doubt(self) -> Floats:
        """How wrong the shade may be: as it changes nearby."""
        change = extreme(self.shade, 3, np.maximum) - extreme(self.shade, 3, np.minimum)
        doubt: Floats = np.float32(DOUBT) * change * self.gain
        return doubt


def find_paper(grey: Floats, sign: float | None = None) -> Paper:
    """The paper of a picture of any size.

    Args:
        grey: (H, W) float32, 0 to 255.
        sign: 1 for light ink, -1 for dark ink; None looks which it is.
    """
    grid = reduced(grey, GRID)
    size = (grid.shape[1], grid.shape[0])
    # A rank of a neighbourhood is slow to find, and rough at first will do.
    coarse = np.asarray(Image.fromarray(grid).reduce(2)) if min(size) >= COARSE else grid
    if sign is None:
        sign = _sign(grid)
    towards = grid * np.float32(sign)
    rough = _ranked(coarse * np.float32(sign), PAPER_SHARE, WINDOW)
    shade = np.asarray(Image.fromarray(rough).resize(size, Image.Resampling.BILINEAR))
    for _ in range(3):
        rest = towards - shade
        # On a slope a rank is off by the same everywhere, which isn't ink.
        middle, spread = _middle(rest)
        inked = rest > middle + max(4.0, 2.5 * spread)
        shade = extended(towards, ~_grown(inked))
    shade *= np.float32(sign)
    bright = float(np.percentile(shade, 90))
    gain = np.clip(max(bright, DARKEST) / np.maximum(shade, DARKEST), 1.0, GREATEST_GAIN)
    return Paper(shade=shade, gain=gain.astype(np.float32), sign=sign)


def reduced(grey: Floats, side: int, reducing_gap: float | None = None) -> Floats:
    """A picture averaged down to at most so many pixels a side.

    Args:
        grey: (H, W) float32.
        side: of the result's longer side; a smaller picture stays as it is.
        reducing_gap: see ``PIL.Image.Image.resize``: faster where the picture is much larger, and
            slightly different; None averages exactly.
    """
    scale = min(1.0, side / max(grey.shape))
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    image = Image.fromarray(grey).resize(size, Image.Resampling.BOX, reducing_gap=reducing_gap)
    return np.asarray(image)


def two_shades(grey: Floats) -> tuple[float, float, float] | None:
    """Paper and ink of a picture that is filled by its digit, so that the border has both.

    Args:
        grey: (H, W) float32, 0 to 255.

    Returns:
        The paper's shade, 1 where ink is the lighter or else -1, and the paper's noise; None
        where the picture isn't of two shades.
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
    light_paper = float(around.mean()) + 2 * corners > 1.5
    # Beside a stroke paper is half ink, so the border says more, where fog doesn't lie on it.
    outer = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])[around == light_paper]
    paper, noise = _middle(grey[lighter == light_paper])
    if 5 * len(outer) >= len(around):
        at_border, noise_there = _middle(outer)
        if noise_there <= noise:
            paper, noise = at_border, noise_there
    return paper, -1.0 if light_paper else 1.0, noise


def _middle(shades: Floats) -> tuple[float, float]:
    """Median, and the deviation of a normal distribution with this median deviation from it."""
    middle = float(np.median(shades))
    return middle, 1.4826 * float(np.median(np.abs(shades - middle)))


def filled(grey: Floats) -> tuple[float, float, float] | None:
    """As ``two_shades``, for a large picture that a drawn digit fills; None for other pictures.

    Flat paper, ink enough to be no printed line, and ink that touches each side, in more than
    one place: a shadow's border is in one piece.
    """
    small = reduced(grey, 64, reducing_gap=3.0)
    shades = two_shades(small)
    if shades is None or shades[2] > FLAT * float(np.ptp(small)):
        return None
    inked = np.abs(small - shades[0]) > 0.5 * float(np.abs(small - shades[0]).max())
    sides = [float(side.mean()) for side in (inked[0], inked[-1], inked[:, 0], inked[:, -1])]
    touched = min(sides[:2]) > 0 or min(sides[2:]) > 0
    # What covers a whole side, or most of the picture, is the table or the paper.
    if not touched or max(sides) > 0.9 or not 0.15 <= float(inked.mean()) <= 0.65:
        return None
    around = np.concatenate([inked[0], inked[1:, -1], inked[-1, -2::-1], inked[-2:0:-1, 0]])
    pieces = int(np.sum(around & ~np.roll(around, 1)))
    return shades if 2 <= pieces <= 8 else None


def slope(grey: Floats) -> Floats:
    """(H, W) the surface of second order through most of a small picture, and of its border."""
    basis = _basis(*grey.shape)
    values = grey.ravel().astype(np.float64)
    first = np.ones(grey.shape)
    first[1:-1, 1:-1] = 0.25
    outer: npt.NDArray[np.float64] = first.ravel()
    weights = outer
    for _ in range(5):
        weighted = basis * weights
        surface = np.linalg.lstsq(weighted @ basis.T, weighted @ values, rcond=None)[0] @ basis
        away = np.abs(values - surface)
        weights = outer * (away <= max(1.0, 2.0 * 1.4826 * float(np.median(away))))
    whole: Floats = surface.reshape(grey.shape).astype(np.float32)
    return whole


@lru_cache(maxsize=64)
def _basis(height: int, width: int) -> npt.NDArray[np.float64]:
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y]).reshape(6, -1)


def extreme(values: Floats, reach: int, of: np.ufunc) -> Floats:
    """The least or greatest of each square neighbourhood, by windows that double in width."""
    for _ in range(2):
        half = reach // 2
        padded = np.pad(values, ((half, reach - half - 1), (0, 0)), mode="edge")
        width = 1
        while width < reach:
            step = min(width, reach - width)
            padded = of(padded[:-step], padded[step:])
            width += step
        values = padded.T
    return values


def _sign(grid: Floats) -> float:
    """Which side of the local median holds more: 1 when it's the lighter one."""
    rest = grid - _ranked(grid, 0.5, SIGN_WINDOW)
    # A table beside the paper may have the paper's side of it taken for ink.
    top, left = (int(side * OUTER) for side in grid.shape)
    rest = rest[top : len(rest) - top, left : rest.shape[1] - left]
    squares = np.square(rest)
    lighter = float(squares[rest > 0].sum())
    return 1.0 if lighter > float(squares.sum()) - lighter else -1.0


def _ranked(grid: Floats, share: float, window: int) -> Floats:
    """The shade that this share of each square neighbourhood is below."""
    window = min(window, 2 * ((min(grid.shape) - 1) // 2) + 1)
    rank = int(share * (window * window - 1))
    padded = np.pad(grid, window // 2, mode="edge")
    around = sliding_window_view(padded, (window, window)).reshape(*grid.shape, -1)
    ranked: Floats = np.partition(around, rank, axis=-1)[..., rank]
    return ranked


def _grown(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The mask and its neighbours in the four directions."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def extended(values: Floats, known: npt.NDArray[np.bool_]) -> Floats:
    """Known values lightly smoothed; elsewhere what is known nearby, from farther if need be."""
    weights = known.astype(np.float32)
    if not known.any():
        return np.full_like(values, np.median(values))
    weighted = values * weights
    result: Floats = np.full_like(values, weighted.sum() / weights.sum())
    for reach in (8.0, 3.0, 0.8):
        rows, columns = _smoother(len(values), reach), _smoother(values.shape[1], reach)
        near = rows @ weights @ columns
        total = rows @ weighted @ columns
        result = ((total + 0.05 * result) / (near + 0.05)).astype(np.float32)
    return result


@lru_cache(maxsize=256)
def _smoother(n: int, reach: float) -> Floats:
    """(n, n) weights of a normal distribution, symmetric, whole rows adding up to 1."""
    away = np.arange(n)[:, np.newaxis] - np.arange(n)
    weights = np.exp(-0.5 * np.square(away / reach)) / (reach * np.sqrt(2 * np.pi))
    whole: Floats = weights.astype(np.float32)
    return whole
