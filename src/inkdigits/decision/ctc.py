"""Connectionist temporal classification: from columns to texts, and where their symbols are.

Each column of a line has a probability of each digit, of something else, and of nothing. A text is
what columns give if repetitions are one, and nothing is left out (Graves et al., ICML 2006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from inkdigits.types import Doubles

OTHER, NOTHING = 10, 11
"""The classes for something that is no digit, and for nothing; the others are the digits."""
SYMBOLS: Final = "0123456789?"
"""How the classes are written in texts."""
_LEAST: Final = 1e-4  # probability of a column's class that is followed
_TINY: Final = 1e-300


class Text(NamedTuple):
    """A text that a line may be."""

    text: str  # of SYMBOLS
    log_p: float  # in nats, among the texts that were followed
    places: tuple[int, ...]  # the column in which each symbol is the surest

    @property
    def digits(self) -> str:
        """The text without what is no digit."""
        return self.text.replace(SYMBOLS[OTHER], "")


class _Prefix:
    """A text that the columns so far may be."""

    __slots__ = ("empty", "full", "peak", "places")

    def __init__(self, places: tuple[int, ...], peak: float) -> None:
        self.empty = 0.0  # its probability with a last column that is empty
        self.full = 0.0  # and with one that is of its last symbol
        self.places = places
        self.peak = peak  # the probability of the last symbol in its column

    @property
    def total(self) -> float:
        return self.empty + self.full


def likeliest_texts(log_p: Doubles, most: int, n: int = 12) -> list[Text]:
    """Return the likeliest texts of columns (T, 12), of at most so many symbols, the best first.

    ``n`` are followed from column to column (prefix beam search; Hannun, distill.pub/2017/ctc).

    >>> columns = np.log(np.full((3, 12), 0.001))
    >>> columns[:, 7] = columns[1, NOTHING] = np.log(0.5)
    >>> [one.text for one in likeliest_texts(columns, most=9)][:2]
    ['7', '77']
    """
    texts = {"": _Prefix((), 0.0)}
    texts[""].empty = 1.0
    for t, row in enumerate(np.exp(log_p).tolist()):
        likely = [(c, share) for c, share in enumerate(row[:NOTHING]) if share > _LEAST]
        here: dict[str, _Prefix] = {}
        for text, prefix in texts.items():
            _continue(here, text, prefix, row, t)
            if len(text) < most:
                _extend(here, text, prefix, likely, t)
        best = sorted(here.items(), key=lambda one: -one[1].total)[:n]
        whole = sum(prefix.total for _, prefix in best)
        for _, prefix in best:
            prefix.empty, prefix.full = prefix.empty / whole, prefix.full / whole
        texts = dict(best)
    return [
        Text(text, math.log(prefix.total), prefix.places)
        for text, prefix in texts.items()
        if prefix.total
    ]


def _continue(
    here: dict[str, _Prefix], text: str, prefix: _Prefix, row: list[float], t: int
) -> None:
    """Add what a text is if this column is empty, or of its last symbol again."""
    repeated = row[SYMBOLS.index(text[-1])] if text else 0.0
    places, peak = prefix.places, prefix.peak
    if repeated > peak:
        places, peak = (*places[:-1], t), repeated
    full = prefix.full * repeated
    known = here.get(text)
    if known is None:
        known = here[text] = _Prefix(places, peak)
    elif prefix.total * row[NOTHING] + full > known.full:
        known.places, known.peak = places, peak
    known.empty += prefix.total * row[NOTHING]
    known.full += full


def _extend(
    here: dict[str, _Prefix], text: str, prefix: _Prefix, likely: list[tuple[int, float]], t: int
) -> None:
    """Add the texts that are longer by a symbol, if this column is the first of it."""
    for c, share in likely:
        symbol, places = SYMBOLS[c], (*prefix.places, t)
        value = share * (prefix.empty if symbol == text[-1:] else prefix.total)
        known = here.get(text + symbol)
        if known is None:
            known = here[text + symbol] = _Prefix(places, share)
        elif value > known.total:
            known.places, known.peak = places, share
        known.full += value


def text_scores(log_p: Doubles, texts: Sequence[str]) -> Doubles:
    """Return the log probability (V, N) of each of N texts, in each of V views (V, T, 12).

    It is the forward algorithm of Graves et al. (ICML 2006), for all of them at once.

    >>> columns = np.log(np.full((1, 2, 12), 1 / 12))
    >>> float(np.exp(text_scores(columns, ["7"])[0, 0]).round(4))  # 3 of 144 paths
    0.0208
    """
    states = np.full((len(texts), 2 * max(map(len, texts)) + 1), NOTHING)
    skips, ends = np.ones(states.shape), np.zeros(states.shape)
    for i, text in enumerate(texts):
        states[i, 1 : 2 * len(text) : 2] = [SYMBOLS.index(symbol) for symbol in text]
        ends[i, max(0, 2 * len(text) - 1) : 2 * len(text) + 1] = 1
    skips[:, 2:] = states[:, 2:] != states[:, :-2]
    # Two states before the first one, of which the second is where all begins.
    paths = np.zeros((len(log_p), len(texts), states.shape[1] + 2), dtype=np.float64)
    paths[:, :, 1] = 1
    for column in np.exp(log_p).transpose(1, 0, 2):
        here = paths[:, :, 2:] + paths[:, :, 1:-1] + skips * paths[:, :, :-2]
        paths[:, :, 1] = 0
        paths[:, :, 2:] = here * column[:, states]
    result: Doubles = np.log((paths[:, :, 2:] * ends).sum(axis=2) + _TINY)
    return result


def plain_text(log_p: Doubles) -> str:
    """Return the text of the likeliest class of each column (T, 12).

    >>> columns = np.zeros((4, 12))
    >>> columns[[0, 1, 3], 7] = columns[2, NOTHING] = 1.0
    >>> plain_text(columns)
    '77'
    """
    classes = log_p.argmax(axis=1)
    is_new = np.append(True, classes[1:] != classes[:-1]) & (classes != NOTHING)
    return "".join(SYMBOLS[c] for c in classes[is_new])


def log_softmax(logits: Doubles) -> Doubles:
    """Return the logarithms of the softmax of each row (N, C).

    >>> log_softmax(np.zeros((1, 2))).round(3).tolist()
    [[-0.693, -0.693]]
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Doubles = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
