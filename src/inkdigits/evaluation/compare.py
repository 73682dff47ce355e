"""Two models on the same labelled pictures: what changes, and whether that may be chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist, median

import numpy as np

from inkdigits.calibration.intervals import LEVEL, Estimate
from inkdigits.data.labelled import Labelled
from inkdigits.decision.prediction import Reader
from inkdigits.evaluation.readings import Readings, read_all
from inkdigits.evaluation.report import Scores, aligned
from inkdigits.evaluation.timing import time_in_turns
from inkdigits.types import Ink, Json, Mask

_TIMED_PICTURES = 32


@dataclass(frozen=True, slots=True)
class Pair:
    """How two models, A and B, read the same pictures of one group."""

    name: str
    a: Scores
    b: Scores
    only_a: int  # pictures that A alone reads right
    only_b: int  # pictures that B alone reads right
    difference: Estimate  # B's accuracy less A's, -1 to 1, with its 95 % interval
    p: float  # chance of so uneven changes if both were equally good (McNemar, exact)

    @classmethod
    def of(cls, name: str, a: Readings, b: Readings, members: Mask) -> Pair:
        """Compare the readings of a group."""
        only_a = int((a.right & ~b.right)[members].sum())
        only_b = int((b.right & ~a.right)[members].sum())
        n = int(members.sum())
        return cls(
            name,
            Scores.of(name, a, members),
            Scores.of(name, b, members),
            only_a,
            only_b,
            paired_difference(only_a, only_b, n),
            mcnemar(only_a, only_b),
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same pictures: all, by label, and by source where there are several."""

    versions: tuple[str, str]
    pairs: Sequence[Pair]  # of all first
    milliseconds: tuple[float, float]  # per picture, from ink to answer
    left_out: Sequence[tuple[str, str]]  # what could not be read, and why

    def to_dict(self) -> Json:
        """Return the comparison as ``json.dumps`` takes it."""
        return asdict(self)

    def table(self) -> str:
        """Return the comparison as a table for a terminal."""
        heads = ("", "pictures", "right A", "right B", "B less A (95 % interval)", "McNemar p")
        rows = [(*heads, "accepted A, B", "wrong A, B")]
        for pair in self.pairs:
            value, low, high = (100 * share for share in asdict(pair.difference).values())
            rows.append(
                (
                    pair.name,
                    f"{pair.a.n:,}",
                    f"{pair.a.n_right:,}",
                    f"{pair.b.n_right:,}",
                    f"{value:+.2f} ({low:+.2f} to {high:+.2f}) points",
                    f"{pair.p:.3g}",
                    f"{100 * pair.a.coverage:.2f} %, {100 * pair.b.coverage:.2f} %",
                    f"{pair.a.n_wrong}, {pair.b.n_wrong}",
                )
            )
        return aligned(rows)


def compare(a: Reader, b: Reader, labelled: Labelled) -> Comparison:
    """Read the pictures with both models and compare them picture by picture.

    Raises:
        DataError: no picture can be read.

    >>> import inkdigits
    >>> from inkdigits.data.labelled import Example
    >>> blank = Labelled([Example("a.png", "own", np.zeros((28, 28), np.uint8), -1)])
    >>> reader = inkdigits.load()
    >>> compare(reader, reader, blank).pairs[0].p
    1.0
    """
    first, second = read_all(a, labelled), read_all(b, labelled)
    everything = np.ones(len(first.labels), dtype=bool)
    groups = [("all", everything), *first.groups()]
    return Comparison(
        (a.model_version, b.model_version),
        [Pair.of(name, first, second, members) for name, members in groups],
        _milliseconds(a, b, first.inks[:_TIMED_PICTURES]),
        first.left_out,
    )


def _milliseconds(a: Reader, b: Reader, inks: Ink) -> tuple[float, float]:
    """Return the median time per picture of each, read one at a time."""

    def reads(reader: Reader) -> Callable[[], object]:
        return lambda: [reader.predict(ink) for ink in inks]

    seconds = time_in_turns({"a": reads(a), "b": reads(b)}, repeats=5)
    first, second = (1000 * median(seconds[name]) / len(inks) for name in ("a", "b"))
    return first, second


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the p-value of McNemar's exact test, two-sided.

    Q. McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12, 1947: of the pictures that one model alone reads right, each
    model has half if they are equally good.

    >>> mcnemar(1, 9)
    0.021484375
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**n))


def paired_difference(only_a: float, only_b: float, n: int, level: float = LEVEL) -> Estimate:
    """Return B's accuracy less A's on the same n pictures, with its interval.

    A. Agresti and Y. Min, "Simple improved confidence intervals for comparing matched
    proportions", Statistics in Medicine 24, 2005: Wald's interval with half a picture added to
    each of the four cells.

    >>> paired_difference(1, 9, 100).value
    0.08
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    b, c, total = only_b + 0.5, only_a + 0.5, n + 2
    centre = (b - c) / total
    half = z * math.sqrt(b + c - (b - c) ** 2 / total) / total
    return Estimate((only_b - only_a) / n, max(-1.0, centre - half), min(1.0, centre + half))


def drop_bound(only_a: float, only_b: float, n: int) -> float:
    """Return how far B's accuracy may lie below A's: the one-sided 95 % bound, -1 to 1.

    >>> round(drop_bound(0, 0, 50), 3)
    0.032
    """
    return -paired_difference(only_a, only_b, n, 2 * LEVEL - 1).low


def pictures_needed(only_a: int, only_b: int, n: int, drop: float) -> int | None:
    """Return how many pictures, with as many changes per picture, would bound the drop so low.

    None where B is worse than that as counted, which more pictures would not mend.

    >>> pictures_needed(0, 0, 50, 0.0005), pictures_needed(2, 0, 50, 0.01)
    (3288, None)
    """
    if (only_a - only_b) / n >= drop:
        return None
    few, many = n, 2 * n
    while drop_bound(only_a * many / n, only_b * many / n, many) > drop:
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        enough = drop_bound(only_a * middle / n, only_b * middle / n, middle) <= drop
        few, many = (few, middle) if enough else (middle, many)
    return many
