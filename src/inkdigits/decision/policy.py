"""From confidence and novelty to a decision: accept, review or reject."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from inkdigits.calibration.intervals import check_share
from inkdigits.decision.risk import AcceptThreshold
from inkdigits.errors import ConfigError, DataError

Decision: TypeAlias = Literal["accept", "review", "reject"]
Reason: TypeAlias = Literal["blank", "not_a_digit", "several_digits", "cut_off", "unreadable"]
NumberReason: TypeAlias = Literal["no_ink", "not_a_number", "several_lines", "unreadable"]

READABLE = 0.5
"""Below this confidence a reading is more likely wrong than right."""


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
        the risk up; otherwise ("review", None). The reader rejects pictures
        without ink as blank, and those of several digits or a part of one as such.

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
        if threshold is not None and confidence >= threshold:
            return "accept", None
        return "review", None
