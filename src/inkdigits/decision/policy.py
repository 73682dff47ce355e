"""From confidence and novelty to a decision: accept, review or reject."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from inkdigits.calibration.intervals import LEVEL, check_share
from inkdigits.decision.risk import RISK, AcceptThreshold
from inkdigits.errors import ConfigError, DataError
from inkdigits.types import Doubles, Mask

Decision: TypeAlias = Literal["accept", "review", "reject"]
Reason: TypeAlias = Literal["blank", "not_a_digit", "several_digits", "cut_off", "unreadable"]
NumberReason: TypeAlias = Literal["no_ink", "not_a_number", "several_lines", "unreadable"]

METHOD: Final = "energy"
"""The name of the score in an artifact; docs/experiments/ compares it with three others."""

REJECTED_SHARE = 0.003
"""Tolerated share of digits that are rejected as no digits."""

REJECTED_SHARE_OF_GROUP = 0.01
"""The same in each group that calibrates: a digit of another hand is not an outlier either."""

READABLE = 0.5
"""Below this confidence a reading is more likely wrong than right."""

ACCEPT_NOVELTY = -4.0
"""A reading is accepted only up to this out-of-distribution score: by it, a digit is 55 times as
likely as none. That costs 0.1 to 0.5 % of the digits of a group that calibrates, 1.9 % of those
photographed, and a plainly drawn "B", which looks much like an 8, is not accepted."""


@dataclass(frozen=True, slots=True)
class DecisionPolicy:
    """Which readings are accepted and which rejected; travels with the weights in the artifact.

    Raises:
        ConfigError: a value outside its range.
    """

    accept_threshold: float | None  # accept from this confidence up; None accepts nothing
    risk: float  # the share of wrong readings among the accepted that it was chosen for, 0 to 1
    level: float  # confidence level at which it is kept, 0 to 1
    choices: tuple[AcceptThreshold, ...] = ()  # other risks, rising, with what each costs
    novelty_threshold: float | None = None  # no digit above it; None rejects none as such
    rejected_share: float = 0.003  # the share of digits that may lie above it, 0 to 1
    unreadable_below: float = READABLE  # reject as unreadable below this confidence

    def __post_init__(self) -> None:
        thresholds = (self.accept_threshold, *(choice.threshold for choice in self.choices))
        for threshold in (*thresholds, self.unreadable_below):
            if threshold is not None and not 0 <= threshold <= 1:
                raise ConfigError(f"a threshold is {threshold}; the limits are 0 to 1")
        risks = [choice.risk for choice in self.choices]
        if risks != sorted(set(risks)):
            raise ConfigError(f"the risks to choose from must rise strictly; these are {risks}")
        for risk in (self.risk, *risks):
            check_share("risk", risk)
        check_share("level", self.level)
        check_share("rejected_share", self.rejected_share)
        if self.novelty_threshold is not None and not math.isfinite(self.novelty_threshold):
            raise ConfigError(f"novelty_threshold is {self.novelty_threshold}; it must be finite")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DecisionPolicy:
        """Make a policy of what ``dataclasses.asdict`` made of one.

        Raises:
            ConfigError: a value outside its range.
            TypeError: a field is missing, unknown or of another type.
        """
        choices = tuple(AcceptThreshold(**choice) for choice in values.get("choices", ()))
        return cls(**{**values, "choices": choices})

    def choice(self, risk: float) -> AcceptThreshold | None:
        """Return what applies at a stated risk: the loosest of ``choices`` that is no looser.

        Nothing is accepted where its threshold is None, or every choice is looser than the risk.

        Raises:
            ConfigError: a risk outside (0, 1).
        """
        check_share("risk", risk)
        kept = [choice for choice in self.choices if choice.risk <= risk]
        return kept[-1] if kept else None

    def decide(
        self, confidence: float, *, novelty: float | None = None, risk: float | None = None
    ) -> tuple[Decision, Reason | None]:
        """Decide what to do with a reading.

        ``confidence`` is calibrated, 0 to 1; ``novelty`` None is unknown, and ``risk`` None the
        policy's own. Returns ("reject", "not_a_digit") above the novelty's threshold; ("reject",
        "unreadable") where no digit is likelier than not; ("accept", None) from the threshold for
        the risk up, if the novelty is at most ``ACCEPT_NOVELTY``; otherwise ("review", None).
        The reader rejects pictures without ink as blank, and those of several digits or a part of
        one as such.

        Raises:
            DataError: a confidence that is not a number from 0 to 1, or a novelty that is NaN.
            ConfigError: a risk outside (0, 1).
        """
        if not 0 <= confidence <= 1:
            raise DataError(f"confidence is {confidence}; it must lie between 0 and 1")
        if novelty is not None and math.isnan(novelty):
            raise DataError("novelty is not a number")
        threshold = self.accept_threshold
        if risk is not None:
            choice = self.choice(risk)
            threshold = None if choice is None else choice.threshold
        limit = self.novelty_threshold
        if novelty is not None and limit is not None and novelty > limit:
            return "reject", "not_a_digit"
        if confidence < self.unreadable_below:
            return "reject", "unreadable"
        is_doubtful = novelty is not None and limit is not None and novelty > ACCEPT_NOVELTY
        if threshold is not None and confidence >= threshold and not is_doubtful:
            return "accept", None
        return "review", None


def decided_confidence(
    confidence: Doubles, novelty: Doubles, limit: float | None, certain: Mask
) -> Doubles:
    """Return the confidences (N,) that thresholds may accept, for scores (N,) and their limit.

    They are 0 for what is rejected as no digit. They are below each threshold above
    ``ACCEPT_NOVELTY``, and where the ink is not ``certain`` (N,).

    >>> decided_confidence(np.full(3, 0.9), np.array([-9.0, -1.0, 1.0]), 0.0, np.full(3, True))
    array([0.9 , 0.25, 0.  ])
    """
    lenient = DecisionPolicy(0.0, RISK, LEVEL, novelty_threshold=limit, unreadable_below=0.0)
    most = {"accept": 1.0, "review": READABLE / 2, "reject": 0.0}
    pairs = zip(confidence.tolist(), novelty.tolist(), strict=True)
    decided = np.array([min(c, most[lenient.decide(c, novelty=score)[0]]) for c, score in pairs])
    return np.where(certain, decided, np.minimum(decided, most["review"]))


def energy(logits: npt.ArrayLike) -> Doubles:
    """Return the out-of-distribution score of each row of logits; higher is less like a digit.

    The energy is -ln(sum of exp(logit)) over the ten digits (Liu, Wang, Owens and Li,
    "Energy-based Out-of-distribution Detection", NeurIPS 2020, at temperature 1).

    Args:
        logits: (N, 10), finite.

    Returns:
        (N,) float64, finite.

    Raises:
        DataError: another number of dimensions.

    >>> energy([[0.0] * 10, [9.0] + [0.0] * 9]).round(3).tolist()
    [-2.303, -9.001]
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2:
        raise DataError(f"logits must be (N, 10); these are {values.shape}")
    # The largest exponent becomes 0, so nothing overflows.
    largest = np.maximum.reduce(values, axis=1)
    sums = np.add.reduce(np.exp(values - largest[:, None]), axis=1)
    score: Doubles = -largest - np.log(sums)
    return score


def reject_threshold(novelty: npt.ArrayLike, share: float = REJECTED_SHARE) -> float | None:
    """Return the score above which at most ``share`` of digits lie.

    Split conformal prediction: of n calibration scores the ceil((1 - share)(n + 1))-th smallest.
    One more score of the same kind exceeds it with a chance of at most ``share``, whatever their
    distribution (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; for
    outliers Bates, Candes, Lei, Romano and Sesia, Annals of Statistics 51, 2023).

    ``novelty`` (N,) is of digits that trained nothing. None is returned where N is too small to
    tell, and nothing may be rejected.

    Raises:
        ConfigError: a share outside (0, 1).
        DataError: no scores, or scores that are not finite.

    >>> reject_threshold(range(100), share=0.05)
    95.0
    """
    if not 0 < share < 1:
        raise ConfigError(f"the rejected share is {share}; it must lie strictly between 0 and 1")
    scores = np.sort(np.asarray(novelty, dtype=np.float64))
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise DataError(f"novelty must be (N,) finite numbers; it is of shape {scores.shape}")
    rank = math.ceil((1 - share) * (len(scores) + 1))
    return None if rank > len(scores) else float(scores[rank - 1])
