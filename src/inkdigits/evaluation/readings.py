"""How well labelled pictures are read: accuracy, what is accepted, and what of that is wrong.

Pictures take the path of a user's: encoded, decoded, read, decided. Works without PyTorch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from inkdigits.calibration.intervals import LEVEL, Estimate, wilson_interval
from inkdigits.data.labelled import Example, Labelled
from inkdigits.decision.prediction import Prediction, Reader
from inkdigits.decision.risk import clopper_pearson_upper
from inkdigits.errors import DataError, ImageError
from inkdigits.evaluation.metrics import Evaluation, evaluate
from inkdigits.ink.png import encode_png
from inkdigits.types import NO_DIGIT, NO_DIGIT_LABEL, Doubles, Ink, Json, Labels, Mask, Picture

COLUMNS: Final = (
    *("", "pictures", "right", "accuracy", "95 % interval", "accepted", "wrong", "at most"),
)
"""The heads of a table of scores; the last two are of the accepted, with a 95 % bound."""
_BATCH: Final = 256


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """What one reader answered to N labelled pictures."""

    model_version: str
    examples: Sequence[Example]
    labels: Labels  # (N,)
    digits: Labels  # (N,) what was read; NO_DIGIT where there was no ink
    probabilities: Doubles  # (N, 10), calibrated
    accepted: Mask  # (N,)
    rejected: Mask  # (N,)
    inks: Ink  # (N, 28, 28), what the model saw
    left_out: Sequence[tuple[str, str]]  # what could not be read, and why
    seconds_per_picture: float  # wall time, with decoding, on one core

    @property
    def right(self) -> Mask:
        """(N,): whether the digit is the label, or what is labelled as no digit was rejected."""
        is_right: Mask = np.where(
            self.labels == NO_DIGIT, self.rejected, self.digits == self.labels
        )
        return is_right

    @property
    def wrong_accepted(self) -> Mask:
        """(N,): whether a reading was accepted and is wrong."""
        is_wrong: Mask = self.digits != self.labels
        return self.accepted & is_wrong

    def groups(self) -> Iterator[tuple[str, Mask]]:
        """Yield the pictures of each label, and of each source where there are several."""
        for label in (*range(10), NO_DIGIT):
            if (members := self.labels == label).any():
                yield NO_DIGIT_LABEL if label == NO_DIGIT else f"digit {label}", members
        sources = np.array([example.source for example in self.examples])
        names = np.unique(sources)
        for name in names if len(names) > 1 else ():
            yield str(name), sources == name


def read_all(reader: Reader, labelled: Labelled) -> Readings:
    """Read labelled pictures; those that cannot be read are left out and named.

    Raises:
        DataError: none can be read.

    >>> import inkdigits
    >>> nothing = Labelled(left_out=[("a.png", "it is truncated")])
    >>> read_all(inkdigits.load(), nothing)
    Traceback (most recent call last):
    inkdigits.errors.DataError: no picture can be read: a.png: it is truncated
    """
    left_out = list(labelled.left_out)
    answered: list[tuple[Example, Prediction]] = []
    began = time.perf_counter()
    for start in range(0, len(labelled), _BATCH):
        for example, answer in _answers(reader, labelled.examples[start : start + _BATCH]):
            if isinstance(answer, ImageError):
                left_out.append((example.name, str(answer)))
            else:
                answered.append((example, answer))
    seconds = time.perf_counter() - began
    if not answered:
        raise DataError(f"no picture can be read: {'; '.join(map(': '.join, left_out[:3]))}")
    kept, answers = zip(*answered, strict=True)
    decisions = np.array([answer.decision for answer in answers])
    return Readings(
        model_version=reader.model_version,
        examples=kept,
        labels=np.array([example.label for example in kept], dtype=np.int64),
        digits=np.array([NO_DIGIT if a.digit is None else a.digit for a in answers]),
        probabilities=np.array([answer.probabilities for answer in answers]),
        accepted=decisions == "accept",
        rejected=decisions == "reject",
        inks=np.stack([answer.ink for answer in answers]),
        left_out=left_out,
        seconds_per_picture=seconds / len(kept),
    )


def _answers(
    reader: Reader, examples: Sequence[Example]
) -> Iterator[tuple[Example, Prediction | ImageError]]:
    """Yield what a reader answers to each picture, in another order if some cannot be opened."""
    opened: list[tuple[Example, Picture]] = []
    for example in examples:
        try:
            picture = example.picture()
        except ImageError as error:
            yield example, error
            continue
        # Ink is sent as a user would send it: encoded.
        encoded = encode_png(picture) if isinstance(picture, np.ndarray) else picture
        opened.append((example, encoded))
    answers = reader.predict_batch([picture for _, picture in opened], on_error="return")
    for (example, _), answer in zip(opened, answers, strict=True):
        yield example, answer


@dataclass(frozen=True, slots=True)
class Scores:
    """How some pictures were read."""

    name: str
    n: int
    n_right: int
    accuracy: Estimate  # 0 to 1, with its 95 % Wilson interval
    n_accepted: int
    n_wrong: int  # of the accepted
    # Share of the accepted that is wrong, 0 to 1, with its 95 % Wilson interval, and the one-sided
    # 95 % upper bound (Clopper-Pearson) that a stated risk is compared with; None without accepted.
    wrong_of_accepted: Estimate | None
    wrong_at_most: float | None

    @property
    def coverage(self) -> float:
        """The share that is accepted, 0 to 1."""
        return self.n_accepted / self.n

    @classmethod
    def of(cls, name: str, readings: Readings, members: Mask) -> Scores:
        """Score the pictures of a group."""
        n, right = int(members.sum()), int(readings.right[members].sum())
        accepted = int(readings.accepted[members].sum())
        wrong = int(readings.wrong_accepted[members].sum())
        share, bound = None, None
        if accepted:
            share = Estimate(wrong / accepted, *wilson_interval(wrong, accepted))
            bound = clopper_pearson_upper(wrong, accepted)
        accuracy = Estimate(right / n, *wilson_interval(right, n))
        return cls(name, n, right, accuracy, accepted, wrong, share, bound)

    def cells(self) -> tuple[str, ...]:
        """Return the values of ``COLUMNS`` as text."""
        return (
            self.name,
            f"{self.n:,}",
            f"{self.n_right:,}",
            f"{100 * self.accuracy.value:.2f} %",
            f"{100 * self.accuracy.low:.2f} to {100 * self.accuracy.high:.2f} %",
            f"{100 * self.coverage:.2f} %",
            f"{self.n_wrong:,}",
            "" if self.wrong_at_most is None else f"{100 * self.wrong_at_most:.2f} %",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """The scores of labelled pictures: all, by label, and by source where there are several."""

    readings: Readings
    scores: Sequence[Scores]  # of all first
    digits: Evaluation | None  # of the pictures with a digit: ECE, NLL, Brier, confusion

    @property
    def misread(self) -> npt.NDArray[np.int64]:
        """Indices of what was read wrong, the most confident mistake first."""
        wrong = np.flatnonzero(~self.readings.right)
        confidence = self.readings.probabilities[wrong].max(axis=1)
        return wrong[np.argsort(-confidence, kind="stable")]

    def confusion(self) -> npt.NDArray[np.int64]:
        """Return (11, 11) counts, row = label, column = what was read; the last is no digit.

        What is labelled as no digit counts as read so if it was rejected.
        """
        read = np.where(
            (self.readings.labels == NO_DIGIT) & self.readings.rejected,
            NO_DIGIT,
            self.readings.digits,
        )
        counts = np.zeros((11, 11), np.int64)
        np.add.at(counts, (self.readings.labels % 11, read % 11), 1)
        return counts

    def to_dict(self) -> Json:
        """Return the report in lists, numbers and dictionaries that ``json.dumps`` takes."""
        readings = self.readings
        return {
            "model_version": readings.model_version,
            "level": LEVEL,
            "scores": [{**asdict(one), "coverage": one.coverage} for one in self.scores],
            "digits": None if self.digits is None else self.digits.to_dict(),
            "confusion": self.confusion().tolist(),
            "misread": [
                {
                    "name": readings.examples[i].name,
                    "label": int(readings.labels[i]),
                    "digit": int(readings.digits[i]),
                    "confidence": float(readings.probabilities[i].max()),
                    "accepted": bool(readings.accepted[i]),
                }
                for i in self.misread
            ],
            "left_out": [list(one) for one in readings.left_out],
            "seconds_per_picture": readings.seconds_per_picture,
        }

    def table(self) -> str:
        """Return the scores as a table for a terminal."""
        return aligned([COLUMNS, *(one.cells() for one in self.scores)])


def score(readings: Readings) -> Report:
    """Return the report of some readings.

    >>> import inkdigits
    >>> ink = np.zeros((28, 28), np.uint8)
    >>> blank = Labelled([Example("a.png", "own", ink, NO_DIGIT)])
    >>> score(read_all(inkdigits.load(), blank)).scores[0].n_right
    1
    """
    everything = np.ones(len(readings.labels), dtype=bool)
    groups = [("all", everything), *readings.groups()]
    with_digit = readings.labels != NO_DIGIT
    digits = None
    if with_digit.any():
        digits = evaluate(readings.probabilities[with_digit], readings.labels[with_digit])
    return Report(readings, [Scores.of(name, readings, of) for name, of in groups], digits)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text as a table, the first column to the left and the others to the right.

    >>> print(aligned([("", "n"), ("all", "12")]))
          n
    all  12
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
