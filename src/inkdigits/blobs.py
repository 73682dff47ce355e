"""Which connected pieces of ink are the digit, and which are dirt, frames and printed lines.

Works on a reduced picture of ink (positive where there is ink, about 0 on paper). Pieces are judged
by their ink, their distance and their shape, never by their number alone: a faint stroke of a digit
comes apart, a 5's bar stands by itself, and two digits must both stay so that they can be refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from inkdigits.paper import extreme

Floats: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]
Numbers: TypeAlias = npt.NDArray[np.int64]

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
# The steepest step between two pixels of a piece of ink, as a share of its darkest.
SHARPNESS = 0.12
# Around a stroke the picture falls towards paper by these shares of its mean ink, but for these
# shares of the way around; and it mostly doesn't fall farther than this.
FALLS = ((0.9, 0.25), (0.5, 0.1))
GREATEST_FALL = 1.8
# The least mean ink of a piece; and of one that touches the border, or is smaller than this share
# of the picture's longer side.
LEAST_MEAN = 13.0
SURE_MEAN = 40.0
SMALL_SHARE = 0.15
# From this mean ink on, the picture may be level for this share of the way around.
DARK_MEAN = 60.0
DARK_LEVEL = 0.35
# Shares of the darkest ink down to which a piece reaches, tried in this order.
LOW_SHARES = (0.22, 0.4, 0.55)
# Noisier ink than this share of the darkest is smoothed.
SMOOTHED_NOISE = 0.06

# Slopes of printed lines that are looked for, in pixels across per pixel along.
SLOPES = np.tan(np.radians(np.arange(-9.0, 9.1, 0.75)))
# A printed line is seen on at least this share of its way across the picture...
LINE_SHARE = 0.6
# ... and of each third of it, and in this share of it at both ends.
LINE_SHARE_OF_THIRDS = 0.4
LINE_END = 0.025
# More pixels of the reduced picture than this are a stroke.
THICKEST_LINE = 6
# Bits that lines leave where they cross are smaller than this share of the picture's longer side.
CROSSING_SHARE = 0.08


@dataclass(frozen=True, slots=True)
class Blobs:
    """Connected pieces, each array with one value a piece; pixels joined by a corner are joined.

    Attributes:
        number: (H, W) the piece of each pixel, -1 where there is none.
        area: pixels.
        ink: the sum of the ink.
        peak: the darkest pixel's ink.
        left, top, right, bottom: its box, the last two exclusive.
    """

    number: Numbers
    area: Numbers
    ink: npt.NDArray[np.float64]
    peak: Floats
    left: Numbers
    top: Numbers
    right: Numbers
    bottom: Numbers

    def __len__(self) -> int:
        return len(self.area)


def find_blobs(mask: Mask, ink: Floats) -> Blobs:
    """Label the pieces of a mask, by runs along rows that touch those of the next row.

    Args:
        mask: (H, W).
        ink: (H, W) float32, what to add up.
    """
    height, width = mask.shape
    stride = width + 2
    padded = np.zeros((height, stride), dtype=np.int8)
    padded[:, 1:-1] = mask
    edges = np.flatnonzero(np.diff(padded.ravel()))
    starts, ends = edges[::2] + 1, edges[1::2] + 1
    if not len(starts):
        none = np.zeros(0, dtype=np.int64)
        return Blobs(
            np.full(mask.shape, -1), none, np.zeros(0), np.zeros(0, dtype=np.float32),
            none, none, none, none,
        )  # fmt: skip
    first = np.searchsorted(ends, starts + (stride - 1), side="right")
    last = np.searchsorted(starts, ends + (stride + 1), side="left")
    touched = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(starts)), touched)
    lower = np.arange(len(upper)) + np.repeat(first - (np.cumsum(touched) - touched), touched)
    names = np.arange(len(starts))
    while True:
        least = np.minimum(names[upper], names[lower])
        if np.array_equal(names[upper], least) and np.array_equal(names[lower], least):
            break
        np.minimum.at(names, upper, least)
        np.minimum.at(names, lower, least)
        names = names[names]
    kept, of_run = np.unique(names, return_inverse=True)
    n = len(kept)
    values = np.zeros((height, stride), dtype=np.float32)
    values[:, 1:-1] = ink
    flat = values.ravel()
    total = np.concatenate([[0.0], np.cumsum(flat, dtype=np.float64)])
    bounds = np.stack([starts, ends], axis=1).ravel()
    peak = np.zeros(n, dtype=np.float32)
    np.maximum.at(peak, of_run, np.maximum.reduceat(flat, bounds)[::2])
    rows = starts // stride
    box = [np.full(n, stride * height) for _ in range(2)] + [np.zeros(n, np.int64) for _ in "rb"]
    np.minimum.at(box[0], of_run, starts % stride - 1)
    np.minimum.at(box[1], of_run, rows)
    np.maximum.at(box[2], of_run, (ends - 1) % stride)
    np.maximum.at(box[3], of_run, rows + 1)
    steps = np.zeros(height * stride + 1, dtype=np.int64)
    steps[starts] += of_run + 1
    steps[ends] -= of_run + 1
    number = np.cumsum(steps[:-1]).reshape(height, stride)[:, 1:-1] - 1
    return Blobs(
        number=number,
        area=np.bincount(of_run, (ends - starts).astype(np.float64), n).astype(np.int64),
        ink=np.bincount(of_run, total[ends] - total[starts], n).astype(np.float64),
        peak=peak,
        left=box[0],
        top=box[1],
        right=box[2],
        bottom=box[3],
    )


def written(ink: Floats, relief: Floats) -> Mask | None:
    """Where the digit is, in a picture of ink on paper that isn't plain.

    Args:
        ink: (H, W) float32: contrast with the paper, 0 to 255; noise about 0.
        relief: (H, W) float32: the picture with its paper; more is more like ink.

    Returns:
        (H, W), the digit's pixels and those around them; None when nothing is written.
    """
    noise = _noise(ink)
    if noise > SMOOTHED_NOISE * _strongest(ink):
        ink, relief = _smoothed(ink), _smoothed(relief)
        noise = _noise(ink)
    least = max(LEAST_CONTRAST, NOISE_FACTOR * noise)
    clean = erase_lines(ink, max(0.5 * LEAST_CONTRAST, 0.5 * NOISE_FACTOR * noise))
    relief = relief - (ink - clean)
    for _ in range(3):
        strong = _strongest(clean)
        if strong < least:
            return None
        # The paper's edge is often darker than any ink, and would set the bar too high.
        certain = find_blobs(clean > max(least, 0.4 * strong), clean)
        edges = _edges_of_paper(certain, *clean.shape)
        if not edges.any():
            break
        clean = np.where(np.append(edges, False)[certain.number], np.float32(0.0), clean)
    for share in LOW_SHARES:
        blobs = find_blobs(clean > max(0.5 * least, share * strong), clean)
        sure = (blobs.peak >= max(least, 0.4 * strong)) & (blobs.area >= LEAST_AREA)
        sure &= _sharp(blobs, clean)
        if not sure.any():
            return None
        kept = digit_pieces(blobs, sure & _two_sided(blobs, relief) & _plausible(blobs))
        # What is left of a line may join the digit to the border; it's fainter than the digit.
        if kept.any() and blobs.ink[kept].max() >= OWN_SHARE * blobs.ink.max():
            break
    if not kept.any():
        return None
    return _grown(_grown(np.append(kept, False)[blobs.number]))


def specks(ink: Floats, lined: bool) -> Mask | None:
    """Where dirt and frames are, in a picture of ink on plain paper.

    Args:
        ink: (H, W) float32, about 0 on paper.
        lined: whether to look for printed lines.

    Returns:
        (H, W), dirt and the pixels around it; None when there is none.
    """
    threshold = 0.1 * float(ink.max())
    without = erase_lines(ink, threshold) if lined else ink
    blobs = find_blobs(without > threshold, without)
    kept = np.ones(len(blobs), dtype=bool)
    if without is not ink:
        # Where lines cross, bits of them are left.
        kept &= np.maximum(blobs.right - blobs.left, blobs.bottom - blobs.top) >= (
            CROSSING_SHARE * max(ink.shape)
        )
    if kept.any():
        kept = _judged(blobs, kept, plain=True)
    if kept.all() and without is ink:
        return None
    digit = np.append(kept, False)[blobs.number]
    dirt: Mask = _grown(_grown((ink > threshold) & ~digit)) & ~(_grown(digit) & (without > 0))
    return dirt


def _smoothed(values: Floats) -> Floats:
    for _ in range(2):
        padded = np.pad(values, ((1, 1), (0, 0)), mode="edge")
        values = (0.25 * (padded[:-2] + padded[2:]) + 0.5 * padded[1:-1]).T
    return values


def _noise(ink: Floats) -> float:
    """Deviation of paper, from the side of the median on which there is no ink."""
    low, middle = np.percentile(ink, [16, 50])
    return float(middle - low)


def _strongest(ink: Floats) -> float:
    """The ink that a 400th of the picture exceeds, so that no single pixel sets it."""
    place = ink.size - max(4, ink.size // 400)
    return float(np.partition(ink.ravel(), place)[place])


def _sharp(blobs: Blobs, ink: Floats) -> Mask:
    """Pieces that have an edge somewhere, as pens make them and light on paper doesn't."""
    steps = np.zeros_like(ink)
    steps[:, 1:] = np.abs(np.diff(ink, axis=1))
    steps[1:] = np.maximum(steps[1:], np.abs(np.diff(ink, axis=0)))
    steep = (blobs.number >= 0) & (steps > SHARPNESS * np.append(blobs.peak, 0.0)[blobs.number])
    sharp: Mask = np.bincount(blobs.number[steep], minlength=len(blobs)) > 0
    return sharp


def _two_sided(blobs: Blobs, relief: Floats) -> Mask:
    """Pieces from which the picture falls to paper all around, about as deep as their ink.

    What is left of a shadow's edge falls on one side and deeper than its ink, a cloud of light
    hardly falls at all.
    """
    mask = blobs.number >= 0
    nearest = extreme(blobs.number.astype(np.float32), 7, np.maximum)
    around = (nearest >= 0) & ~_grown(mask)
    piece = nearest[around].astype(np.int64)
    top = extreme(np.where(mask, relief, np.float32(-1e6)), 11, np.maximum)[around]
    fall = (top - relief[around]) / (blobs.ink / blobs.area)[piece]
    n = len(blobs)
    pixels = np.maximum(np.bincount(piece, minlength=n), 1)
    two_sided = np.ones(n, dtype=bool)
    for least, share in FALLS:
        two_sided &= np.bincount(piece[fall < least], minlength=n) <= share * pixels
    two_sided &= np.bincount(piece[fall > GREATEST_FALL], minlength=n) <= 0.5 * pixels
    # Such ink is darker than what light leaves, and may lie across the edge of a shadow.
    dark = blobs.ink >= DARK_MEAN * blobs.area
    two_sided |= dark & (np.bincount(piece[fall < 0.5], minlength=n) <= DARK_LEVEL * pixels)
    return two_sided


def _plausible(blobs: Blobs) -> Mask:
    """Pieces dark enough for what they are: a small one, or one at the border, may be anything."""
    height, width = blobs.number.shape
    size = np.maximum(blobs.right - blobs.left, blobs.bottom - blobs.top)
    doubtful = (size < SMALL_SHARE * max(height, width)) | (blobs.left == 0) | (blobs.top == 0)
    doubtful |= (blobs.right == width) | (blobs.bottom == height)
    plausible: Mask = blobs.ink >= np.where(doubtful, SURE_MEAN, LEAST_MEAN) * blobs.area
    return plausible


def _grown(mask: Mask) -> Mask:
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    wider = grown.copy()
    wider[:, 1:] |= grown[:, :-1]
    wider[:, :-1] |= grown[:, 1:]
    return wider


def digit_pieces(blobs: Blobs, certain: Mask) -> Mask:
    """(n,) which pieces are the digit, or the digits.

    Args:
        blobs: n pieces.
        certain: (n,) those that are ink for certain; at least one.
    """
    height, width = blobs.number.shape
    candidates = certain & ~_edges_of_paper(blobs, height, width)
    if not candidates.any():
        return candidates
    return _judged(blobs, candidates, plain=False)


def _judged(blobs: Blobs, candidates: Mask, plain: bool) -> Mask:
    candidates = candidates & ~_frames(blobs, candidates)
    main = int(np.argmax(np.where(candidates, blobs.ink, -1.0)))
    kept = candidates & (blobs.ink >= OWN_SHARE * blobs.ink[main])
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


def _edges_of_paper(blobs: Blobs, height: int, width: int) -> Mask:
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


def _frames(blobs: Blobs, candidates: Mask) -> Mask:
    """Pieces that lie along the sides of their own box, with another piece of size inside."""
    frames = np.zeros(len(blobs), dtype=bool)
    if candidates.sum() < 2:
        return frames
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
            frames[i] = True
    return frames


def erase_lines(ink: Floats, threshold: float) -> Floats:
    """Take out thin straight lines that run across the whole picture, but not what crosses them.

    Args:
        ink: (H, W) float32.
        threshold: what counts as ink at all.

    Returns:
        (H, W) float32, a copy where there was a line; the same array otherwise.
    """
    mask = ink > threshold
    across, down = _lines(mask), _lines(mask.T)
    if not across and not down:
        return ink
    result = ink.copy()
    for lines, others, turned in ((across, down, False), (down, across, True)):
        # What crosses a line is a stroke, unless it's another line.
        strokes = ink.copy()
        for row, slope in others:
            _band(strokes.T if not turned else strokes, row, slope, 3)
        for row, slope in lines:
            if turned:
                _erase(result.T, ink.T, strokes.T, row, slope, threshold)
            else:
                _erase(result, ink, strokes, row, slope, threshold)
    return result


def _band(ink: Floats, row: float, slope: float, reach: int) -> None:
    """Empty the pixels of a line and ``reach`` to both sides of it, in place."""
    columns = np.arange(ink.shape[1])
    places = np.rint(row + slope * columns).astype(np.int64)
    for step in range(-reach, reach + 1):
        there = (places + step >= 0) & (places + step < len(ink))
        ink[places[there] + step, columns[there]] = 0


def _lines(mask: Mask) -> list[tuple[float, float]]:
    """Row at the left side, and slope, of each line that runs from left to right."""
    height, width = mask.shape
    # Solid areas are no lines: a line's pixel has paper close above and below.
    thin = mask.copy()
    reach = max(3, round(0.03 * height))
    below, above = np.zeros_like(mask), np.zeros_like(mask)
    below[:-reach] = mask[reach:]
    above[reach:] = mask[:-reach]
    thin &= ~(below & above)
    rows, columns = np.nonzero(thin)
    if len(rows) < LINE_SHARE * width:
        return []
    margin = int(np.ceil(SLOPES[-1] * width)) + 1
    bins = height + 2 * margin + 1
    offsets = np.rint(rows - SLOPES[:, np.newaxis] * columns).astype(np.int64) + margin
    keys = offsets + (np.arange(len(SLOPES)) * bins)[:, np.newaxis]
    thirds = np.minimum(3 * columns // width, 2)
    counts = np.stack(
        [
            np.bincount(keys[:, thirds == third].ravel(), minlength=bins * len(SLOPES))
            for third in range(3)
        ]
    ).reshape(3, len(SLOPES), bins)
    # A line may jump between two neighbouring offsets by rounding.
    pairs = counts.copy()
    pairs[..., :-1] += counts[..., 1:]
    share = pairs.sum(axis=0) / width
    good = (share >= LINE_SHARE) & (pairs.min(axis=0) >= LINE_SHARE_OF_THIRDS * width / 3)
    end = max(2, round(LINE_END * width))
    for at_end in (columns < end, columns >= width - end):
        hits = np.bincount(keys[:, at_end].ravel(), minlength=bins * len(SLOPES))
        hits = hits.reshape(share.shape)
        hits[:, :-1] += hits[:, 1:].copy()
        good &= hits > 0
    lines: list[tuple[float, float]] = []
    while good.any() and len(lines) < 40:
        slope, at = np.unravel_index(int(np.argmax(np.where(good, share, 0))), share.shape)
        lines.append((float(at - margin) + 0.5, float(SLOPES[slope])))
        # What the same line gives at neighbouring slopes and rows.
        middle = lines[-1][0] + lines[-1][1] * width / 2
        others = np.arange(bins) - margin + SLOPES[:, np.newaxis] * width / 2
        good &= np.abs(others - middle) > 3
    return lines


def _erase(
    changed: Floats, ink: Floats, strokes: Floats, row: float, slope: float, threshold: float
) -> None:
    height, width = ink.shape
    columns = np.arange(width)
    reach = THICKEST_LINE + 2
    steps = np.arange(-reach, reach + 1)
    places = np.rint(row + slope * columns).astype(np.int64) + steps[:, np.newaxis]
    inside = (places >= 0) & (places < height)
    at = np.clip(places, 0, height - 1)
    # Across the line, by the median along it: strokes and other lines don't show.
    profile = np.median(np.where(inside, ink[at, columns], np.float32(0.0)), axis=1)
    up = down = reach - 2 + int(np.argmax(profile[reach - 2 : reach + 3]))
    level = float(profile[up])
    while up > 1 and profile[up - 1] > max(0.2 * level, 0.5 * threshold):
        up -= 1
    while down < 2 * reach - 1 and profile[down + 1] > max(0.2 * level, 0.5 * threshold):
        down += 1
    if down - up >= THICKEST_LINE:
        return
    band = np.where(inside, strokes[at, columns], np.float32(0.0))
    crossed = np.maximum(band[up - 2 if up > 1 else 0], band[min(down + 2, 2 * reach)])
    kept = (crossed > 0.6 * level) | (band[up : down + 1].max(axis=0) > 1.7 * level + threshold)
    kept[1:] |= kept[:-1].copy()
    kept[:-1] |= kept[1:].copy()
    for step in range(up - 1, down + 2):
        there = inside[step] & ~kept
        changed[places[step][there], columns[there]] = 0
