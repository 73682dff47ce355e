"""What a reader gives: predictions and explanations; and the interface of every reader."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, overload

from inkdigits.decision.policy import Decision, Reason
from inkdigits.errors import ImageError
from inkdigits.types import Floats, Ink, Picture


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was read in one picture."""

    digit: int | None  # 0 to 9, or None when there is no ink to read
    confidence: float  # calibrated probability of the digit, 0 to 1; 0.0 without a digit
    probabilities: tuple[float, ...]  # calibrated, of 0 to 9, summing to 1; uniform without a digit
    decision: Decision  # what to do with it: accept it, let somebody review it, or reject it
    reason: Reason | None  # why it was rejected; None unless it was
    novelty: float | None  # out-of-distribution score, more is less like a digit; None without ink
    ink: Ink  # (28, 28) uint8, what the model saw: 0 is background, 255 is ink
    model_version: str  # of the artifact that read it
    preprocessing_ms: float  # from the encoded picture to the ink
    inference_ms: float  # from the ink to the probabilities (a batch's mean)
    risk: float | None = None
    """The stated share of wrong readings among the accepted; None: the artifact's own applies."""
    coverage: float | None = None
    """Share of calibration digits accepted at that risk; 0 where it cannot be kept."""


@dataclass(frozen=True, slots=True)
class ServedPrediction(Prediction):
    """What a service read in one picture, and where it is kept."""

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
