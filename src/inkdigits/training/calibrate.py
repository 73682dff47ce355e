"""Weights → the operating point: temperature, thresholds, and the reference for drift.

All of it is fitted to digits that neither trained the weights nor chose the epoch; where the
writers are known, none of theirs trained. The temperature is fitted to clean digits and to as many
synthesised ones (photographed, corrupted, drawn, printed), so that confidence means the same on
both. The accept thresholds are fitted to clean digits, for whose like they are guaranteed, and must
meet the risk in each group of digits, as counted: of census clerks, of pupils, mildly corrupted,
drawn, photographed, by other hands. A group in which no threshold keeps it is named, and does not
decide. What looks like no digit is told by a threshold that few digits of any group exceed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TypeAlias

import numpy as np
import torch

from inkdigits.calibration.intervals import LEVEL
from inkdigits.calibration.scores import (
    CalibrationReport,
    ProbabilityScores,
    calibrate,
    score_probabilities,
)
from inkdigits.calibration.temperature import probabilities
from inkdigits.data.mnist import Digits
from inkdigits.decision.drift import PROVENANCE, DriftReference
from inkdigits.decision.policy import (
    METHOD,
    REJECTED_SHARE,
    REJECTED_SHARE_OF_GROUP,
    DecisionPolicy,
    decided_confidence,
    energy,
    reject_threshold,
)
from inkdigits.decision.risk import (
    RISK,
    RISKS,
    THRESHOLDS,
    AcceptThreshold,
    accept_threshold,
    accepted_needed,
    clopper_pearson_upper,
    count_accepted,
)
from inkdigits.errors import NoThresholdError
from inkdigits.evaluation.ood_metrics import auroc
from inkdigits.ink.normalize import standardise
from inkdigits.model.artifact import MARGIN
from inkdigits.model.backends import forward_with_tta
from inkdigits.model.networks import Network
from inkdigits.training.export import network_of
from inkdigits.training.run_folder import Weights
from inkdigits.types import Doubles, Floats, Json, Labels, Mask, Report

_BATCH_SIZE = 500
# Digits of each group that is made for calibration; a risk of 0.1 % then allows ten mistakes.
GROUP_SIZE = 10_000

Outcomes: TypeAlias = tuple[Doubles, Mask]
"""Confidences (N,), 0 for what is rejected as no digit, and which readings are right (N,)."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a threshold accepts of a set of pictures."""

    n: int  # pictures
    n_accepted: int  # those accepted
    n_wrong: int  # those accepted and read wrong
    n_rejected: int  # those rejected as no digit
    keeps_risk: bool = True  # whether some threshold meets the risk here, so that it may decide
    decides: bool = False  # whether the next lower threshold fails here

    @property
    def upper(self) -> float:
        """The one-sided upper bound of the share of wrong readings among the accepted."""
        return clopper_pearson_upper(self.n_wrong, self.n_accepted) if self.n_accepted else 1.0

    def described(self, risk: float) -> str:
        """Return it for people, with what limits it as evidence for a risk."""
        text = f"0 of {self.n:,} accepted"
        if self.n_accepted:
            text = (
                f"{100 * self.n_accepted / self.n:.2f} % of {self.n:,} accepted, {self.n_wrong} "
                f"wrong (at most {self.upper:.2%})"
            )
        text += f"; {100 * self.n_rejected / self.n:.2f} % rejected as not a digit"
        needed = accepted_needed(0, risk)
        if 0 < self.n_accepted < needed:
            text += f"; evidence needs {needed:,}"
        if self.decides:
            text += "; this group determines the threshold"
        if not self.keeps_risk:
            text += "; ignored, because no threshold meets the risk"
        return text

    def to_dict(self) -> Json:
        """Return what run.json holds of it."""
        return {**asdict(self), "wrong_at_most": self.upper}


@dataclass(frozen=True, slots=True, eq=False)
class OperatingPoint:
    """What ``find_operating_point`` fitted, and how good it is; None where it had no pictures."""

    calibration: CalibrationReport  # the temperature and what it does to clean digits
    hard: ProbabilityScores | None  # of the synthesised digits, at that temperature
    n_hard: int  # how many those are
    policy: DecisionPolicy
    groups: dict[str, Accepted]  # what is accepted of each group, by its name
    # The chance that a synthesised picture without a digit has a higher out-of-distribution score
    # than a clean digit, 0 to 1.
    ood_auroc: float | None
    logits: Floats  # (N, 10) float32, of the clean calibration digits in which ink was found
    labels: Labels  # (N,) of those
    drift: DriftReference  # the distribution of their ink and confidences

    @property
    def temperature(self) -> float:
        """What divides the logits."""
        return self.calibration.temperature

    def to_dict(self) -> Json:
        """Return what optimal_temperature.json and run.json hold of it, beside the policy."""
        return {
            "second_look_margin": MARGIN,
            "calibration": asdict(self.calibration),
            "calibration_on_synthetic": None if self.hard is None else asdict(self.hard),
            "refusal_auroc_on_synthetic": self.ood_auroc,
            "accepted_by_group": {name: of.to_dict() for name, of in self.groups.items()},
            PROVENANCE: self.drift.to_dict(),
        }

    def summary(self) -> Iterator[str]:
        """Yield what was found, in lines for people."""
        before, after, n = self.calibration.before, self.calibration.after, self.calibration.n
        yield (
            f"calibrated: temperature {self.temperature:.4f}, NLL {before.nll.value:.4f} → "
            f"{after.nll.value:.4f}, ECE {100 * before.ece.value:.2f} → "
            f"{100 * after.ece.value:.2f} % (n = {n:,})"
        )
        if self.hard is not None:
            yield (
                f"on synthesised digits: NLL {self.hard.nll.value:.4f}, "
                f"ECE {100 * self.hard.ece.value:.2f} % (n = {self.n_hard:,})"
            )
        if self.policy.novelty_threshold is None:
            yield f"{n:,} digits are too few for an out-of-distribution threshold"
        else:
            yield f"out-of-distribution threshold: {METHOD} {self.policy.novelty_threshold:.4f}"
        if self.ood_auroc is not None:
            yield f"AUROC of digits and other pictures by {METHOD}: {self.ood_auroc:.4f}"
        chosen = self.policy.choice(self.policy.risk)
        if self.policy.accept_threshold is not None and chosen is not None:
            yield (
                f"accepted from confidence {self.policy.accept_threshold:g}: "
                f"{100 * chosen.coverage:.2f} % of the calibration pictures, "
                f"{chosen.n_wrong} of {chosen.n_accepted:,} wrong"
            )
        for name, of in self.groups.items():
            yield f"{name}: {of.described(self.policy.risk)}"


@dataclass(frozen=True, slots=True, eq=False)
class _Answers:
    """The logits (N, 10) of a set of pictures, their labels (N,), and whose ink is certain (N,)."""

    logits: Floats
    labels: Labels
    certain: Mask

    @classmethod
    def of(cls, model: Network, digits: Digits) -> _Answers:
        logits = _logits(model, digits.inks) if len(digits) else np.zeros((0, 10), np.float32)
        n = len(digits)
        certain = np.ones(n, bool) if digits.certain is None else digits.certain.numpy()
        return cls(logits, digits.labels.numpy(), certain)

    def scores(self, temperature: float) -> ProbabilityScores | None:
        if not len(self.labels):
            return None
        return score_probabilities(probabilities(self.logits, temperature), self.labels)

    def readings(self, temperature: float, ood_limit: float | None) -> Outcomes:
        shares = probabilities(self.logits, temperature)
        scores = energy(self.logits)
        decided = decided_confidence(shares.max(axis=1), scores, ood_limit, self.certain)
        return decided, shares.argmax(axis=1) == self.labels


def find_operating_point(
    weights: Weights,
    clean: Digits,
    *,
    synthetic: Digits | None = None,
    groups: Mapping[str, Digits] | None = None,
    risk: float = RISK,
    report: Report = lambda _: None,
) -> OperatingPoint:
    """Fit temperature and policy.

    What is rejected as no digit counts as not accepted. When no threshold meets the risk on the
    clean digits the policy accepts nothing, and ``report`` is told why.

    The digits neither trained the weights nor chose the epoch. The temperature fits what was made
    from them by ``synthesis.synthesise`` too, and the risk, a share of wrong readings among the
    accepted, is kept in each of the ``groups``; ``calibration_groups`` makes these and the clean
    ones. Groups in which no threshold meets the risk are left out of it, and named. Who wrote the
    clean digits makes the bounds those of writers.

    A DataError says that too few pictures are there to fit a temperature, or all are read right.

    >>> from inkdigits.model.networks import MNISTClassifier
    >>> two = Digits(torch.zeros(2, 28, 28, dtype=torch.uint8), torch.tensor([3, 7]))
    >>> find_operating_point(MNISTClassifier().state_dict(), two)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    inkdigits.errors.DataError: ...
    """
    model = network_of(weights)
    writers = None if clean.writers is None else clean.writers.numpy()
    answers = _Answers.of(model, clean)
    ood_scores = energy(answers.logits)
    made = clean[torch.arange(0)] if synthetic is None else synthetic
    hard, others = (_Answers.of(model, part) for part in made.divided())
    also = hard.logits, hard.labels
    result = calibrate(answers.logits, answers.labels, also=also, writers=writers)
    temperature = result.temperature
    answers_of = {name: _Answers.of(model, of) for name, of in (groups or {}).items()}
    ood_limit = _ood_limit(ood_scores, answers_of)
    of_groups = {name: of.readings(temperature, ood_limit) for name, of in answers_of.items()}
    readings = answers.readings(temperature, ood_limit)
    policy = _policy(readings, of_groups, writers, ood_limit, risk, report)
    confidence = probabilities(answers.logits, temperature).max(axis=1)
    point = OperatingPoint(
        calibration=result,
        hard=hard.scores(temperature),
        n_hard=len(hard.labels),
        policy=policy,
        groups=_accepted_of_groups(readings, of_groups, policy),
        ood_auroc=auroc(-ood_scores, -energy(others.logits)) if len(others.labels) else None,
        logits=answers.logits,
        labels=answers.labels,
        drift=DriftReference.from_inks_and_confidences(clean.inks.numpy(), confidence),
    )
    for line in point.summary():
        report(line)
    return point


def _accepted_of_groups(
    clean: Outcomes, groups: Mapping[str, Outcomes], policy: DecisionPolicy
) -> dict[str, Accepted]:
    """Return what the policy accepts of each group, and which of them decides its threshold."""
    threshold, risk = policy.accept_threshold, policy.risk
    kept = _supported(clean, groups, risk)
    lower = [t for t in THRESHOLDS if threshold is not None and t < threshold][:1]
    found = {}
    for name, (confidence, right) in groups.items():
        counts = (0, 0) if threshold is None else count_accepted(confidence, right, threshold)
        below = [count_accepted(confidence, right, t) for t in lower]
        found[name] = Accepted(
            len(right),
            *counts,
            int((confidence == 0.0).sum()),
            keeps_risk=name in kept,
            decides=name in kept and any(wrong > max(1.0, risk * n) for n, wrong in below),
        )
    return found


def _supported(clean: Outcomes, groups: Mapping[str, Outcomes], risk: float) -> dict[str, Outcomes]:
    """Return the groups in which some threshold meets the risk."""
    kept = {}
    for name, of in groups.items():
        try:
            accept_threshold(*clean, groups={name: of}, risk=risk)
        except NoThresholdError:
            continue
        kept[name] = of
    return kept


def _ood_limit(clean: Doubles, groups: Mapping[str, _Answers]) -> float | None:
    """Return the score that few digits of any group exceed; None if there are too few to tell."""
    limit = reject_threshold(clean)
    if limit is None:
        return None
    of_groups = (
        reject_threshold(energy(of.logits), REJECTED_SHARE_OF_GROUP) for of in groups.values()
    )
    # From 0 up no digit is likelier than one: a group with so many such pictures does not decide.
    return max([limit, *(of for of in of_groups if of is not None and of < 0.0)])


def _policy(
    clean: Outcomes,
    groups: Mapping[str, Outcomes],
    writers: Labels | None,
    ood_limit: float | None,
    risk: float,
    report: Report,
) -> DecisionPolicy:
    choices: list[AcceptThreshold] = []
    for each in sorted({*RISKS, risk}, reverse=True):
        kept = _supported(clean, groups, each)
        try:
            choice = accept_threshold(*clean, groups=kept, writers=writers, risk=each)
        except NoThresholdError as error:
            choice = AcceptThreshold(None, each, LEVEL, 0.0, len(clean[0]), 0, 0)
            if each == risk:
                report(f"the model will accept nothing: {error}")
        # A group that cannot meet a strict risk does not decide it: that may not accept more.
        looser = choices[0].threshold if choices else None
        if looser is not None and choice.threshold is not None and choice.threshold < looser:
            n, wrong = count_accepted(*clean, looser)
            choice = AcceptThreshold(looser, each, LEVEL, n / choice.n, choice.n, n, wrong)
        if each == risk and choice.threshold is not None and len(kept) < len(groups):
            left_out = ", ".join(name for name in groups if name not in kept)
            report(f"ignored: no threshold meets the risk of {risk:.2%} in {left_out}")
        choices.insert(0, choice)
    (chosen,) = (choice for choice in choices if choice.risk == risk)
    return DecisionPolicy(chosen.threshold, risk, LEVEL, tuple(choices), ood_limit, REJECTED_SHARE)


def _logits(model: Network, inks: torch.Tensor) -> Floats:
    """Return logits (N, 10) as ``DigitReader`` does, test-time augmentation included."""

    @torch.inference_mode()
    def forward(batch: Floats) -> tuple[Floats, Floats]:
        features = model.features(torch.from_numpy(batch))
        return model.fc2(features).numpy(), features.numpy()

    return forward_with_tta(forward, standardise(inks.numpy()), MARGIN, _BATCH_SIZE)[0]
