"""Lines to learn from: the strips that reading finds of written numbers, and their digits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from inkdigits.data.non_digits import draw_non_digit
from inkdigits.data.pictures.foreground import Sources, log_uniform, write_digit
from inkdigits.data.pictures.numbers import Setting, WrittenDigits, write_numbers
from inkdigits.decision.line import clean_ink, find_line
from inkdigits.decision.numbers import THRESHOLD
from inkdigits.decision.strip import strip_of
from inkdigits.ink.decode import Luminance
from inkdigits.ink.normalize import field_of, normalise
from inkdigits.ink.plain import Foreground, find_foreground
from inkdigits.ink.segment import Segmenter
from inkdigits.types import NO_DIGIT, Floats, Ink, Pixels, Rng

NameT = TypeVar("NameT", bound=str)
# Of numbers, how often each kind of writing.
_SETTINGS: dict[Setting, float] = {
    "touching": 0.45,
    "spaced": 0.22,
    "photographed": 0.18,
    "boxed": 0.15,
}
# How often which hand writes; "mixed" has letters among the digits, and "others" has no digits.
_HANDS = {"given": 0.6, "hands": 0.16, "styles": 0.12, "mixed": 0.08, "others": 0.04}
_SIGNS = 0.35
# The share of lines whose printed lines are left in.
_UNCLEANED = 0.15
_PENS, _PER_PEN = (0.06, 0.22), 40  # widths relative to the height of a digit
_POOL = 4000  # digits of hands and styles that are written once, and then used often


@dataclass(frozen=True, slots=True)
class Writers:
    """The hands that write lines."""

    digits: dict[str, WrittenDigits]

    @classmethod
    def of(cls, given: WrittenDigits, sources: Sources, rng: Rng) -> Writers:
        """Let the digits be written that strokes and manners give; ``given`` are inks already."""
        hands = Sources(hands=sources.hands, styles=False)
        others = _others(_POOL // 2, sources, rng)
        some = rng.integers(len(given.labels), size=_POOL)
        mixed = WrittenDigits(
            np.concatenate([given.inks[some], others]),
            np.concatenate([given.labels[some], np.full(len(others), NO_DIGIT)]),
        )
        digits = {
            "given": given,
            "styles": _written(_POOL, Sources(), rng),
            "mixed": mixed,
            "others": WrittenDigits(others, np.full(len(others), NO_DIGIT)),
        }
        if len(sources.hands):
            digits["hands"] = _written(2 * _POOL, hands, rng)
        return cls(digits)


def _written(n: int, sources: Sources, rng: Rng) -> WrittenDigits:
    """Let each ``_PER_PEN`` digits be of one pen, as if they had one writer."""
    pens = np.array([log_uniform(rng, *_PENS) for _ in range(n // _PER_PEN)]).repeat(_PER_PEN)
    made = [write_digit(56.0, rng, sources, drawn=True, pen=pen) for pen in pens.tolist()]
    return WrittenDigits(
        np.stack([_ink(patch) for patch, _ in made]),
        np.array([digit for _, digit in made]),
        np.arange(len(made)) // _PER_PEN,
    )


def _others(n: int, sources: Sources, rng: Rng) -> Ink:
    kinds = ["handwritten_letter", "letter", "symbol"] if sources.fonts else ["scribble"]
    kinds = kinds if sources.script_fonts or not sources.fonts else kinds[1:]
    drawn = [draw_non_digit(kinds[rng.integers(len(kinds))], rng, sources) for _ in range(n)]
    return np.stack([_ink(np.float32(1) * coverage) for coverage in drawn])


def _ink(patch: Floats) -> Ink:
    return normalise(Foreground.whole_picture(np.float32(255) * np.pad(patch, 2)))


def write_line(writers: Writers, segmenter: Segmenter, rng: Rng) -> tuple[Pixels, str] | None:
    """Write a number, and return its strip (STRIP_HEIGHT, W) and its digits; None if it is lost.

    They are symbols of ``decision.ctc``, of which one is for what is no digit.

    >>> ink = np.zeros((1, 28, 28), np.uint8)
    >>> ink[0, 6:22, 12:16] = 255
    >>> writers = Writers({"given": WrittenDigits(ink, np.array([1]))})
    >>> find = lambda view: np.repeat(view, 2, axis=1)
    >>> made = [write_line(writers, find, np.random.default_rng(i)) for i in range(3)]
    >>> {set(text) == {"1"} for _, text in filter(None, made)}
    {True}
    """
    hands = [name for name in _HANDS if name in writers.digits]
    digits = writers.digits[_one_of({name: _HANDS[name] for name in hands}, rng)]
    (number,) = write_numbers(
        digits, 1, rng, _one_of(_SETTINGS, rng), lengths=(1, 10), signs=_SIGNS
    )
    ink = field_of(find_foreground(Luminance.of(number.picture), segmenter)).ink
    cleaned = clean_ink(ink, THRESHOLD)
    if cleaned is None:
        return None
    line = find_line(ink if rng.random() < _UNCLEANED else cleaned[0], THRESHOLD)
    if line is None:
        return None
    strip = strip_of(line).ink
    return np.rint(strip * 255).astype(np.uint8), number.text


def _one_of(shares: Mapping[NameT, float], rng: Rng) -> NameT:
    names, values = list(shares), np.array(list(shares.values()))
    return names[int(rng.choice(len(names), p=values / values.sum()))]
