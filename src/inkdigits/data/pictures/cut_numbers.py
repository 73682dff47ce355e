"""What reading a number cuts from it, and which digit each cut gives: a whole one, or none."""

from __future__ import annotations

import numpy as np

from inkdigits.data.pictures.numbers import SETTINGS, WrittenDigits, WrittenNumber, write_numbers
from inkdigits.decision.numbers import VIEWS
from inkdigits.decision.pieces import clean_ink, find_line
from inkdigits.decision.segmentation import find_candidates
from inkdigits.ink.decode import Luminance
from inkdigits.ink.normalize import Field, field_of
from inkdigits.ink.plain import find_foreground
from inkdigits.ink.segment import Segmenter
from inkdigits.types import NO_DIGIT, Ink, Labels, Rng

# A candidate is a digit that has this share of the digit's pixels, and at most so much of another.
_WHOLE, _REST = 0.93, 0.08
# It is none with less than this share of any digit, or with more than that of two.
_HALF, _BOTH = (0.15, 0.6), 0.35
# The least width by height of a half: a narrower one is a stroke, and so is a 1.
_NARROW = 0.45
# The share of numbers whose digits touch.
_TOUCHING = 0.85


def cut_number(digits: WrittenDigits, segmenter: Segmenter, rng: Rng) -> tuple[Ink, Labels]:
    """Write a number, and return the candidates (N, 28, 28) of its reading with their labels (N,).

    Those that are neither a digit nor none for certain are left out.

    >>> digits = WrittenDigits(np.full((1, 28, 28), 255, np.uint8), np.array([8]))
    >>> find = lambda view: np.repeat(view, 2, axis=1)
    >>> inks, labels = cut_number(digits, find, np.random.default_rng(0))
    >>> inks.shape[1:], len(inks) == len(labels)
    ((28, 28), True)
    """
    setting = "touching" if rng.random() < _TOUCHING else SETTINGS[rng.integers(2)]
    (number,) = write_numbers(digits, 1, rng, setting, lengths=(2, 6))
    threshold = VIEWS[0][0]
    field = field_of(find_foreground(Luminance.of(number.picture), segmenter))
    cleaned = clean_ink(field.ink, threshold)
    line = None if cleaned is None else find_line(cleaned[0], threshold)
    if cleaned is None or line is None:
        return np.zeros((0, 28, 28), np.uint8), np.zeros(0, np.int64)
    pieces = line.pieces(range(len(line.kept)))
    found = find_candidates(pieces, lambda inks: np.zeros((len(inks), 10), np.float32))
    inked = np.where(pieces.ink > threshold, pieces.number, -1)
    counts = _pixels_of_digits(number, field, cleaned[1], inked, len(pieces))
    totals = np.maximum(1, counts[:, 1:].sum(axis=0))
    labels = np.full(len(found.first), NO_DIGIT - 1)
    for c, (first, last) in enumerate(zip(found.first, found.last, strict=True)):
        of = counts[first:last].sum(axis=0)
        shares = of[1:] / totals
        digit = int(shares.argmax())
        most, others = shares[digit], np.delete(shares, digit).max(initial=0)
        foreign = 1 - of[1 + digit] / max(1, of.sum())
        is_half = _HALF[0] < most < _HALF[1] and found.shape[c, 0] > np.log(_NARROW)
        if most > _WHOLE and others < _REST and foreign < 2 * _REST:
            labels[c] = int(number.text[digit])
        elif (most > _BOTH and others > _BOTH) or (is_half and number.text[digit] != "1"):
            labels[c] = NO_DIGIT
    certain = labels >= NO_DIGIT
    return found.inks[certain], labels[certain]


def _pixels_of_digits(
    number: WrittenNumber, field: Field, scale: float, piece_of: Labels, n: int
) -> Labels:
    """Return (n, 1 + digits) pixels of each piece that are of no digit, and of each digit.

    ``scale`` is pixels of ``piece_of`` per pixel of the field.
    """
    starts = zip(piece_of.shape, (field.top, field.left), number.owner.shape, strict=True)
    rows, columns = (
        np.clip(((np.arange(size) + 0.5) / scale + at) * field.scale, 0, most - 1).astype(np.int64)
        for size, at, most in starts
    )
    owner = number.owner[np.ix_(rows, columns)] + 1
    counts = np.zeros((n, 1 + len(number.text)), dtype=np.int64)
    inked = piece_of >= 0
    np.add.at(counts, (piece_of[inked], owner[inked]), 1)
    return counts
