"""What was read in one picture."""

from __future__ import annotations

from dataclasses import dataclass

from inkdigits.decision.policy import Decision, Reason
from inkdigits.types import Ink


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
        novelty: how unlike any digit the ink is, higher is stranger; None without ink.
        ink: (28, 28) uint8, what the model saw: 0 is paper, 255 is ink.
        model_version: which artifact answered.
        preprocessing_ms: milliseconds from the encoded picture to the ink.
        inference_ms: milliseconds from the ink to the probabilities (a batch's mean).
        risk: the stated share of wrong readings among the accepted, as it was asked for; None
            where none was, and the artifact's own counts.
        coverage: share of calibration digits that are accepted at that risk, 0 to 1; 0 where the
            risk can't be kept and nothing is accepted. None without ``risk``.
    """

    digit: int | None
    confidence: float
    probabilities: tuple[float, ...]
    decision: Decision
    reason: Reason | None
    novelty: float | None
    ink: Ink
    model_version: str
    preprocessing_ms: float
    inference_ms: float
    risk: float | None = None
    coverage: float | None = None
