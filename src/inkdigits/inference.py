"""DigitReader: pictures in, calibrated predictions out. It knows neither HTTP nor a database."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from inkdigits.decision import Decision, Reason
from inkdigits.errors import ImageError

Picture: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was read in one picture.

    Attributes:
        digit: 0 to 9, or None when there is no ink to read.
        confidence: calibrated probability of ``digit``, 0 to 1; 0.0 when ``digit`` is None.
        probabilities: calibrated probabilities of the digits 0 to 9, summing to 1; uniform when
            ``digit`` is None.
        decision: what to do with it: accept it, let somebody review it, or reject it.
        reason: why it was rejected; None unless ``decision`` is "reject".
        novelty: how unlike any digit the ink is, higher is stranger; None where not computed.
        ink: (28, 28) uint8, what the model saw: 0 is paper, 255 is ink.
        model_version: which artifact answered.
        preprocessing_ms: milliseconds from the encoded picture to the ink.
        inference_ms: milliseconds from the ink to the probabilities (a batch's mean).
    """

    digit: int | None
    confidence: float
    probabilities: tuple[float, ...]
    decision: Decision
    reason: Reason | None
    novelty: float | None
    ink: npt.NDArray[np.uint8]
    model_version: str
    preprocessing_ms: float
    inference_ms: float


class Reader(Protocol):
    """What the API and the command line need of whatever reads digits."""

    @property
    def model_version(self) -> str:
        """Names the artifact that answers."""

    def predict(self, picture: Picture) -> Prediction:
        """Read one picture; raises an ImageError if it can't be decoded."""

    @overload
    def predict_batch(self, pictures: Sequence[Picture]) -> list[Prediction]: ...
    @overload
    def predict_batch(
        self, pictures: Sequence[Picture], *, on_error: Literal["raise"]
    ) -> list[Prediction]: ...
    @overload
    def predict_batch(
        self, pictures: Sequence[Picture], *, on_error: Literal["return"]
    ) -> list[Prediction | ImageError]: ...
