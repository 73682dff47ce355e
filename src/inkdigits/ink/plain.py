"""Ink on a clean background of one shade; what is on no such background is left to ``segment``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, reduce

import numpy as np
import numpy.typing as npt
from PIL import Image

from inkdigits.ink.background import median_and_deviation, two_shades
from inkdigits.ink.components import connected_components, dilate, stroke_width
from inkdigits.ink.decode import Luminance
from inkdigits.ink.segment import FAINTEST, InkMap, Segmenter, Window, find_ink
from inkdigits.types import Floats, Grey, Mask

# Pictures are averaged down to at most this many pixels a side before the ink is looked for.
WORKING_SIZE = 1024
# The faintest ink that is read: difference from the background, of 255. Of 3,000 photographs four
# more are read right than with 20, and no more of 4,500 empty pages are accepted.
MIN_CONTRAST = 12.0
# Pixels above this share of the darkest ink belong to the ink's box.
EDGE_SHARE = 0.10
# Up to this many pixels a side nothing is removed: dirt cannot be told from strokes.
SMALL_PICTURE = 40
# Up to this many, two shades may be noisy: of digits that fill 8x8 pixels 95 % are read, and with
# the segmenter 54 %. It reads 87 % of photographs of 28 pixels, and 79 % are read by noisy shades.
SMALLEST_VIEW = 16
# The noise of a clean border, by which most of it is of one shade.
PLAIN_NOISE = 1.0
# The least share of a picture that is background. The lines at the sides of a cell may be most of
# its border, and are less of the cell: without this limit half of the empty cells show a digit.
LEAST_BACKGROUND = 0.2
# From this share of the ink's box on, darker than this share of the darkest, it may be a card,
# unless the box is narrower than this. So look 3 % of MNIST's digits, and 16 of 19 cards.
CARD_SHARE, CARD_SHADE, CARD_ASPECT = 0.5, 0.3, 0.4
# It is none where the segmenter sees more than this share of it as ink: of cards up to 23 %, and
# one in 36 more; of enlarged 8x8 digits at least 30 %, and of others at least 79 %.
CARD_INK = 0.25
# A line across the picture covers this share of it; what is beside the line covers less than the
# second share, and the line is at most the third share of the picture's other side wide.
LINE_COVER, BESIDE_LINE, LINE_WIDTH = 0.9, 0.5, 0.06
# Likewise for a frame: the share of an edge of the ink's box, and of the box.
FRAME_COVER, FRAME_WIDTH = 0.8, 0.08
# A piece is ink if the segmenter sees more than this share of all ink in it, and as a whole if no
# more than the second share of it lies beside the ink.
LEAST_SEEN, BESIDE = 0.02, 0.02
# A second piece of this share of the largest one's size could be a digit.
SECOND_SIZE = 0.25
# A line that touches ink is longer than it by this factor, or else it may be a part of it, if it is
# more than the second share of the piece. The stem of a "B", a quarter of it, was left out, and a 3
# was accepted. Of 1,500 clean digits and 1,000 with frames the rule changes none.
LONGER, STEM = 1.05, 0.125
# Thinner strokes, in pixels, are finer than the segmenter's views, and it sees them with gaps. Of
# 300 framed digits by a pen of 1 or 2 pixels 54 % are accepted, and 33 % if they are as all others.
HAIRLINE, HAIRLINE_GAP = 3.0, 4


@dataclass(frozen=True, eq=False)
class Foreground:
    """A part of a picture without its background; around the part there is only background."""

    values: Floats  # (h, w) positive where there is ink; about 0 elsewhere, so that noise averages
    top: int
    left: int
    whole: tuple[int, int]  # height and width of the picture
    scale: float = 1.0  # pixels of the picture that was given per pixel of these
    certainty: float = 1.0  # the highest coverage that the segmenter sees, where it tells the ink
    doubtful: float = 0.0  # what may be ink and was left out, relative to the ink

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

    @cached_property
    def mask(self) -> Mask:
        """Where the part has ink above EDGE_SHARE of the darkest (h, w)."""
        mask: Mask = self.values > EDGE_SHARE * self.peak
        return mask

    @property
    def at_edges(self) -> tuple[bool, bool, bool, bool]:
        """Whether there is ink at the picture's top, bottom, left and right edge."""
        columns, rows = self.inked
        below, behind = self.top + rows[-1] + 1, self.left + columns[-1] + 1
        first = self.top + rows[0] == 0, self.left + columns[0] == 0
        return first[0], below >= self.whole[0], first[1], behind >= self.whole[1]

    def part_of(self, picture: Floats) -> Floats:
        """Return this part of values of the whole picture (H, W)."""
        height, width = self.values.shape
        return picture[self.top : self.top + height, self.left : self.left + width]

    @property
    def box(self) -> Window:
        """Where that is in the picture."""
        columns, rows = self.inked
        left, top, x, y = float(columns[0]), float(rows[0]), self.left, self.top
        return x + left, y + top, x + columns[-1] + 1.0, y + rows[-1] + 1.0


def find_foreground(
    picture: Luminance, segmenter: Segmenter, largest: int = WORKING_SIZE
) -> Foreground:
    """Return how far each pixel is from the background, towards the ink.

    On a clean background its shade is the median of the picture's border, which ink rarely covers
    by half. Ink is whichever side of that shade holds more. In other pictures the segmenter finds
    the ink. Where lines, frames, specks or several pieces show on a clean background, it tells
    which of them are ink.

    Args:
        picture: its luminance.
        segmenter: finds ink where the background is not clean.
        largest: larger pictures are averaged down to at most this many pixels a side.

    Returns:
        All zeros when there is no ink.

    >>> picture = np.full((50, 50), 200, np.uint8)
    >>> picture[20:30, 24] = 50
    >>> found = find_foreground(Luminance.of(picture), lambda view: np.repeat(view, 2, axis=1))
    >>> found.values.shape, float(found.values.max()), (found.top, found.left)
    ((10, 1), 150.0, (20, 24))
    """
    factor = -(-max(picture.whole) // largest)
    if factor > 1:
        image = Image.fromarray(picture.grey.astype(np.float32, copy=False))
        picture = Luminance.of(np.asarray(image.reduce(factor)))
    is_large = max(picture.whole) > SMALL_PICTURE
    found = _on_clean_background(picture)
    if found is None and not is_large:
        found = _in_two_shades(picture.grey)
    if found is None:
        found = _on_even_background(picture.grey)
    is_dirty = found is not None and is_large and found.peak > 0.0 and _is_dirty(found)
    if found is None or is_dirty or (is_large and found.peak > 0.0 and _is_card(found)):
        found = _seen(picture, segmenter, found, is_dirty=is_dirty)
    return found if factor == 1 else replace(found, scale=factor * found.scale)


def _seen(
    picture: Luminance, segmenter: Segmenter, found: Foreground | None, *, is_dirty: bool
) -> Foreground:
    """Return the ink that the segmenter sees, in what the rules found, if they found any.

    What they found is dirty, or else looks like a card.
    """
    grey = picture.grey
    rounded = grey if grey.dtype == np.uint8 else np.clip(np.rint(grey), 0, 255)
    shades = rounded.astype(np.uint8, copy=False)
    is_flat = int(shades.max()) - int(shades.min()) < MIN_CONTRAST
    # Thin strokes are faint in the smaller view that a known box allows.
    box = None if found is None or stroke_width(found.mask) < HAIRLINE else found.box
    ink = None if is_flat else find_ink(shades, segmenter, box)
    if ink is None:
        if found is None or is_dirty:
            return Foreground.whole_picture(np.zeros((1, 1), np.float32))
        return found  # A thick stroke fills its box as a card does.
    if found is None:
        return _of_view(ink, picture.whole)
    if is_dirty:
        return _without_dirt(found, ink)
    if float(found.part_of(ink.on_picture(found.whole))[found.mask].mean()) > CARD_INK:
        return found
    # What is on a card may be small.
    return _of_view(find_ink(shades, segmenter) or ink, picture.whole)


def _of_view(ink: InkMap, whole: tuple[int, int]) -> Foreground:
    left, top, right, _ = ink.window
    scale = (right - left) / ink.coverage.shape[1]
    place = (max(0, round(top / scale)), max(0, round(left / scale)))
    parts = zip(place, ink.coverage.shape, whole, strict=True)
    rows, columns = (max(at + n, round(side / scale)) for at, n, side in parts)
    values = ink.coverage * np.float32(255)
    return Foreground(values, *place, (rows, columns), scale, ink.certainty, ink.doubtful)


def _without_dirt(found: Foreground, ink: InkMap) -> Foreground:
    """Leave out what the segmenter does not take for ink; the rest stays as it is.

    Where thick ink touches dirt, or where the segmenter sees ink in what is none here, it is as the
    segmenter sees it. All of the ink is doubtful where a piece of a digit's size is left out.
    """
    coverage = ink.on_picture(found.whole)
    seen, total = found.part_of(coverage), float(coverage.sum())
    pieces = connected_components(found.mask, found.values)
    near = dilate(dilate(seen > FAINTEST))
    is_thin = stroke_width(found.mask & near) < HAIRLINE
    for _ in range(HAIRLINE_GAP if is_thin else 0):
        near = dilate(near)
    of_piece, beside = (
        np.bincount(pieces.number[found.mask], of[found.mask], len(pieces)) for of in (seen, ~near)
    )
    is_ink = of_piece > LEAST_SEEN * total
    left_out = float((beside[is_ink] / pieces.area[is_ink]).max(initial=0.0))
    is_beside = left_out > BESIDE
    # Lines and frames are longer than the ink, and specks smaller.
    largest = pieces.size[is_ink].max(initial=0)
    could_be = ~is_ink & (pieces.size >= SECOND_SIZE * largest) & (pieces.size <= largest)
    extents = (np.flatnonzero((seen > FAINTEST).any(axis=axis)) for axis in (0, 1))
    length = max(int(at[-1] - at[0]) if len(at) else 0 for at in extents)
    if could_be.any() or (left_out > STEM and largest < LONGER * length):
        ink = replace(ink, doubtful=1.0)
    if float(seen[dilate(found.mask)].sum()) < total / 2 or (is_beside and not is_thin):
        return _of_view(ink, found.whole)
    kept = dilate(pieces.pixels(is_ink))
    if is_beside:
        kept &= near
    values = np.where(kept, found.values, np.float32(0))
    return replace(found, values=values, certainty=ink.certainty, doubtful=ink.doubtful)


def _on_even_background(grey: Grey) -> Foreground | None:
    """Return the foreground if most of the border is of one shade; ink may touch it."""
    background, noise = median_and_deviation(_border(grey).astype(np.float32, copy=False))
    is_tiny = max(grey.shape) <= SMALLEST_VIEW
    if noise > PLAIN_NOISE and not is_tiny:
        return None  # before all pixels of a photograph are looked at
    difference = grey.astype(np.float32, copy=False) - np.float32(background)
    n_background = np.count_nonzero(np.abs(difference) <= MIN_CONTRAST)
    if n_background < LEAST_BACKGROUND * grey.size and not is_tiny:
        return None
    found = Foreground.whole_picture(_positive(difference))
    # A table or a shadow covers a corner, as does a digit that fills its picture, alone.
    is_covered = (np.abs(difference[[0, 0, -1, -1], [0, -1, 0, -1]]) > MIN_CONTRAST).any()
    is_large = max(grey.shape) > SMALL_PICTURE
    if is_large and is_covered and len(connected_components(found.mask, found.values)) != 1:
        return None
    return found


def _border_width(shape: tuple[int, ...]) -> int:
    """Return a fiftieth of the shorter side."""
    return max(1, min(shape) // 50)


def _border(grey: Grey) -> Grey:
    """Return the outermost pixels as one row."""
    width = _border_width(grey.shape)
    if min(grey.shape) <= 2 * width:
        return grey.ravel()
    sides = (grey[:width], grey[-width:], grey[width:-width, :width], grey[width:-width, -width:])
    return np.concatenate([side.ravel() for side in sides])


def _on_clean_background(picture: Luminance) -> Foreground | None:
    """Return the foreground if the border is of one shade: most of the picture is left out."""
    part, above, before, (height, width), background = picture
    # The corners first: a photograph's differ.
    if (
        part.shape == picture.whole
        and (part[:: height - 1 or 1, :: width - 1 or 1] != background).any()
    ):
        return None
    differs = part != background
    rows = np.logical_or.reduce(differs, axis=1).nonzero()[0]
    if not len(rows):
        return Foreground.whole_picture(np.zeros((1, 1), dtype=np.float32))
    columns = np.logical_or.reduce(differs, axis=0).nonzero()[0]
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    sides = above + top, before + left, height - above - bottom, width - before - right
    if min(sides) < _border_width(picture.whole):
        return None
    ink = part[top:bottom, left:right].astype(np.float32) - np.float32(background)
    return Foreground(_positive(ink), *sides[:2], picture.whole)


def _in_two_shades(grey: Grey) -> Foreground | None:
    """Return the foreground of a clean picture that its digit fills, up to the border."""
    shades = two_shades(grey.astype(np.float32, copy=False))
    if shades is None:
        return None
    shade, sign, noise = shades
    if noise > PLAIN_NOISE and max(grey.shape) > SMALLEST_VIEW:
        return None
    signed = (grey - np.float32(shade)) * np.float32(sign)
    found = Foreground.whole_picture(_positive(signed, is_signed=True))
    return found if found.peak > 0.0 else None


def _positive(difference: Floats, *, is_signed: bool = False) -> Floats:
    """Turn a difference from the background so that ink is positive, unless it is signed."""
    is_lighter = difference.max() >= MIN_CONTRAST
    can_turn = not is_signed and bool(difference.min() <= -MIN_CONTRAST)
    if not is_lighter and not can_turn:
        return np.zeros_like(difference)
    if can_turn and is_lighter:
        # Squares, so that a wide faint shade does not outvote a stroke.
        lighter = float(np.square(np.maximum(difference, np.float32(0.0))).sum())
        can_turn = lighter <= float(np.square(difference).sum()) - lighter
    return -difference if can_turn else difference


def _is_dirty(found: Foreground) -> bool:
    """Return whether there are several pieces of ink, or it is a line or a frame."""
    has_gap = any(one[-1] - one[0] >= len(one) for one in found.inked)
    return has_gap or _has_line(found.mask, found.whole) or _has_frame(found)


def _is_card(found: Foreground) -> bool:
    """Return whether ink fills its box, as a card or a page does; a stick's box is narrow."""
    sides = [len(inked) for inked in found.inked]
    sample = found.values[::4, ::4] > CARD_SHADE * found.peak
    is_full = np.count_nonzero(sample) > CARD_SHARE * sample.size
    return bool(is_full and min(sides) > CARD_ASPECT * max(sides))


def _has_line(mask: Mask, whole: tuple[int, int]) -> bool:
    """Return whether a thin line runs from one side of the picture to the other."""
    for turned, (height, width) in ((mask, whole), (mask.T, whole[::-1])):
        if turned.shape[1] <= LINE_COVER * width:
            continue
        cover = np.count_nonzero(turned, axis=1) / width
        depth = max(3, round(LINE_WIDTH * height))
        padded = np.pad(cover, depth)
        beside = np.maximum(padded[: len(cover)], padded[2 * depth :])
        if ((cover > LINE_COVER) & (beside < BESIDE_LINE)).any():
            return True
    return False


def _begins_twice(inked: Mask) -> bool:
    """Return whether ink begins more than once along any row (m, n)."""
    begins = np.count_nonzero(inked[..., 1:] > inked[..., :-1], axis=-1) + inked[..., 0]
    return bool((begins > 1).any())


def _has_frame(found: Foreground) -> bool:
    """Return whether a thin line is most of an edge of the ink's box, with more ink inside."""
    columns, rows = found.inked
    box = found.values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if max(box.shape) <= SMALL_PICTURE:
        return False
    dark = np.float32(0.3 * found.peak)
    sides = (box, box[::-1], box.T, box.T[::-1])
    for i, (side, is_at_edge) in enumerate(zip(sides, found.at_edges, strict=True)):
        # A stroke that the picture cuts off ends before the picture's edge does.
        if is_at_edge and side.shape[1] < LINE_COVER * found.whole[1 - i // 2]:
            continue
        edge = reduce(np.maximum, side[:3])
        inner = side[min(len(side) - 1, max(4, round(FRAME_WIDTH * len(side))))]
        # Counting takes a fifth of the time of a mean.
        is_edge = np.count_nonzero(edge > dark) / len(edge) > FRAME_COVER
        if is_edge and np.mean(inner > dark) < BESIDE_LINE:
            break
    else:
        return False
    # What a frame surrounds is apart from it in some row and in some column.
    mask = box > EDGE_SHARE * found.peak
    return _begins_twice(mask) and _begins_twice(mask.T)
