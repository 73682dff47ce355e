"""What a reader gives: predictions, numbers and explanations; and what every reader can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, Unpack, overload

from inkdigits.decision.hints import Check, Hints, ReadOptions
from inkdigits.decision.policy import Decision, NumberReason, Reason
from inkdigits.errors import ImageError
from inkdigits.types import Floats, Ink, Picture

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, width and height, in pixels of the picture."""


def percent(share: float) -> str:
    """Return a share as text, rounded down: no reading is certain enough for "100.00 %".

    >>> percent(0.99999)
    '99.99 %'
    """
    return f"{int(share * 10_000) / 100:.2f} %"


def _outcome(decision: str, reason: str | None, closest: int | str | None, share: float) -> str:
    if reason is None:
        return decision
    near = "" if closest is None else f"; closest {closest}, {percent(share)}"
    return f"{decision} ({reason.replace('_', ' ')}{near})"


def _line(answer: int | str | None, confidence: float, outcome: str) -> str:
    return outcome if answer is None else f"{answer} ({percent(confidence)}, {outcome})"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was read in one picture."""

    digit: int | None  # 0 to 9, or None when there is no ink to read
    confidence: float  # calibrated probability of the digit, 0 to 1; 0.0 without a digit
    probabilities: tuple[float, ...]  # calibrated, of 0 to 9, summing to 1; uniform without a digit
    decision: Decision  # what to do with it: accept it, let somebody review it, or reject it
    reason: Reason | None  # why it was rejected; None unless it was
    novelty: float | None  # out-of-distribution score, more is less like a digit; None without ink
    # (28, 28) uint8, what the model saw: 0 is background, 255 is ink
    ink: Ink = field(repr=False)
    model_version: str  # of the artifact that read it
    preprocessing_ms: float  # from the encoded picture to the ink
    inference_ms: float  # from the ink to the probabilities (a batch's mean)
    risk: float | None = None
    """The stated share of wrong readings among the accepted; None: the artifact's own applies."""
    coverage: float | None = None
    """Share of calibration digits accepted at that risk; 0 if the model cannot meet it."""
    number: NumberReading | None = field(default=None, repr=False)
    """The number that was read, where the reason is several digits; None if it was not looked for.
    """

    @property
    def answer(self) -> int | None:
        """The digit, or None where the picture was rejected: then it is only the closest one."""
        return None if self.decision == "reject" else self.digit

    @property
    def runner_up(self) -> tuple[int | None, float]:
        """The second most probable digit with its probability; None and 0 where there is no ink."""
        if self.digit is None:
            return None, 0.0
        share, digit = sorted(zip(self.probabilities, range(10), strict=True))[-2]
        return digit, share

    @property
    def outcome(self) -> str:
        """The decision in words, such as "reject (not a digit; closest 8, 99.30 %)"."""
        return _outcome(self.decision, self.reason, self.digit, self.confidence)

    def __str__(self) -> str:
        return _line(self.answer, self.confidence, self.outcome)


@dataclass(frozen=True, slots=True)
class ServedPrediction(Prediction):
    """What a service read in one picture, and where it is kept."""

    id: str = ""
    kept: str | None = None  # as docs/api.md lists; None where the service does not say


@dataclass(frozen=True, slots=True)
class NumberDigit:
    """One digit of a number."""

    digit: int  # 0 to 9
    confidence: float  # its probability, 0 to 1, by its own ink alone where that touches no other
    box: Box  # where it is
    decision: Decision
    alternatives: tuple[tuple[int, float], ...]  # other digits with their probabilities
    ink: Ink  # (28, 28) uint8, what the model saw


@dataclass(frozen=True, slots=True)
class NumberReading:
    """The number that was read in a picture or in a region of it."""

    text: str  # its digits from left to right; "" where none were read
    digits: tuple[NumberDigit, ...]
    confidence: float  # calibrated probability that the whole number is right, 0 to 1
    decision: Decision
    reason: NumberReason | None  # why it was rejected; None unless it was
    alternatives: tuple[tuple[str, float], ...] = ()  # other numbers with their probabilities
    checks: tuple[Check, ...] = ()  # whether the number is as each of the hints says
    model_version: str = ""  # of the artifact that read it
    total_ms: float = 0.0  # from the encoded picture to the number

    @property
    def certainty(self) -> float:
        """The least of the confidences in the number and in each of its digits."""
        return min((self.confidence, *(one.confidence for one in self.digits)))

    @property
    def several(self) -> float:
        """The probability that there are two digits or more."""
        known = ((self.text, self.confidence), *self.alternatives)
        return sum(share for text, share in known if len(text) > 1)

    @property
    def answer(self) -> str | None:
        """The number, or None where the picture was rejected: then it is only the closest one."""
        return None if self.decision == "reject" else self.text

    @property
    def outcome(self) -> str:
        """The decision in words, such as "reject (no ink)" or "review (fails luhn)"."""
        failed = [check.name for check in self.checks if not check.ok]
        if self.decision == "review" and failed:
            return f"review (fails {' and '.join(failed)})"
        return _outcome(self.decision, self.reason, self.text or None, self.confidence)

    def __str__(self) -> str:
        return _line(self.answer, self.confidence, self.outcome)


@dataclass(frozen=True, slots=True)
class ServedNumber(NumberReading):
    """The number that a service read, and where it is kept."""

    id: str = ""
    kept: str | None = None  # as docs/api.md lists; None where the service does not say


@dataclass(frozen=True, slots=True)
class Explanation:
    """A reading and what it rests on."""

    prediction: Prediction
    saliency: Floats
    """(28, 28) float32, in nats: by how much the logarithm of the digit's odds falls when the ink
    around a pixel is hidden; negative where it rises. Zeros where nothing was read."""
    runner_up: int | None  # the second likeliest digit; None where nothing was read
    runner_up_probability: float  # calibrated, 0 to 1; 0.0 where nothing was read
    overlay: bytes
    """PNG, 280x280 RGB: dark ink on white, orange where it is for the digit, blue where against."""


class Reader(ABC):
    """What reads digits: a ``DigitReader``, or a service in another process."""

    @property
    @abstractmethod
    def model_version(self) -> str:
        """The version of the artifact that reads."""

    @abstractmethod
    def predict(self, picture: Picture, *, risk: float | None = None) -> Prediction:
        """Read one picture; raises an ImageError if it cannot be decoded."""

    @abstractmethod
    def explain(self, picture: Picture, *, risk: float | None = None) -> Explanation:
        """Read one picture and show what the reading rests on."""

    @abstractmethod
    def _read_each(
        self, pictures: Sequence[Picture], risk: float | None
    ) -> Iterable[Prediction | ImageError]:
        """Yield for each picture, in order, its reading or the error that it causes."""

    @abstractmethod
    def _read_fields(
        self, picture: Picture, regions: Sequence[Box] | None, hints: Hints, risk: float | None
    ) -> list[NumberReading]:
        """Read the number in each region, or in the whole picture; raise an ImageError."""

    def read(self, picture: Picture, **options: Unpack[ReadOptions]) -> NumberReading:
        """Read the number in one picture: one line of digits.

        Args:
            picture: as for ``predict``.
            options: ``length``, ``min``, ``max``, ``check`` and ``risk``; see ``ReadOptions``.

        Raises:
            ImageError: the picture cannot be read or is over a limit.
            HintError: an option has an invalid value.
            ConfigError: a risk outside (0, 1).
        """
        return self._read_fields(picture, None, Hints.of(options), options.get("risk"))[0]

    def read_regions(
        self, picture: Picture, regions: Sequence[Box], **options: Unpack[ReadOptions]
    ) -> list[NumberReading]:
        """Read the number in each region of a page: left, top, width, height in pixels.

        Other arguments and errors are those of ``read``; a region outside the picture is a
        HintError.
        """
        return self._read_fields(picture, regions, Hints.of(options), options.get("risk"))

    def read_batch(
        self,
        pictures: Sequence[Picture],
        *,
        on_error: Literal["raise", "return"] = "raise",
        **options: Unpack[ReadOptions],
    ) -> list[NumberReading | ImageError]:
        """Read the number in each of many pictures, in the same order.

        With ``on_error="return"`` an ImageError stands in the place of a picture that cannot be
        read. Other arguments and errors are those of ``read``.
        """
        readings: list[NumberReading | ImageError] = []
        for picture in pictures:
            try:
                readings.append(self.read(picture, **options))
            except ImageError as error:
                if on_error == "raise":
                    raise
                readings.append(error)
        return readings

    @overload
    def predict_batch(
        self,
        pictures: Sequence[Picture],
        *,
        on_error: Literal["raise"] = "raise",
        risk: float | None = None,
    ) -> list[Prediction]: ...
    @overload
    def predict_batch(
        self,
        pictures: Sequence[Picture],
        *,
        on_error: Literal["return"],
        risk: float | None = None,
    ) -> list[Prediction | ImageError]: ...

    def predict_batch(
        self,
        pictures: Sequence[Picture],
        *,
        on_error: Literal["raise", "return"] = "raise",
        risk: float | None = None,
    ) -> list[Prediction] | list[Prediction | ImageError]:
        """Read many pictures; the predictions are in the same order.

        Args:
            pictures: as for ``predict``.
            on_error: "raise" stops at the first picture that cannot be read; "return" puts its
                error in its place and continues.
            risk: as for ``predict``.

        Raises:
            ImageError: with "raise", of the first picture that cannot be read.
            ConfigError: a risk outside (0, 1).
        """
        readings = []
        for reading in self._read_each(pictures, risk):
            if on_error == "raise" and isinstance(reading, ImageError):
                raise reading
            readings.append(reading)
        return readings
