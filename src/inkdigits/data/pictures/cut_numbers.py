"""What reading a number cuts from it, and which digit each cut gives: a whole one, or none."""

from __future__ import annotations

import numpy as np

from inkdigits.data.pictures.numbers import SETTINGS, WrittenDigits, write_numbers
from inkdigits.decision.line import clean_ink, find_line
from inkdigits.decision.numbers import THRESHOLD
from inkdigits.decision.strip import cut_digits, strip_of
from inkdigits.ink.decode import Luminance
from inkdigits.ink.normalize import field_of, normalise
from inkdigits.ink.plain import Foreground, find_foreground
from inkdigits.ink.segment import Segmenter
from inkdigits.types import NO_DIGIT, Ink, Labels, Rng

# The share of numbers whose digits touch, and that of those that are cut at wrong places.
_TOUCHING, _WRONG = 0.85, 0.5
# How far the place of a digit may be from its middle, as a share of its width.
_OFF = 0.15
# A cut is a digit that has this share of the digit's width, and at most so much of another's. It is
# none with more than this share of two.
_WHOLE, _REST, _BOTH = 0.93, 0.15, 0.4


def cut_number(digits: WrittenDigits, segmenter: Segmenter, rng: Rng) -> tuple[Ink, Labels]:
    """Write a number, and return what is cut from it (N, 28, 28) with its labels (N,).

    It is cut where its digits are, or between them: a cut with most of two digits is none. What may
    be either is left out.

    >>> digits = WrittenDigits(np.full((1, 28, 28), 255, np.uint8), np.array([8]))
    >>> find = lambda view: np.repeat(view, 2, axis=1)
    >>> inks, labels = cut_number(digits, find, np.random.default_rng(0))
    >>> inks.shape[1:], len(inks) == len(labels)
    ((28, 28), True)
    """
    setting = "touching" if rng.random() < _TOUCHING else SETTINGS[rng.integers(2)]
    (number,) = write_numbers(digits, 1, rng, setting, lengths=(2, 6))
    field = field_of(find_foreground(Luminance.of(number.picture), segmenter))
    cleaned = clean_ink(field.ink, THRESHOLD)
    line = None if cleaned is None else find_line(cleaned[0], THRESHOLD)
    if cleaned is None or line is None:
        return np.zeros((0, 28, 28), np.uint8), np.zeros(0, np.int64)
    strip = strip_of(line)
    # From pixels of the picture to those of the field, and of the line.
    boxes = np.array([(left, left + width) for left, _, width, _ in number.boxes])
    sides = (boxes / field.scale - field.left) * cleaned[1]
    places = sides.mean(axis=1) + rng.uniform(-_OFF, _OFF, len(sides)) * np.ptp(sides, axis=1)
    if rng.random() < _WRONG:
        places = (places[:-1] + places[1:]) / 2
    inks, labels = [], []
    for cut in cut_digits(line, strip, ((places - strip.left) * strip.scale - 0.5).tolist()):
        if cut is None:
            continue
        left, right = cut.box[0], cut.box[0] + cut.box[2]
        shared = np.minimum(sides[:, 1], right) - np.maximum(sides[:, 0], left)
        shares = np.clip(shared / np.ptp(sides, axis=1), 0, 1)
        least, most = np.sort(shares)[-2:]
        is_whole, is_none = most > _WHOLE and least < _REST, least > _BOTH
        if is_whole or is_none:
            inks.append(normalise(Foreground.whole_picture(cut.patch)))
            labels.append(int(number.text[shares.argmax()]) if is_whole else NO_DIGIT)
    return np.array(inks, np.uint8).reshape(-1, 28, 28), np.array(labels, np.int64)
