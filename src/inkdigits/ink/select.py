"""Which pieces of ink are the digit, and which are dirt, frames and printed lines.

Works on a reduced picture of ink (positive where there is ink, about 0 on paper). Pieces are judged
by their ink, their distance and their shape, never by their number alone: a faint stroke of a digit
comes apart, a 5's bar stands by itself, and two digits must both stay so that they can be refused.
"""

from __future__ import annotations

import numpy as np

from inkdigits.ink.component_features import edges_of_paper, frames, plausible, sharp, two_sided
from inkdigits.ink.components import Blobs, find_blobs, grown
from inkdigits.ink.ruled_lines import erase_lines
from inkdigits.types import Floats, Mask

# Pictures are reduced to this many pixels a side before pieces are judged.
JUDGED_SIZE = 128
# A piece with this share of the main piece's ink is kept wherever it is: a second digit.
OWN_SHARE = 0.3
# A smaller one belongs to the digit when it's near: (least share of the ink, greatest gap as a
# share of the digit's longer side).
NEAR = ((0.12, 0.5), (0.03, 0.2), (0.01, 0.1))
# On plain paper a stroke has at least this width and height, of the digit's longer side; and what
# is this faint beside the digit's darkest moves nothing.
SPECK_SIZE = 0.055
FAINT_SHARE = 0.25

# The least contrast of ink on uneven paper, the noise it must stand out of, and its least area.
LEAST_CONTRAST = 12.0
NOISE_FACTOR = 5.0
LEAST_AREA = 6
# The darkest ink is what one pixel in so many exceeds: of a digit, and of a tiny one.
EXTENT, TINY_EXTENT = 400, 1500
# Shares of the darkest ink down to which a piece reaches, tried in this order.
LOW_SHARES = (0.22, 0.4, 0.55)
# Noisier ink than this share of the darkest is smoothed.
SMOOTHED_NOISE = 0.06
# Bits that lines leave where they cross are smaller than this share of the picture's longer side.
CROSSING_SHARE = 0.08
# A piece of at most so many pixels for each of its longer side is a bit of a line, at the border.
LINE_BIT = 4


def written(ink: Floats, relief: Floats, *, tiny: bool = False) -> Mask | None:
    """Where the digit is, in a picture of ink on paper that isn't plain.

    Args:
        ink: (H, W) float32: contrast with the paper, 0 to 255; noise about 0.
        relief: (H, W) float32: the picture with its paper; more is more like ink.
        tiny: whether to look for a digit of some ten pixels' height, which must be dark.

    Returns:
        (H, W), the digit's pixels and those around them; None when nothing is written.
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
        # The paper's edge is often darker than any ink, and would set the bar too high.
        certain = find_blobs(clean > max(least, 0.4 * strong), clean)
        edges = edges_of_paper(certain, *clean.shape)
        if not edges.any():
            break
        clean = np.where(np.append(edges, False)[certain.number], np.float32(0.0), clean)
    for share in LOW_SHARES:
        blobs = find_blobs(clean > max(0.5 * least, share * strong), clean)
        sure = (blobs.peak >= max(least, 0.4 * strong)) & (blobs.area >= LEAST_AREA)
        sure &= sharp(blobs, clean)
        if not sure.any():
            return None
        kept = digit_pieces(blobs, sure & two_sided(blobs, relief) & plausible(blobs, tiny=tiny))
        # What is left of a line may join the digit to the border; it's fainter than the digit.
        if kept.any() and blobs.ink[kept].max() >= OWN_SHARE * blobs.ink.max():
            break
    if not kept.any():
        return None
    return grown(grown(np.append(kept, False)[blobs.number]))


def specks(ink: Floats, lined: bool) -> Mask | None:
    """Where dirt, frames and what fills a corner are, in a picture of ink on plain paper.

    Args:
        ink: (H, W) float32, about 0 on paper.
        lined: whether to look for printed lines.

    Returns:
        (H, W), dirt and the pixels around it; None when there is none.
    """
    threshold = 0.1 * float(ink.max())
    without = erase_lines(ink, threshold) if lined else ink
    blobs = find_blobs(without > threshold, without)
    kept: Mask = np.ones(len(blobs), dtype=bool)
    if without is not ink:
        # Where lines cross, and at their ends, thin bits of them are left.
        size = np.maximum(blobs.right - blobs.left, blobs.bottom - blobs.top)
        kept = size >= CROSSING_SHARE * max(ink.shape)
        kept &= (blobs.area > LINE_BIT * size) | ~edges_of_paper(blobs, *ink.shape)
    corners = blobs.number[[0, 0, -1, -1], [0, -1, 0, -1]]
    kept[corners[corners >= 0]] = False
    if kept.any():
        kept = _judged(blobs, kept, plain=True)
    if kept.all() and without is ink:
        return None
    digit = np.append(kept, False)[blobs.number]
    dirt: Mask = grown(grown((ink > threshold) & ~digit)) & ~(grown(digit) & (without > 0))
    return dirt


def digit_pieces(blobs: Blobs, certain: Mask) -> Mask:
    """(n,) which pieces are the digit, or the digits.

    Args:
        blobs: n pieces.
        certain: (n,) those that are ink for certain; at least one.
    """
    height, width = blobs.number.shape
    candidates = certain & ~edges_of_paper(blobs, height, width)
    if not candidates.any():
        return candidates
    return _judged(blobs, candidates, plain=False)


def _judged(blobs: Blobs, candidates: Mask, plain: bool) -> Mask:
    candidates = candidates & ~frames(blobs, candidates)
    main = int(np.argmax(np.where(candidates, blobs.ink, -1.0)))
    kept: Mask = candidates & (blobs.ink >= OWN_SHARE * blobs.ink[main])
    kept[main] = True
    for _ in range(2):  # a bar beside a piece that is only near by way of another
        left, top = blobs.left[kept].min(), blobs.top[kept].min()
        right, bottom = blobs.right[kept].max(), blobs.bottom[kept].max()
        side = max(
            int((blobs.right - blobs.left)[kept].max()), int((blobs.bottom - blobs.top)[kept].max())
        )
        beside = np.maximum(np.maximum(left - blobs.right, blobs.left - right), 0)
        above = np.maximum(np.maximum(top - blobs.bottom, blobs.top - bottom), 0)
        gap = np.hypot(beside, above)
        if plain:
            large = np.sqrt(blobs.area) >= SPECK_SIZE * side
            faint = blobs.peak <= FAINT_SHARE * blobs.peak[main]
            kept |= candidates & (large | faint) & (gap <= NEAR[0][1] * side)
        for share, reach in NEAR:
            kept |= candidates & (blobs.ink >= share * blobs.ink[main]) & (gap <= reach * side)
    return kept


def _smoothed(values: Floats) -> Floats:
    for _ in range(2):
        padded = np.pad(values, ((1, 1), (0, 0)), mode="edge")
        values = (0.25 * (padded[:-2] + padded[2:]) + 0.5 * padded[1:-1]).T
    return values


def _noise(ink: Floats) -> float:
    """Deviation of paper, from the side of the median on which there is no ink."""
    low, middle = np.percentile(ink, [16, 50])
    return float(middle - low)


def _strongest(ink: Floats, tiny: bool) -> float:
    """The ink that a small share of the picture exceeds, so that no single pixel sets it."""
    place = ink.size - max(4, ink.size // (TINY_EXTENT if tiny else EXTENT))
    return float(np.partition(ink.ravel(), place)[place])
