"""What a reader answers to labelled pictures, which take the path of a user's. No PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from inkdigits.data.labelled import Example, Labelled
from inkdigits.decision.prediction import Prediction, Reader
from inkdigits.errors import DataError, ImageError
from inkdigits.ink.png import encode_png
from inkdigits.types import NO_DIGIT, NO_DIGIT_LABEL, Doubles, Ink, Labels, Mask, Picture

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


def read_all(
    reader: Reader, labelled: Labelled, progress: Callable[[int, int], None] = lambda *_: None
) -> Readings:
    """Read labelled pictures; those that cannot be read are left out and named.

    ``progress`` is told how many are done, and how many there are.

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
        progress(min(start + _BATCH, len(labelled)), len(labelled))
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
