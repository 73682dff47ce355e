"""A picture's foreground → the 28x28 ink that the network was trained on, or the ink of a number.

``preprocess`` is the only way for a picture into the network, in training as in serving. The
recipe is MNIST's own (LeCun, Cortes and Burges, "The MNIST database of handwritten digits",
yann.lecun.com/exdb/mnist), so a digit of MNIST comes out as itself.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from inkdigits.ink.components import connected_components, is_connected, stroke_width
from inkdigits.ink.decode import DEFAULT_LIMITS, Limits, read_luminance
from inkdigits.ink.plain import SECOND_SIZE, Foreground, find_foreground
from inkdigits.ink.segment import Segmenter
from inkdigits.types import Floats, Ink, Picture

# Changes whenever any picture may come out different; an artifact names the one it was made for.
PREPROCESSING_VERSION = 5

# Mean and standard deviation of MNIST's 60,000 training pictures, ink scaled to 0-1.
MEAN = 0.1307
STD = 0.3081

INK_SIZE = 28
BOX_SIZE = 20
# Pixels kept around the box, for ink too faint to have been counted into it.
MARGIN = 2

# In a picture near 28x28 a faint edge pixel is a whole row of the digit, so the box ends at a small
# share of the darkest ink (EDGE_SHARE). In an enlarged one, with a longer side than LARGE_BOX, the
# edge is a ramp, and a quarter of its height is where the original pixel ended
# (docs/experiments/).
EDGE_SHARE_LARGE = 0.25
LARGE_BOX = 40
_PLACES = np.arange(float(INK_SIZE))
# A pixel is ink as a whole from this share of the darkest ink on.
FULL_SHARE = 0.8
# The background that is kept around ink, as a share of its height.
FIELD_MARGIN = 1.0
# Accepted is only ink of which the segmenter is that certain somewhere, which costs 1 % of the
# accepted photographs, and beside which it sees at most this share of it as doubtful, which costs
# 2 %: of 9 that were read wrong 5 are left, and of 22 with a second, smaller digit 3.
LEAST_CERTAINTY, MOST_DOUBTFUL = 0.93, 0.1
# Nor is what runs into one edge with this share of the darkest ink. Of 73 cut digits that were
# accepted 9 are left, and none of the 6 wrong ones; of 149 whole ones at an edge 96.
DOUBTFUL_EDGE = 0.6
# A stroke runs into an edge where its ink there, above this share of the darkest, is at least half
# as wide as beside the edge, and as a quarter of a stroke. Of 200 digits cut by 20 to 35 % 95 % are
# found, and no wrong one is accepted; of 200 whole ones at an edge 0.5 % are taken for cut.
EDGE_INK, EDGE_WIDTH, BESIDE_EDGE = 0.85, 0.25, 0.5


def preprocess(picture: Picture, segmenter: Segmenter, limits: Limits = DEFAULT_LIMITS) -> Ink:
    """Return the ink of a picture, as the network takes it.

    Args:
        picture: a path, an encoded picture (PNG, JPEG, WebP, BMP, GIF or TIFF; the first frame),
            a Pillow image of any mode, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of
            uint8. Dark ink on a light background or the reverse, opaque or transparent, any size.
        segmenter: finds ink where the background is not clean; ``reader.preprocess`` has one.
        limits: sizes above which pictures are rejected.

    Returns:
        (28, 28) uint8, 0 is background and 255 the darkest ink; all zeros when there is no ink.

    Raises:
        UnreadableImageError: not a picture, truncated, empty, or no such file.
        UnsupportedImageError: a picture or array of an unsupported kind.
        ImageTooLargeError: over a limit; it was not decoded.

    >>> picture = np.full((100, 100), 255, np.uint8)
    >>> picture[30:70, 45:55] = 0
    >>> ink = preprocess(picture, lambda view: np.repeat(view, 2, axis=1))
    >>> ink.shape, int(ink.max()), int(ink[0, 0])
    ((28, 28), 255, 0)
    """
    return find(picture, segmenter, limits)[0]


def find(
    picture: Picture, segmenter: Segmenter, limits: Limits = DEFAULT_LIMITS
) -> tuple[Ink, Foreground]:
    """Return the ink of a picture as ``preprocess`` does, and the foreground that it is made of.

    >>> find(np.zeros((28, 28), np.uint8), lambda view: view)[1].peak
    0.0
    """
    foreground = find_foreground(read_luminance(picture, limits), segmenter)
    return normalise(foreground), foreground


def standardise(inks: Ink) -> Floats:
    """Return ink (N, 28, 28) as (N, 1, 28, 28) float32 without MNIST's mean and deviation.

    >>> standardise(np.zeros((2, 28, 28), np.uint8)).shape
    (2, 1, 28, 28)
    """
    scale = np.float32(1.0 / (255.0 * STD))
    return (inks[:, np.newaxis].astype(np.float32) - np.float32(255.0 * MEAN)) * scale


def normalise(foreground: Foreground) -> Ink:
    """Scale the ink's box to fit 20x20 by area averaging, and centre its mass in 28x28.

    Returns:
        (28, 28) uint8; all zeros where there is no ink.

    >>> normalise(Foreground.whole_picture(np.zeros((50, 50), np.float32))).any()
    np.False_
    """
    box = _ink_box(foreground)
    if box is None:
        return np.zeros((INK_SIZE, INK_SIZE), dtype=np.uint8)
    small = np.maximum(_fit(foreground, box), np.float32(0.0))
    peak = float(np.maximum.reduce(small, axis=None))
    total = float(np.add.reduce(small, axis=None, dtype=np.float64))
    if peak <= 0.0:
        return np.zeros((INK_SIZE, INK_SIZE), dtype=np.uint8)
    height, width = small.shape
    row = float(np.add.reduce(small, axis=1, dtype=np.float64) @ _PLACES[:height]) / total
    column = float(np.add.reduce(small, axis=0, dtype=np.float64) @ _PLACES[:width]) / total
    # Whole pixels, as MNIST was made: another resampling would blur the ink. The box stays
    # inside; the margin may fall outside.
    top = min(max(round(INK_SIZE / 2 - row), -MARGIN), INK_SIZE - height + MARGIN)
    left = min(max(round(INK_SIZE / 2 - column), -MARGIN), INK_SIZE - width + MARGIN)
    # MNIST's darkest pixel is 254 or 255 in nearly all; ink that is that dark already stays.
    gain = 1.0 if 250.0 <= peak <= 255.0 else 255.0 / peak
    padded = np.zeros((INK_SIZE + 2 * MARGIN, INK_SIZE + 2 * MARGIN), dtype=np.uint8)
    top, left = top + MARGIN, left + MARGIN
    padded[top : top + height, left : left + width] = np.rint(np.minimum(small * gain, 255.0))
    return padded[MARGIN:-MARGIN, MARGIN:-MARGIN].copy()


def _ink_box(foreground: Foreground) -> tuple[int, int, int, int] | None:
    """Return left, top, right, bottom (exclusive) of the ink in the part's pixels, or None."""
    if foreground.peak <= 0.0:
        return None
    columns, rows = foreground.inked
    if max(columns[-1] - columns[0], rows[-1] - rows[0]) >= LARGE_BOX:
        least = EDGE_SHARE_LARGE * foreground.peak
        columns, rows = ((of > least).nonzero()[0] for of in foreground.profiles)
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _fit(foreground: Foreground, box: tuple[int, int, int, int]) -> Floats:
    """Return the box and MARGIN around it, at the scale that makes its longer side BOX_SIZE."""
    # In the whole picture: another origin would round the corners of the source box otherwise.
    left, top = box[0] + foreground.left, box[1] + foreground.top
    right, bottom = box[2] + foreground.left, box[3] + foreground.top
    scale = BOX_SIZE / max(right - left, bottom - top)
    # The shorter side is no whole number of pixels at this scale. Rounding it would stretch a "1"
    # by up to a sixth, so the source box is rounded instead; the margin holds what that cuts off.
    width = max(1, round((right - left) * scale)) + 2 * MARGIN
    height = max(1, round((bottom - top) * scale)) + 2 * MARGIN
    centre_x, centre_y = (left + right) / 2, (top + bottom) / 2
    half_x, half_y = width / scale / 2, height / scale / 2
    pad = math.ceil((MARGIN + 1) / scale) + 1
    offset_x, offset_y = pad - max(0, left - pad), pad - max(0, top - pad)
    rows = slice(max(0, box[1] - pad), box[3] + pad)
    columns = slice(max(0, box[0] - pad), box[2] + pad)
    part = Image.fromarray(foreground.values[rows, columns])
    place = columns.start + foreground.left + offset_x, rows.start + foreground.top + offset_y
    # Only the part is copied, which takes half the time of making all of it an array first.
    crop = Image.new("F", (right + offset_x + pad, bottom + offset_y + pad))
    crop.paste(part, place)
    source = (
        max(0.0, centre_x - half_x + offset_x),
        max(0.0, centre_y - half_y + offset_y),
        min(float(crop.width), centre_x + half_x + offset_x),
        min(float(crop.height), centre_y + half_y + offset_y),
    )
    # Area averaging has nothing to average when enlarging; there bicubic keeps strokes smooth.
    method = Image.Resampling.BOX if scale <= 1.0 else Image.Resampling.BICUBIC
    return np.asarray(crop.resize((width, height), method, box=source))


class Field(NamedTuple):
    """How much of each pixel is ink, and where these pixels are in the picture."""

    ink: Floats  # (h, w), 0 for background to 1 for ink
    left: int  # pixels of ink
    top: int
    scale: float  # pixels of the picture per pixel


def field_of(found: Foreground) -> Field:
    """Return the field that a foreground shows, with some of the background around it.

    >>> found = Foreground(np.full((2, 3), 90, np.float32), 10, 0, (20, 30))
    >>> field = field_of(found)
    >>> field.ink.shape, field.left, field.top
    ((6, 5), 0, 8)
    """
    height, width = found.values.shape
    margin = max(1, round(FIELD_MARGIN * height))
    above, before = min(margin, found.top), min(margin, found.left)
    below = min(margin, max(0, found.whole[0] - found.top - height))
    behind = min(margin, max(0, found.whole[1] - found.left - width))
    ink = np.zeros((above + height + below, before + width + behind), np.float32)
    if found.peak > 0.0:
        part = found.values / np.float32(FULL_SHARE * found.peak)
        ink[above : above + height, before : before + width] = np.clip(part, 0, 1)
    return Field(ink, found.left - before, found.top - above, found.scale)


def is_certain(found: Foreground) -> bool:
    """Return whether the ink is certain, and all of it was found, so that it may be accepted.

    >>> is_certain(Foreground.whole_picture(np.eye(9, dtype=np.float32)))
    True
    """
    is_all = found.certainty >= LEAST_CERTAINTY and found.doubtful <= MOST_DOUBTFUL
    return is_all and not is_cut_off(found, DOUBTFUL_EDGE)


def has_several(found: Foreground) -> bool:
    """Return whether a foreground has more than one piece that could be a digit.

    >>> has_several(Foreground.whole_picture(np.eye(9, dtype=np.float32)))
    False
    """
    if is_connected(found.mask):
        return False
    pieces = connected_components(found.mask, found.values)
    sizes = np.sort(pieces.size)[::-1]
    return len(sizes) > 1 and bool(sizes[1] >= SECOND_SIZE * sizes[0])


def is_cut_off(found: Foreground, edge_ink: float = EDGE_INK) -> bool:
    """Return whether strokes run into one edge of the picture, and not into the opposite one.

    What touches opposite edges is taken for a digit that fills its picture.

    >>> ink = np.zeros((20, 30), np.float32)
    >>> ink[10:, 12:18] = 1
    >>> is_cut_off(Foreground.whole_picture(ink))
    True
    """
    if not len(found.inked[0]):
        return False
    top, bottom, left, right = found.at_edges
    ends = (top, bottom), (left, right)
    if all(first == last for first, last in ends):
        return False
    values = found.values / np.float32(found.peak)
    stroke = stroke_width(values > 0.5)
    for (first, last), turned in zip(ends, (values, values.T), strict=True):
        if first != last and _runs_out(turned if first else turned[::-1], stroke, edge_ink):
            return True
    return False


def _runs_out(values: Floats, stroke: float, edge_ink: float) -> bool:
    """Return whether a stroke goes through the first row."""
    depth = max(1, round(0.6 * stroke))
    if len(values) <= depth:
        return False
    edges = np.flatnonzero(np.diff(np.pad((values[0] > edge_ink).astype(np.int8), 1)))
    for start, end in edges.reshape(-1, 2):
        beside = np.count_nonzero(values[depth, max(0, start - depth) : end + depth] > 0.5)
        if end - start >= max(EDGE_WIDTH * stroke, BESIDE_EDGE * beside):
            return True
    return False
