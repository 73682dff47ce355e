"""Which components of ink are the digit, and which are dirt, frames and printed lines.

Works on a reduced picture of ink (positive where there is ink, about 0 elsewhere). Components are
judged by their ink, their distance and their shape, never by their number alone. A faint stroke of
a digit comes apart, a 5's bar stands alone, and two digits must both stay to be rejected as two.
"""

from __future__ import annotations

import numpy as np

from inkdigits.ink.background import square_filter
from inkdigits.ink.components import Components, connected_components, dilate
from inkdigits.ink.ruled_lines import erase_lines
from inkdigits.types import Floats, Mask

# Pictures are reduced to this many pixels a side before components are judged.
JUDGED_SIZE = 128
# A component with this share of the main one's ink is kept wherever it is: a second digit.
OWN_SHARE = 0.3
# A smaller one belongs to the digit with (this share of the ink, this gap for the digit's side).
NEAR = ((0.12, 0.5), (0.03, 0.2), (0.01, 0.1))
# On a plain background a stroke has at least this width and height, of the digit's longer side; and
# what is this faint beside the digit's darkest does not move the digit.
SPECK_SIZE = 0.055
FAINT_SHARE = 0.25

# The least contrast of ink on an uneven background, in units of noise too, and its least area.
LEAST_CONTRAST = 12.0
NOISE_FACTOR = 5.0
LEAST_AREA = 6
# The darkest ink is what one pixel in so many exceeds: of a digit, and of a tiny one.
EXTENT, TINY_EXTENT = 400, 1500
# Shares of the darkest ink down to which a component reaches, tried in this order.
LOW_SHARES = (0.22, 0.4, 0.55)
# Noisier ink than this share of the darkest is smoothed.
SMOOTHED_NOISE = 0.06
# Bits that lines leave where they cross are smaller than this share of the picture's longer side.
CROSSING_SHARE = 0.08
# A component of at most so many pixels per pixel of length is a bit of a line, at the border.
LINE_BIT = 4

# What distinguishes a stroke from light, the edge of a page and a frame (docs/experiments/).
# The steepest step between two pixels of a component of ink, as a share of its darkest.
SHARPNESS = 0.12
# Around a stroke the picture falls towards the background by these shares of its mean ink, except
# for these shares of the way around. It falls no farther than GREATEST_FALL, except for FAR_SHARE.
FALLS = ((0.9, 0.25), (0.5, 0.1))
GREATEST_FALL = 1.8
FAR_SHARE = 0.33
# From this mean ink on, the picture may be level for this share of the way around.
DARK_MEAN = 60.0
DARK_LEVEL = 0.35
# The least mean ink of a component; and of one that touches the border, or is smaller than this
# share of the picture's longer side.
LEAST_MEAN = 13.0
SURE_MEAN = 40.0
SMALL_SHARE = 0.15
# The greatest size of a component of a tiny digit, as a share likewise.
TINY_SHARE = 0.25


def select_digit(ink: Floats, relief: Floats, *, tiny: bool = False) -> Mask | None:
    """Return where the digit is, in a picture of ink on a background that is not plain.

    Args:
        ink: (H, W) float32: contrast with the background, 0 to 255; noise about 0.
        relief: (H, W) float32: the picture with its background; more is more like ink.
        tiny: whether to look for a digit of some ten pixels' height, which must be dark.

    Returns:
        (H, W), the digit's pixels and those around them; None when nothing is written.

    >>> ink = np.zeros((100, 100), np.float32)
    >>> ink[30:70, 48:52] = 100
    >>> select_digit(ink, ink)[50].nonzero()[0].tolist()
    [46, 47, 48, 49, 50, 51, 52, 53]
    """
    noise = _noise(ink)
    if noise > SMOOTHED_NOISE * _strongest(ink, tiny):
        ink, relief = _smoothed(ink), _smoothed(relief)
        noise = _noise(ink)
    least = max(LEAST_CONTRAST, NOISE_FACTOR * noise)
    clean = erase_lines(ink, max(0.5 * LEAST_CONTRAST, 0.5 * NOISE_FACTOR * noise))
    relief = relief - (ink - clean)
    for _ in range(3):
        strong = _strongest(clean, tiny)
        if strong < least:
            return None
        # The edge of a page is often darker than any ink, and would set the threshold too high.
        certain = connected_components(clean > max(least, 0.4 * strong), clean)
        edges = _are_along_border(certain)
        if not edges.any():
            break
        clean = np.where(certain.pixels(edges), np.float32(0.0), clean)
    for share in LOW_SHARES:
        found = connected_components(clean > max(0.5 * least, share * strong), clean)
        sure = (found.peak >= max(least, 0.4 * strong)) & (found.area >= LEAST_AREA)
        sure &= _are_sharp(found, clean)
        if not sure.any():
            return None
        sure &= _are_two_sided(found, relief) & _are_dark_enough(found, tiny=tiny)
        kept = sure & ~_are_along_border(found)
        if kept.any():
            kept = _main_and_near(found, kept, is_plain=False)
        # What is left of a line may join the digit to the border; it is fainter than the digit.
        if kept.any() and found.ink[kept].max() >= OWN_SHARE * found.ink.max():
            break
    if not kept.any():
        return None
    return dilate(dilate(found.pixels(kept)))


def find_dirt(ink: Floats, *, with_lines: bool) -> Mask | None:
    """Return where dirt, frames and what fills a corner are, in ink on a plain background.

    Returns:
        (H, W), dirt and the pixels around it; None when there is none.

    >>> ink = np.zeros((100, 100), np.float32)
    >>> ink[30:70, 48:52] = ink[90, 90] = 100
    >>> dirt = find_dirt(ink, with_lines=False)
    >>> bool(dirt[90, 90]), bool(dirt[50, 50])
    (True, False)
    """
    threshold = 0.1 * float(ink.max())
    without = erase_lines(ink, threshold) if with_lines else ink
    found = connected_components(without > threshold, without)
    kept: Mask = np.ones(len(found), dtype=bool)
    if without is not ink:
        # Where lines cross, and at their ends, thin bits of them are left.
        kept = found.size >= CROSSING_SHARE * max(ink.shape)
        kept &= (found.area > LINE_BIT * found.size) | ~_are_along_border(found)
    corners = found.number[[0, 0, -1, -1], [0, -1, 0, -1]]
    kept[corners[corners >= 0]] = False
    if kept.any():
        kept = _main_and_near(found, kept, is_plain=True)
    if kept.all() and without is ink:
        return None
    digit = found.pixels(kept)
    dirt: Mask = dilate(dilate((ink > threshold) & ~digit)) & ~(dilate(digit) & (without > 0))
    return dirt


def _main_and_near(found: Components, candidates: Mask, *, is_plain: bool) -> Mask:
    """Return the component with most ink, those of a similar size, and those that belong to it."""
    candidates = candidates & ~_are_frames(found, candidates)
    main = int(np.argmax(np.where(candidates, found.ink, -1.0)))
    kept: Mask = candidates & (found.ink >= OWN_SHARE * found.ink[main])
    kept[main] = True
    for _ in range(2):  # a bar beside a component that is only near by way of another
        left, top = found.left[kept].min(), found.top[kept].min()
        right, bottom = found.right[kept].max(), found.bottom[kept].max()
        side = int(found.size[kept].max())
        beside = np.maximum(np.maximum(left - found.right, found.left - right), 0)
        above = np.maximum(np.maximum(top - found.bottom, found.top - bottom), 0)
        gap = np.hypot(beside, above)
        if is_plain:
            large = np.sqrt(found.area) >= SPECK_SIZE * side
            faint = found.peak <= FAINT_SHARE * found.peak[main]
            kept |= candidates & (large | faint) & (gap <= NEAR[0][1] * side)
        for share, reach in NEAR:
            kept |= candidates & (found.ink >= share * found.ink[main]) & (gap <= reach * side)
    return kept


def _are_sharp(found: Components, ink: Floats) -> Mask:
    """Return which components have an edge somewhere, as strokes have and light has not."""
    steps = np.zeros_like(ink)
    steps[:, 1:] = np.abs(np.diff(ink, axis=1))
    steps[1:] = np.maximum(steps[1:], np.abs(np.diff(ink, axis=0)))
    steep = (found.number >= 0) & (steps > SHARPNESS * np.append(found.peak, 0.0)[found.number])
    sharp: Mask = np.bincount(found.number[steep], minlength=len(found)) > 0
    return sharp


def _are_two_sided(found: Components, relief: Floats) -> Mask:
    """Return from which components the picture falls on all sides, about as deep as their ink."""
    # The rest of a shadow's edge falls on one side and deeper; a cloud of light hardly at all.
    mask = found.number >= 0
    nearest = square_filter(found.number.astype(np.float32), 7, np.maximum)
    around = (nearest >= 0) & ~dilate(mask)
    owner = nearest[around].astype(np.int64)
    top = square_filter(np.where(mask, relief, np.float32(-1e6)), 11, np.maximum)[around]
    fall = (top - relief[around]) / (found.ink / found.area)[owner]
    n = len(found)
    pixels = np.maximum(np.bincount(owner, minlength=n), 1)
    falls = np.ones(n, dtype=bool)
    for least, share in FALLS:
        falls &= np.bincount(owner[fall < least], minlength=n) <= share * pixels
    falls &= np.bincount(owner[fall > GREATEST_FALL], minlength=n) <= FAR_SHARE * pixels
    # Such ink is darker than what light leaves, and may lie across the edge of a shadow.
    dark = found.ink >= DARK_MEAN * found.area
    falls |= dark & (np.bincount(owner[fall < 0.5], minlength=n) <= DARK_LEVEL * pixels)
    return falls


def _are_dark_enough(found: Components, *, tiny: bool) -> Mask:
    """Return which components are dark enough; small ones and those at the border need more."""
    height, width = found.number.shape
    doubtful = (found.size < SMALL_SHARE * max(height, width)) | (found.left == 0)
    doubtful |= (found.top == 0) | (found.right == width) | (found.bottom == height) | tiny
    enough: Mask = found.ink >= np.where(doubtful, SURE_MEAN, LEAST_MEAN) * found.area
    return enough & (found.size < TINY_SHARE * max(height, width)) if tiny else enough


def _are_along_border(found: Components) -> Mask:
    """Return which components lie along the picture's border: a table, a shadow, a printed line."""
    n, number = len(found), found.number
    height, width = number.shape
    along, contact, sides = np.zeros(n), np.zeros(n), np.zeros(n)
    for side in (number[0], number[-1], number[:, 0], number[:, -1]):
        on = side[side >= 0]
        if len(on):
            pixels = np.bincount(on, minlength=n)
            along = np.maximum(along, pixels / len(side))
            contact += pixels
            sides += pixels > 0
    band_y, band_x = 0.08 * height, 0.08 * width
    in_band = (found.bottom <= band_y) | (found.top >= height - band_y)
    in_band |= (found.right <= band_x) | (found.left >= width - band_x)
    # A stroke that leaves the picture does so across its own width; a wedge of shadow along it.
    wedge = contact > 0.7 * np.sqrt(found.area)
    edges: Mask = (along > 0.3) | (contact > 0) & (in_band | wedge) | (sides >= 2)
    return edges


def _are_frames(found: Components, candidates: Mask) -> Mask:
    """Return which components lie along the sides of their box, with another one of size inside."""
    frames = np.zeros(len(found), dtype=bool)
    if candidates.sum() < 2:
        return frames
    sizes_x, sizes_y = found.right - found.left, found.bottom - found.top
    for i in np.flatnonzero(candidates & (sizes_x >= 12) & (sizes_y >= 12)):
        if found.area[i] > 0.35 * sizes_x[i] * sizes_y[i]:
            continue
        inside = candidates & (found.left > found.left[i]) & (found.top > found.top[i])
        inside &= (found.right < found.right[i]) & (found.bottom < found.bottom[i])
        inside &= (found.ink > 0.15 * found.ink[i]) & (sizes_y > 0.25 * sizes_y[i])
        if not inside.any():
            continue
        own = found.number[found.top[i] : found.bottom[i], found.left[i] : found.right[i]] == i
        near_y, near_x = 2 + int(0.06 * sizes_y[i]), 2 + int(0.06 * sizes_x[i])
        if own[near_y:-near_y, near_x:-near_x].sum() < 0.2 * found.area[i]:
            frames[i] = True
    return frames


def _smoothed(values: Floats) -> Floats:
    for _ in range(2):
        padded = np.pad(values, ((1, 1), (0, 0)), mode="edge")
        values = (0.25 * (padded[:-2] + padded[2:]) + 0.5 * padded[1:-1]).T
    return values


def _noise(ink: Floats) -> float:
    """Return the background's deviation, from the side of the median on which there is no ink."""
    low, middle = np.percentile(ink, [16, 50])
    return float(middle - low)


def _strongest(ink: Floats, tiny: bool) -> float:
    """Return the ink that a small share of the picture exceeds, so that no single pixel sets it."""
    place = ink.size - max(4, ink.size // (TINY_EXTENT if tiny else EXTENT))
    return float(np.partition(ink.ravel(), place)[place])
