"""Ink on a background of one shade; what is on no such background is left to ``nonuniform``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import numpy.typing as npt
from PIL import Image

from inkdigits.ink.background import downscale, lighting_surface, shades_of_filled, two_shades
from inkdigits.ink.nonuniform import extract_ink, extract_ink_on_page
from inkdigits.ink.select import JUDGED_SIZE, find_dirt
from inkdigits.types import Floats, Grey, Mask

# Pictures are averaged down to at most this many pixels a side before the ink is looked for.
WORKING_SIZE = 1024
# The faintest ink that is read: difference from the background, of 255.
MIN_CONTRAST = 20.0
# Ink must exceed this many standard deviations of the border's noise.
NOISE_FACTOR = 6.0
# Pixels above this share of the darkest ink belong to the ink's box.
EDGE_SHARE = 0.10

# Up to this many pixels a side nothing is removed: dirt cannot be told from strokes.
SMALL_PICTURE = 40
# A plain background: the border's noise, and how much of it may be how far from its median.
PLAIN_NOISE = 1.0
PLAIN_SPREAD = 8.0
PLAIN_EXCEPTIONS = 0.04
# The same share in a small picture, whose digit may fill it.
PLAIN_EXCEPTIONS_SMALL = 0.1
# A card is solid, and each side of it at least this share of the picture's longer one.
LEAST_CARD = 0.3
# The smallest side on which a gradient of light can be told from a stroke, and what share of the
# border's noise may be left once it is removed.
LEAST_GRADIENT = 20
LEFT_NOISE = 0.7


@dataclass(frozen=True, eq=False)
class Foreground:
    """A part of a picture without its background; around the part there is only background."""

    values: Floats  # (h, w) positive where there is ink; about 0 elsewhere, so that noise averages
    top: int
    left: int
    whole: tuple[int, int]  # height and width of the picture, each at most WORKING_SIZE

    @classmethod
    def whole_picture(cls, values: Floats) -> Foreground:
        """Make a foreground that leaves nothing of the picture out."""
        return cls(values, 0, 0, (values.shape[0], values.shape[1]))

    @cached_property
    def profiles(self) -> tuple[Floats, Floats]:
        """The darkest ink of each column and of each row of the part."""
        return np.maximum.reduce(self.values, axis=0), np.maximum.reduce(self.values, axis=1)

    @cached_property
    def peak(self) -> float:
        """The darkest ink."""
        return float(self.profiles[0].max())

    @cached_property
    def inked(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """The columns and the rows of the part that hold ink above EDGE_SHARE of the darkest."""
        columns, rows = (of > EDGE_SHARE * self.peak for of in self.profiles)
        return columns.nonzero()[0], rows.nonzero()[0]

    def complete(self) -> Floats:
        """Return the values of all pixels of the picture."""
        if self.values.shape == self.whole:
            return self.values
        values = np.zeros(self.whole, dtype=np.float32)
        height, width = self.values.shape
        values[self.top : self.top + height, self.left : self.left + width] = self.values
        return values


def find_foreground(grey: Grey) -> Foreground:
    """Subtract the background: return how far each pixel is from it, towards the ink.

    The background's shade is the median of the picture's border, which ink rarely covers by half.
    Ink is whichever side of that shade holds more: a picture's mean does not tell, for a thick
    white digit on black and a thin black one on white can have the same.

    Args:
        grey: (H, W) float32 or uint8, 0 to 255.

    Returns:
        All zeros when there is no ink.

    >>> picture = np.full((50, 50), 200, np.uint8)
    >>> picture[20:30, 24] = 50
    >>> found = find_foreground(picture)
    >>> found.values.shape, float(found.values.max()), (found.top, found.left)
    ((10, 1), 150.0, (20, 24))
    """
    longest = max(grey.shape)
    if longest > WORKING_SIZE:
        factor = -(-longest // WORKING_SIZE)
        grey = np.asarray(Image.fromarray(grey.astype(np.float32, copy=False)).reduce(factor))
    # The corners first: a photograph's differ.
    if grey[0, 0] == grey[0, -1] == grey[-1, 0] == grey[-1, -1]:
        found = _on_clean_background(grey)
        if found is not None:
            return found
    border = _border(grey)
    grey = grey.astype(np.float32, copy=False)
    border = border.astype(np.float32, copy=False)
    background = float(np.median(border))
    # The median absolute deviation ignores ink that touches the border; 1.4826 makes it a
    # normal distribution's standard deviation.
    noise = 1.4826 * float(np.median(np.abs(border - background)))
    is_large = longest > SMALL_PICTURE
    difference = grey - np.float32(background)
    exceptions = PLAIN_EXCEPTIONS if is_large else PLAIN_EXCEPTIONS_SMALL
    if noise <= PLAIN_NOISE and np.mean(np.abs(border - background) > PLAIN_SPREAD) <= exceptions:
        found = Foreground.whole_picture(_above_noise(difference, noise))
        return _without_card_and_dirt(grey, found)
    if is_large:
        return _in_large_mixed_picture(grey, difference, background, noise)
    return Foreground.whole_picture(_in_small_mixed_picture(grey, difference, noise))


def _border_width(grey: Grey) -> int:
    return max(1, int(min(grey.shape)) // 50)


def _border(grey: Grey) -> Grey:
    """Return the outermost pixels, a fiftieth of the shorter side wide, as one row."""
    width = _border_width(grey)
    if min(grey.shape) <= 2 * width:
        return grey.ravel()
    sides = (grey[:width], grey[-width:], grey[width:-width, :width], grey[width:-width, -width:])
    return np.concatenate([side.ravel() for side in sides])


def _on_clean_background(grey: Grey) -> Foreground | None:
    """Return the foreground if the border is of one shade: most of the picture is left out."""
    background = grey[0, 0]
    differs = grey != background
    rows = np.logical_or.reduce(differs, axis=1).nonzero()[0]
    if not len(rows):
        return Foreground.whole_picture(np.zeros((1, 1), dtype=np.float32))
    columns = np.logical_or.reduce(differs, axis=0).nonzero()[0]
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    width = _border_width(grey)
    if min(top, left, len(grey) - bottom, grey.shape[1] - right) < width:
        return None
    part = grey[top:bottom, left:right]
    values = _above_noise(part.astype(np.float32) - np.float32(background), noise=0.0)
    found = Foreground(values, top, left, (grey.shape[0], grey.shape[1]))
    return _without_card_and_dirt(grey, found)


def _in_large_mixed_picture(
    grey: Floats, difference: Floats, background: float, noise: float
) -> Foreground:
    """Find the foreground where the border has several shades: a page, a filled picture, light."""
    ink = extract_ink_on_page(grey)
    if ink is not None:
        return _without_dirt(Foreground.whole_picture(ink))
    shades = shades_of_filled(grey)
    if shades is not None:
        # Of ink that fills a picture nothing is dirt, though a stem may look like a printed line.
        return Foreground.whole_picture(_from_two_shades(grey, *shades))
    # Where most of the border is of one shade the background is even: either the ink touches the
    # border, or a table or a shadow does, which covers a corner.
    corners = grey[[0, 0, -1, -1], [0, -1, 0, -1]]
    if noise <= 0.5 * PLAIN_NOISE and not (np.abs(corners - background) > PLAIN_SPREAD).any():
        return _without_dirt(Foreground.whole_picture(_above_noise(difference, noise)))
    ink = extract_ink(grey)
    if ink is None:
        return Foreground.whole_picture(np.zeros_like(grey))
    return _without_dirt(Foreground.whole_picture(ink))


def _in_small_mixed_picture(grey: Floats, difference: Floats, noise: float) -> Floats:
    """Find the foreground where the border has several shades: a gradient, or ink that fills it."""
    can_slope = min(grey.shape) >= LEAST_GRADIENT
    level = grey - lighting_surface(grey) if can_slope else difference
    if can_slope and float(np.abs(level).max()) < MIN_CONTRAST:
        return np.zeros_like(level)
    shades = two_shades(grey)
    if shades is not None:
        found = _from_two_shades(grey, *shades)
        # Fog looks like two shades too; its ink is found once the fog is removed.
        if found.any():
            return found
    if can_slope:
        left = 1.4826 * float(np.median(np.abs(_border(level))))
        if left < LEFT_NOISE * noise:
            return _above_noise(level, left)
    return _above_noise(difference, noise)


def _from_two_shades(grey: Floats, shade: float, sign: float, noise: float) -> Floats:
    return _above_noise((grey - np.float32(shade)) * np.float32(sign), noise, is_signed=True)


def _above_noise(difference: Floats, noise: float, *, is_signed: bool = False) -> Floats:
    """Turn a difference from the background so that ink is positive, unless it is signed."""
    highest, lowest = float(difference.max()), float(difference.min())
    strongest = max(highest, 0.0 if is_signed else -lowest)
    if strongest < max(MIN_CONTRAST, NOISE_FACTOR * noise):
        return np.zeros_like(difference)
    if not is_signed and lowest < 0.0 and (highest <= 0.0 or _is_darker(difference)):
        difference = -difference
    floor = NOISE_FACTOR / 2 * noise
    if floor == 0.0:
        return difference
    return np.where(np.abs(difference) < floor, np.float32(0.0), difference)


def _is_darker(difference: Floats) -> bool:
    # Squares, so that a wide faint shade does not outvote a stroke.
    lighter = float(np.square(np.maximum(difference, np.float32(0.0))).sum())
    return lighter <= float(np.square(difference).sum()) - lighter


def _without_card_and_dirt(grey: Grey, found: Foreground) -> Foreground:
    """Return the ink on a card that lies on a plain background, or else the ink without dirt."""
    part = found.values
    longest = max(found.whole)
    if longest > SMALL_PICTURE and min(part.shape) > LEAST_CARD * longest:
        # One pixel in sixteen suffices.
        sample = part[::4, ::4]
        if 2 * np.count_nonzero(sample > 0.5 * found.peak) > sample.size:
            ink = extract_ink_on_page(grey.astype(np.float32, copy=False))
            if ink is not None:
                return Foreground.whole_picture(ink)
    return _without_dirt(found)


def _without_dirt(found: Foreground) -> Foreground:
    """Remove dirt and frames, which are looked for only where there may be some."""
    height, width = found.whole
    if max(height, width) <= SMALL_PICTURE or found.peak <= 0.0:
        return found
    columns, rows = found.inked
    part = found.values
    at_left, at_right = columns[0] == 0, columns[-1] == part.shape[1] - 1
    at_top, at_bottom = rows[0] == 0, rows[-1] == len(part) - 1
    # A printed line runs from one side of the picture to the other.
    has_line = (part.shape[1] == width and at_left and at_right) or (
        len(part) == height and at_top and at_bottom
    )
    in_corner = part.shape == found.whole and (at_left or at_right) and (at_top or at_bottom)
    has_gap = any(one[-1] - one[0] >= len(one) for one in found.inked)
    if not (has_line or in_corner or has_gap or _has_frame(found)):
        return found
    values = found.complete()
    dirt = find_dirt(downscale(values, JUDGED_SIZE), with_lines=has_line)
    if dirt is None:
        return found
    mask = Image.fromarray(dirt).resize((width, height), Image.Resampling.NEAREST)
    return Foreground.whole_picture(np.where(np.asarray(mask), np.float32(0.0), values))


def _begins_twice(inked: Mask) -> bool:
    """Return whether ink begins more than once along any row (m, n)."""
    begins = np.count_nonzero(inked[..., 1:] > inked[..., :-1], axis=-1) + inked[..., 0]
    return bool((begins > 1).any())


def _has_frame(found: Foreground) -> bool:
    """Return whether most of an edge of the ink's box is ink, with more ink inside."""
    columns, rows = found.inked
    box = found.values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    dark = np.float32(0.3 * found.peak)
    for side in (box, box[::-1], box.T, box.T[::-1]):
        edge = reduce(np.maximum, side[:3])
        if np.count_nonzero(edge > dark) / len(edge) > 0.8:
            break
    else:
        return False
    # What a frame surrounds is apart from it in some row and in some column.
    mask = box > EDGE_SHARE * found.peak
    return _begins_twice(mask) and _begins_twice(mask.T)
