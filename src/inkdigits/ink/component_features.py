"""What tells a pen's stroke from light on the paper, the paper's edge and a frame.

Each function says for every piece whether it looks like one thing. The figures are from pieces of
ink in photo-like pictures of training digits, and of the same paper with nothing on it
(docs/experiments/).
"""

from __future__ import annotations

import numpy as np

from inkdigits.ink.background import extreme
from inkdigits.ink.components import Blobs, grown
from inkdigits.types import Floats, Mask

# The steepest step between two pixels of a piece of ink, as a share of its darkest.
SHARPNESS = 0.12
# Around a stroke the picture falls towards paper by these shares of its mean ink, but for these
# shares of the way around; and it doesn't fall farther than this, but for that share of it.
FALLS = ((0.9, 0.25), (0.5, 0.1))
GREATEST_FALL = 1.8
FAR_SHARE = 0.33
# From this mean ink on, the picture may be level for this share of the way around.
DARK_MEAN = 60.0
DARK_LEVEL = 0.35
# The least mean ink of a piece; and of one that touches the border, or is smaller than this share
# of the picture's longer side.
LEAST_MEAN = 13.0
SURE_MEAN = 40.0
SMALL_SHARE = 0.15
# The greatest size of a piece of a tiny digit, as a share likewise.
TINY_SHARE = 0.25


def sharp(blobs: Blobs, ink: Floats) -> Mask:
    """Pieces that have an edge somewhere, as pens make them and light on paper doesn't."""
    steps = np.zeros_like(ink)
    steps[:, 1:] = np.abs(np.diff(ink, axis=1))
    steps[1:] = np.maximum(steps[1:], np.abs(np.diff(ink, axis=0)))
    steep = (blobs.number >= 0) & (steps > SHARPNESS * np.append(blobs.peak, 0.0)[blobs.number])
    sharply: Mask = np.bincount(blobs.number[steep], minlength=len(blobs)) > 0
    return sharply


def two_sided(blobs: Blobs, relief: Floats) -> Mask:
    """Pieces from which the picture falls to paper all around, about as deep as their ink.

    What is left of a shadow's edge falls on one side and deeper than its ink, a cloud of light
    hardly falls at all.
    """
    mask = blobs.number >= 0
    nearest = extreme(blobs.number.astype(np.float32), 7, np.maximum)
    around = (nearest >= 0) & ~grown(mask)
    piece = nearest[around].astype(np.int64)
    top = extreme(np.where(mask, relief, np.float32(-1e6)), 11, np.maximum)[around]
    fall = (top - relief[around]) / (blobs.ink / blobs.area)[piece]
    n = len(blobs)
    pixels = np.maximum(np.bincount(piece, minlength=n), 1)
    falls = np.ones(n, dtype=bool)
    for least, share in FALLS:
        falls &= np.bincount(piece[fall < least], minlength=n) <= share * pixels
    falls &= np.bincount(piece[fall > GREATEST_FALL], minlength=n) <= FAR_SHARE * pixels
    # Such ink is darker than what light leaves, and may lie across the edge of a shadow.
    dark = blobs.ink >= DARK_MEAN * blobs.area
    falls |= dark & (np.bincount(piece[fall < 0.5], minlength=n) <= DARK_LEVEL * pixels)
    return falls


def plausible(blobs: Blobs, *, tiny: bool) -> Mask:
    """Pieces dark enough for what they are: a small one, or one at the border, may be anything.

    Args:
        blobs: n pieces.
        tiny: whether only small ones are looked for.
    """
    height, width = blobs.number.shape
    size = np.maximum(blobs.right - blobs.left, blobs.bottom - blobs.top)
    doubtful = (size < SMALL_SHARE * max(height, width)) | (blobs.left == 0) | (blobs.top == 0)
    doubtful |= (blobs.right == width) | (blobs.bottom == height) | tiny
    enough: Mask = blobs.ink >= np.where(doubtful, SURE_MEAN, LEAST_MEAN) * blobs.area
    return enough & (size < TINY_SHARE * max(height, width)) if tiny else enough


def edges_of_paper(blobs: Blobs, height: int, width: int) -> Mask:
    """Pieces along the picture's border: a table beside the paper, a shadow, a printed line."""
    n = len(blobs)
    number = blobs.number
    along, contact, sides = np.zeros(n), np.zeros(n), np.zeros(n)
    for side in (number[0], number[-1], number[:, 0], number[:, -1]):
        on = side[side >= 0]
        if len(on):
            pixels = np.bincount(on, minlength=n)
            along = np.maximum(along, pixels / len(side))
            contact += pixels
            sides += pixels > 0
    band_y, band_x = 0.08 * height, 0.08 * width
    in_band = (
        (blobs.bottom <= band_y)
        | (blobs.top >= height - band_y)
        | (blobs.right <= band_x)
        | (blobs.left >= width - band_x)
    )
    # A stroke that leaves the picture does so across its own width; a wedge of shadow along it.
    wedge = contact > 0.7 * np.sqrt(blobs.area)
    edges: Mask = (along > 0.3) | (contact > 0) & (in_band | wedge) | (sides >= 2)
    return edges


def frames(blobs: Blobs, candidates: Mask) -> Mask:
    """Pieces that lie along the sides of their own box, with another piece of size inside."""
    found = np.zeros(len(blobs), dtype=bool)
    if candidates.sum() < 2:
        return found
    sizes_x, sizes_y = blobs.right - blobs.left, blobs.bottom - blobs.top
    for i in np.flatnonzero(candidates & (sizes_x >= 12) & (sizes_y >= 12)):
        if blobs.area[i] > 0.35 * sizes_x[i] * sizes_y[i]:
            continue
        inside = (
            candidates
            & (blobs.left > blobs.left[i])
            & (blobs.top > blobs.top[i])
            & (blobs.right < blobs.right[i])
            & (blobs.bottom < blobs.bottom[i])
            & (blobs.ink > 0.15 * blobs.ink[i])
            & (sizes_y > 0.25 * sizes_y[i])
        )
        if not inside.any():
            continue
        own = blobs.number[blobs.top[i] : blobs.bottom[i], blobs.left[i] : blobs.right[i]] == i
        near_y, near_x = 2 + int(0.06 * sizes_y[i]), 2 + int(0.06 * sizes_x[i])
        if own[near_y:-near_y, near_x:-near_x].sum() < 0.2 * blobs.area[i]:
            found[i] = True
    return found
