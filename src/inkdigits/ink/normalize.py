"""Any picture → the 28x28 ink that the network was trained on. NumPy and Pillow only.

This is the only way for a picture into the network, for training's reports as for serving, and
the only home of the constants MEAN and STD. The recipe is MNIST's own (LeCun, Cortes and Burges,
"The MNIST database of handwritten digits", yann.lecun.com/exdb/mnist): the ink's box is scaled to
fit 20x20 keeping its aspect ratio, with area averaging, and its centre of mass is put at the
centre of 28x28. So a digit of MNIST comes out as itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image

from inkdigits.ink.background import filled, reduced, slope, two_shades
from inkdigits.ink.decode import DEFAULT_LIMITS, Limits, read_grey
from inkdigits.ink.nonuniform import lift_from_sheet, lift_ink
from inkdigits.ink.select import JUDGED_SIZE, specks
from inkdigits.types import Floats, Grey, Ink, Picture

# Changes whenever any picture may come out different; an artifact names the one it was made for.
PREPROCESSING_VERSION = 3

# Mean and standard deviation of MNIST's 60,000 training pictures, ink scaled to 0-1.
MEAN = 0.1307
STD = 0.3081

INK_SIZE = 28
BOX_SIZE = 20
# Pixels kept around the box, for ink too faint to have been counted into it.
MARGIN = 2

# Pictures are averaged down to at most this many pixels a side before the ink is looked for.
WORKING_SIZE = 1024
# The faintest ink that is read: difference from the paper, of 255.
MIN_CONTRAST = 20.0
# Ink must stand out by this many standard deviations of the border's noise.
NOISE_FACTOR = 6.0
# Share of the darkest ink at which the box ends. In a picture near 28x28 a faint edge pixel is a
# whole row of the digit, so the share is small; in an enlarged one the edge is a ramp, and a
# quarter of its height is where the original pixel ended (measured in docs/experiments/).
EDGE_SHARE_SMALL = 0.10
EDGE_SHARE_LARGE = 0.25
LARGE_BOX = 40

# Up to this many pixels a side nothing is taken out: dirt can't be told from strokes.
SMALL_PICTURE = 40
# Paper of one shade: the border's noise, and how much of it may be how far from its median.
PLAIN_NOISE = 1.0
PLAIN_SPREAD = 8.0
PLAIN_EXCEPTIONS = 0.04
# What may be a card is solid, and each side of it at least this share of the picture's longer one.
LEAST_CARD = 0.3
# In a small picture, whose digit may fill it.
MIXED_BORDER = 0.1
# The smallest side on which a gradient of light can be told from a stroke, and what share of the
# border's noise may be left once it's removed.
LEAST_SLOPE = 20
EVENED = 0.7


@dataclass(frozen=True, eq=False)
class Difference:
    """How far the pixels of a picture's part are from the paper; around it there is only paper.

    Attributes:
        values: (h, w) float32: positive where there is ink, about 0 on paper (a little below zero
            too, so that noise averages out).
        top: the row of the picture where the part begins.
        left: the column, likewise.
        whole: height and width of the picture, each at most WORKING_SIZE.
    """

    values: Floats
    top: int
    left: int
    whole: tuple[int, int]

    @classmethod
    def of_all(cls, values: Floats) -> Difference:
        """Of a picture in which nothing is left out."""
        return cls(values, 0, 0, (values.shape[0], values.shape[1]))

    @cached_property
    def profiles(self) -> tuple[Floats, Floats]:
        """The darkest ink of each column and of each row of the part."""
        return self.values.max(axis=0), self.values.max(axis=1)

    def complete(self) -> Floats:
        """Of all pixels of the picture."""
        if self.values.shape == self.whole:
            return self.values
        values = np.zeros(self.whole, dtype=np.float32)
        height, width = self.values.shape
        values[self.top : self.top + height, self.left : self.left + width] = self.values
        return values


def preprocess(picture: Picture, limits: Limits = DEFAULT_LIMITS) -> Ink:
    """The ink of a picture, as the network takes it.

    Args:
        picture: a path, an encoded picture (PNG, JPEG, WebP, BMP, GIF or TIFF; the first frame),
            a Pillow image of any mode, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of
            uint8. Dark ink on light paper or the reverse, opaque or transparent, any size.
        limits: sizes that are refused.

    Returns:
        (28, 28) uint8, 0 being paper and 255 the darkest ink; all zeros when there is no ink.

    Raises:
        UnreadableImageError: not a picture, truncated, empty, or no such file.
        UnsupportedImageError: a picture or array of a kind that isn't taken.
        ImageTooLargeError: over a limit; it was not decoded.
    """
    return normalise(extract_ink(read_grey(picture, limits)))


def standardise(inks: npt.NDArray[np.uint8]) -> Floats:
    """(N, 28, 28) uint8 → (N, 1, 28, 28) float32 with MNIST's mean and deviation removed."""
    scale = np.float32(1.0 / (255.0 * STD))
    return (inks[:, np.newaxis].astype(np.float32) - np.float32(255.0 * MEAN)) * scale


def extract_ink(grey: Grey) -> Difference:
    """Remove the paper: how far each pixel is from it, towards the ink.

    The paper's shade is the median of the picture's border, which ink rarely covers by half. The
    ink is whichever side of that shade holds more: a picture's mean says nothing of it, since a
    thick white digit on black and a thin black one on white can have the same.

    Args:
        grey: (H, W) float32 or uint8, 0 to 255.

    Returns:
        The difference from the paper, without what is clean paper around the ink; all zeros when
        nothing stands out.
    """
    longest = max(grey.shape)
    if longest > WORKING_SIZE:
        factor = -(-longest // WORKING_SIZE)
        grey = np.asarray(Image.fromarray(grey.astype(np.float32, copy=False)).reduce(factor))
    border = _border(grey)
    if border.min() == border.max():
        return _from_clean_paper(grey, border[0])
    grey = grey.astype(np.float32, copy=False)
    border = border.astype(np.float32, copy=False)
    paper = float(np.median(border))
    # The median absolute deviation ignores ink that touches the border; 1.4826 makes it a
    # normal distribution's standard deviation.
    noise = 1.4826 * float(np.median(np.abs(border - paper)))
    large = longest > SMALL_PICTURE
    difference = grey - np.float32(paper)
    if not _is_plain(border, paper, noise, PLAIN_EXCEPTIONS if large else MIXED_BORDER):
        sloping = not large and min(grey.shape) >= LEAST_SLOPE
        level = grey - slope(grey) if sloping else difference
        if sloping and float(np.abs(level).max()) < MIN_CONTRAST:
            return Difference.of_all(np.zeros_like(level))
        lifted = lift_from_sheet(grey) if large else None
        if lifted is not None:
            return _without_dirt(Difference.of_all(lifted))
        shades = filled(grey) if large else two_shades(grey)
        if shades is not None:
            shade, sign, spread = shades
            signed = (grey - np.float32(shade)) * np.float32(sign)
            found = _standing_out(signed, spread, signed=True)
            # Fog looks like two shades too; its ink is found once the fog is removed. Of what
            # fills a picture nothing is dirt, though a stem may look like a printed line.
            if large or found.any():
                return Difference.of_all(found)
        if large:
            # Where most of the border is of one shade there is nothing uneven about the paper:
            # the ink touches the border, or a table or a shadow does, which covers a corner.
            if noise <= 0.5 * PLAIN_NOISE and not _covers_a_corner(grey, paper):
                return _without_dirt(Difference.of_all(_standing_out(difference, noise, False)))
            lifted = lift_ink(grey)
            return _without_dirt(
                Difference.of_all(np.zeros_like(grey) if lifted is None else lifted)
            )
        if sloping:
            left = 1.4826 * float(np.median(np.abs(_border(level))))
            if left < EVENED * noise:
                difference, noise = level, left
    return _written_on_card(grey, Difference.of_all(_standing_out(difference, noise, signed=False)))


def _written_on_card(grey: Grey, difference: Difference) -> Difference:
    """The ink on a card that lies on paper of one shade; where there is no card, all of it."""
    part = difference.values
    longest = max(difference.whole)
    if longest > SMALL_PICTURE and min(part.shape) > LEAST_CARD * longest:
        # One pixel in sixteen tells.
        sample = part[::4, ::4]
        if 2 * np.count_nonzero(sample > 0.5 * difference.profiles[0].max()) > sample.size:
            lifted = lift_from_sheet(grey.astype(np.float32, copy=False))
            if lifted is not None:
                return Difference.of_all(lifted)
    return _without_dirt(difference)


def _from_clean_paper(grey: Grey, paper: np.uint8 | np.float32) -> Difference:
    """As ``extract_ink``, where the border is of one shade: most of the picture is left out."""
    differs = grey != paper
    columns = np.logical_or.reduce(differs, axis=0).nonzero()[0]
    rows = np.logical_or.reduce(differs, axis=1).nonzero()[0]
    if not len(rows):
        return Difference.of_all(np.zeros((1, 1), dtype=np.float32))
    top, left = int(rows[0]), int(columns[0])
    part = grey[top : rows[-1] + 1, left : columns[-1] + 1]
    values = _standing_out(part.astype(np.float32) - np.float32(paper), noise=0.0, signed=False)
    return _written_on_card(grey, Difference(values, top, left, (grey.shape[0], grey.shape[1])))


def _standing_out(difference: Floats, noise: float, signed: bool) -> Floats:
    """The difference from paper turned so that ink is positive; zeros where nothing is ink.

    Args:
        difference: (h, w) float32.
        noise: the paper's deviation.
        signed: whether ink is positive already.
    """
    highest, lowest = float(difference.max()), float(difference.min())
    strongest = max(highest, 0.0 if signed else -lowest)
    if strongest < max(MIN_CONTRAST, NOISE_FACTOR * noise):
        return np.zeros_like(difference)
    if not signed and lowest < 0.0 and (highest <= 0.0 or _is_darker(difference)):
        difference = -difference
    floor = NOISE_FACTOR / 2 * noise
    if floor == 0.0:
        return difference
    return np.where(np.abs(difference) < floor, np.float32(0.0), difference)


def _is_darker(difference: Floats) -> bool:
    """Whether what is below zero outweighs what is above."""
    # Squares, so that a wide faint shade doesn't outvote a stroke.
    lighter = float(np.square(np.maximum(difference, np.float32(0.0))).sum())
    return lighter <= float(np.square(difference).sum()) - lighter


def _is_plain(border: Floats, paper: float, noise: float, exceptions: float) -> bool:
    """Whether the paper is one shade all around, as in a drawing on a screen."""
    if noise > PLAIN_NOISE:
        return False
    return float(np.mean(np.abs(border - paper) > PLAIN_SPREAD)) <= exceptions


def _covers_a_corner(grey: Floats, paper: float) -> bool:
    """Whether something of another shade than the paper's lies in a corner of the picture."""
    corners = grey[[0, 0, -1, -1], [0, -1, 0, -1]]
    return bool((np.abs(corners - paper) > PLAIN_SPREAD).any())


def _border(grey: Grey) -> Grey:
    """The outermost pixels, a fiftieth of the shorter side wide, as one row."""
    width = max(1, min(grey.shape) // 50)
    if min(grey.shape) <= 2 * width:
        return grey.ravel()
    sides = (grey[:width], grey[-width:], grey[width:-width, :width], grey[width:-width, -width:])
    return np.concatenate([side.ravel() for side in sides])


def normalise(difference: Difference) -> Ink:
    """Scale the ink's box to fit 20x20 and put its centre of mass at the centre of 28x28.

    Args:
        difference: as ``extract_ink`` gives it.

    Returns:
        (28, 28) uint8; all zeros where there is no ink.
    """
    box = _ink_box(difference)
    if box is None:
        return np.zeros((INK_SIZE, INK_SIZE), dtype=np.uint8)
    small = np.maximum(_fit(difference, box), np.float32(0.0))
    peak = float(small.max())
    total = float(small.sum(dtype=np.float64))
    if peak <= 0.0:
        return np.zeros((INK_SIZE, INK_SIZE), dtype=np.uint8)
    height, width = small.shape
    row = float(small.sum(axis=1, dtype=np.float64) @ np.arange(height)) / total
    column = float(small.sum(axis=0, dtype=np.float64) @ np.arange(width)) / total
    # Whole pixels, as MNIST was made: another resampling would blur the ink. The box stays
    # inside; the margin may fall outside.
    top = min(max(round(INK_SIZE / 2 - row), -MARGIN), INK_SIZE - height + MARGIN)
    left = min(max(round(INK_SIZE / 2 - column), -MARGIN), INK_SIZE - width + MARGIN)
    # MNIST's darkest pixel is 254 or 255 in all but a few; what is that dark already stays.
    gain = 1.0 if 250.0 <= peak <= 255.0 else 255.0 / peak
    padded = np.zeros((INK_SIZE + 2 * MARGIN, INK_SIZE + 2 * MARGIN), dtype=np.uint8)
    top, left = top + MARGIN, left + MARGIN
    padded[top : top + height, left : left + width] = np.rint(np.minimum(small * gain, 255.0))
    return padded[MARGIN:-MARGIN, MARGIN:-MARGIN].copy()


def _without_dirt(difference: Difference) -> Difference:
    """The ink without specks and frames, which are looked for only where there may be some."""
    peak = float(difference.profiles[0].max())
    height, width = difference.whole
    if max(height, width) <= SMALL_PICTURE or peak <= 0.0:
        return difference
    inked = [profile > EDGE_SHARE_SMALL * peak for profile in difference.profiles]
    # A printed line runs from one side of the picture to the other.
    lined = any(
        len(one) == side and one[0] and one[-1]
        for one, side in zip(inked, (width, height), strict=True)
    )
    part = difference.values
    cornered = part.shape == difference.whole and all(one[0] or one[-1] for one in inked)
    if not (lined or cornered or any(map(_has_gap, inked)) or _has_frame(difference, inked, peak)):
        return difference
    values = difference.complete()
    dirt = specks(reduced(values, JUDGED_SIZE), lined)
    if dirt is None:
        return difference
    mask = Image.fromarray(dirt).resize((width, height), Image.Resampling.NEAREST)
    return Difference.of_all(np.where(np.asarray(mask), np.float32(0.0), values))


def _has_gap(inked: npt.NDArray[np.bool_]) -> bool:
    """Whether ink begins more than once along a side."""
    return int(np.count_nonzero(inked[1:] > inked[:-1])) + int(inked[0]) > 1


def _has_frame(difference: Difference, inked: list[npt.NDArray[np.bool_]], peak: float) -> bool:
    """Whether most of an edge of the ink's box is ink."""
    (left, right), (top, bottom) = (
        (int(np.argmax(one)), len(one) - int(np.argmax(one[::-1]))) for one in inked
    )
    dark = 0.3 * peak
    # Strokes mostly fade towards the box's edge, and then there is nothing dark to count.
    columns, rows = difference.profiles[0][left:right], difference.profiles[1][top:bottom]
    if not any((end > dark).any() for end in (columns[:3], columns[-3:], rows[:3], rows[-3:])):
        return False
    box = difference.values[top:bottom, left:right]
    edges = (box[:3].max(0), box[-3:].max(0), box[:, :3].max(1), box[:, -3:].max(1))
    return any(np.count_nonzero(edge > dark) / len(edge) > 0.8 for edge in edges)


def _ink_box(difference: Difference) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom (exclusive) of the ink in the part's pixels, or None."""
    peak = float(difference.profiles[0].max())
    if peak <= 0.0:
        return None
    box = _box_above(*difference.profiles, EDGE_SHARE_SMALL * peak)
    if max(box[2] - box[0], box[3] - box[1]) > LARGE_BOX:
        box = _box_above(*difference.profiles, EDGE_SHARE_LARGE * peak)
    return box


def _box_above(of_columns: Floats, of_rows: Floats, threshold: float) -> tuple[int, int, int, int]:
    columns, rows = (of_columns > threshold).nonzero()[0], (of_rows > threshold).nonzero()[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _fit(difference: Difference, box: tuple[int, int, int, int]) -> Floats:
    """The box's ink, and MARGIN around it, at the scale that makes its longer side BOX_SIZE."""
    # In the whole picture: another origin would round the corners of the source box otherwise.
    left, top = box[0] + difference.left, box[1] + difference.top
    right, bottom = box[2] + difference.left, box[3] + difference.top
    scale = BOX_SIZE / max(right - left, bottom - top)
    # The shorter side's length isn't a whole number of pixels at this scale. Rounding it would
    # stretch a "1" by up to a sixth, so the source box is rounded instead; the margin holds what
    # that cuts off.
    width = max(1, round((right - left) * scale)) + 2 * MARGIN
    height = max(1, round((bottom - top) * scale)) + 2 * MARGIN
    centre_x, centre_y = (left + right) / 2, (top + bottom) / 2
    half_x, half_y = width / scale / 2, height / scale / 2
    pad = int(np.ceil((MARGIN + 1) / scale)) + 1
    offset_x, offset_y = pad - max(0, left - pad), pad - max(0, top - pad)
    crop = Image.new("F", (right + offset_x + pad, bottom + offset_y + pad))
    rows = slice(max(0, box[1] - pad), box[3] + pad)
    columns = slice(max(0, box[0] - pad), box[2] + pad)
    part = difference.values[rows, columns]
    row = rows.start + difference.top + offset_y
    column = columns.start + difference.left + offset_x
    crop.paste(Image.fromarray(part), (column, row))
    source = (
        max(0.0, centre_x - half_x + offset_x),
        max(0.0, centre_y - half_y + offset_y),
        min(float(crop.width), centre_x + half_x + offset_x),
        min(float(crop.height), centre_y + half_y + offset_y),
    )
    # Area averaging has nothing to average when enlarging; there bicubic keeps strokes smooth.
    method = Image.Resampling.BOX if scale <= 1.0 else Image.Resampling.BICUBIC
    return np.asarray(crop.resize((width, height), method, box=source))
