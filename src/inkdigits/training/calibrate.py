"""Weights → the operating point: temperature, thresholds, and the reference for drift.

All of it is fitted to digits that neither trained the weights nor chose the epoch; their writers
have other digits in the training part. The temperature is fitted to clean digits and to as many
synthesised ones (photographed, corrupted, drawn, printed), so that confidence means the same on
both. The thresholds are fitted to clean digits, for whose like they are guaranteed, and must keep
the risk on the same digits mildly corrupted too, as counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from inkdigits.decision.ood import METHOD, REJECTED_SHARE, energy, reject_threshold
from inkdigits.decision.policy import DecisionPolicy
from inkdigits.decision.risk import RISK, RISKS, accept_choices, accept_threshold, count_accepted
from inkdigits.errors import NoThresholdError
from inkdigits.evaluation.ood_metrics import auroc
from inkdigits.ink.normalize import preprocess, standardise
from inkdigits.model.artifact import MARGIN
from inkdigits.model.backends import forward_with_tta
from inkdigits.model.networks import Network
from inkdigits.training.export import network_of
from inkdigits.training.run_folder import Weights
from inkdigits.types import Doubles, Floats, Json, Labels, Mask

_BATCH_SIZE = 500

Outcomes: TypeAlias = tuple[Doubles, Mask]
"""Confidences (N,), 0 for what is rejected as no digit, and which readings are right (N,)."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a threshold accepts of a set of pictures."""

    n: int  # pictures
    n_accepted: int  # those accepted
    n_wrong: int  # those accepted and read wrong


@dataclass(frozen=True, slots=True, eq=False)
class OperatingPoint:
    """What ``find_operating_point`` fitted, and how good it is; None where it had no pictures."""

    calibration: CalibrationReport  # the temperature and what it does to clean digits
    hard: ProbabilityScores | None  # of the synthesised digits, at that temperature
    n_hard: int  # how many those are
    policy: DecisionPolicy
    corrupted: Accepted | None  # of the mildly corrupted digits
    # The chance that a synthesised picture without a digit has a higher out-of-distribution score
    # than a clean digit, 0 to 1.
    ood_auroc: float | None
    logits: Floats  # (N, 10) float32, of the clean calibration digits
    drift: DriftReference  # the distribution of their ink and confidences

    @property
    def temperature(self) -> float:
        """What divides the logits."""
        return self.calibration.temperature

    def to_dict(self) -> Json:
        """Return what optimal_temperature.json and run.json hold of it, beside the policy."""
        return {
            "second_look_margin": MARGIN,
            "calibration": self.calibration.to_dict(),
            "calibration_on_synthetic": None if self.hard is None else asdict(self.hard),
            "refusal_auroc_on_synthetic": self.ood_auroc,
            "accepted_of_corrupted": None if self.corrupted is None else asdict(self.corrupted),
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
            yield f"no picture will be rejected as no digit: {n:,} digits are too few to tell"
        else:
            yield f"rejected as no digit above {METHOD} {self.policy.novelty_threshold:.4f}"
        if self.ood_auroc is not None:
            yield f"digits against other pictures by {METHOD}: AUROC {self.ood_auroc:.4f}"
        chosen = self.policy.choice(self.policy.risk)
        if self.policy.accept_threshold is not None and chosen is not None:
            yield (
                f"accepted from confidence {self.policy.accept_threshold:g}: "
                f"{100 * chosen.coverage:.2f} % of the calibration pictures, "
                f"{chosen.n_wrong} of {chosen.n_accepted:,} wrong"
            )
        if self.corrupted is not None:
            accepted = self.corrupted.n_accepted
            yield (
                f"of the same pictures mildly corrupted {100 * accepted / self.corrupted.n:.2f} % "
                f"are accepted, {self.corrupted.n_wrong} of {accepted:,} wrong"
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Answers:
    """The network's logits (N, 10) for a set of pictures, and their labels (N,)."""

    logits: Floats
    labels: Labels

    @classmethod
    def of(cls, model: Network, digits: Digits) -> _Answers:
        logits = np.zeros((0, 10), np.float32)
        if len(digits):
            logits, _ = logits_and_features(model, digits.inks)
        return cls(logits, digits.labels.numpy())

    def readings(self, temperature: float, ood_limit: float | None) -> Outcomes:
        shares = probabilities(self.logits, temperature)
        confidence = shares.max(axis=1)
        if ood_limit is not None:
            confidence = np.where(energy(self.logits) > ood_limit, 0.0, confidence)
        return confidence, shares.argmax(axis=1) == self.labels


def find_operating_point(
    weights: Weights,
    clean: Digits,
    *,
    synthetic: Digits | None = None,
    corrupted: Digits | None = None,
    risk: float = RISK,
    report: Callable[[str], None] = lambda _: None,
) -> OperatingPoint:
    """Fit temperature and policy.

    What is rejected as no digit counts as not accepted, so the risks hold for what is accepted in
    the end. When no threshold keeps the risk on these pictures the policy accepts nothing, and
    ``report`` is told why.

    The digits neither trained the weights nor chose the epoch. The temperature fits what was made
    from them by ``synthesis.synthesise`` too, and the risk, a share of wrong readings among the
    accepted, is kept on what ``corruptions.corrupt_mildly`` made of them too.

    Raises:
        DataError: too few pictures to fit a temperature, or all are read right.

    >>> from inkdigits.model.networks import MNISTClassifier
    >>> two = Digits(torch.zeros(2, 28, 28, dtype=torch.uint8), torch.tensor([3, 7]))
    >>> find_operating_point(MNISTClassifier().state_dict(), two)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    inkdigits.errors.DataError: ...
    """
    model = network_of(weights)
    prepared = _preprocessed(clean)
    answers = _Answers.of(model, prepared)
    ood_scores = energy(answers.logits)
    made = clean[torch.arange(0)] if synthetic is None else synthetic
    hard, others = (_Answers.of(model, part) for part in made.divided())
    result = calibrate(answers.logits, answers.labels, also=(hard.logits, hard.labels))
    temperature = result.temperature
    ood_limit = reject_threshold(ood_scores)
    sets = [answers.readings(temperature, ood_limit)]
    if corrupted is not None:
        changed = _Answers.of(model, _preprocessed(corrupted))
        sets.append(changed.readings(temperature, ood_limit))
    policy = _policy(sets, ood_limit, risk, report)
    confidence = probabilities(answers.logits, temperature).max(axis=1)
    point = OperatingPoint(
        calibration=result,
        hard=score_probabilities(probabilities(hard.logits, temperature), hard.labels)
        if len(hard.labels)
        else None,
        n_hard=len(hard.labels),
        policy=policy,
        corrupted=None if corrupted is None else _accepted(sets[1], policy.accept_threshold),
        ood_auroc=auroc(-ood_scores, -energy(others.logits)) if len(others.labels) else None,
        logits=answers.logits,
        drift=DriftReference.from_inks_and_confidences(prepared.inks.numpy(), confidence),
    )
    for line in point.summary():
        report(line)
    return point


def _preprocessed(digits: Digits) -> Digits:
    """Return the digits as a user's pictures of them would be; a few pixels change."""
    inks = torch.from_numpy(np.stack([preprocess(ink) for ink in digits.inks.numpy()]))
    return Digits(inks, digits.labels)


def _accepted(readings: Outcomes, threshold: float | None) -> Accepted:
    confidence, right = readings
    if threshold is None:
        return Accepted(len(right), 0, 0)
    return Accepted(len(right), *count_accepted(confidence, right, threshold))


def _policy(
    sets: Sequence[Outcomes], ood_limit: float | None, risk: float, report: Callable[[str], None]
) -> DecisionPolicy:
    (confidence, right), *also = sets
    choices = accept_choices(confidence, right, also=also, risks=(*RISKS, risk))
    try:
        threshold = accept_threshold(confidence, right, also=also, risk=risk).threshold
    except NoThresholdError as error:
        report(f"nothing will be accepted without review: {error}")
        threshold = None
    return DecisionPolicy(threshold, risk, LEVEL, choices, ood_limit, REJECTED_SHARE)


def logits_and_features(model: Network, inks: torch.Tensor) -> tuple[Floats, Floats]:
    """Return logits (N, 10) and features (N, 128), float32, for ink (N, 28, 28) uint8.

    They are those of ``DigitReader.logits_and_features``, test-time augmentation included.

    >>> from inkdigits.model.networks import MNISTClassifier
    >>> blank = torch.zeros(2, 28, 28, dtype=torch.uint8)
    >>> [part.shape for part in logits_and_features(MNISTClassifier().eval(), blank)]
    [(2, 10), (2, 128)]
    """

    @torch.inference_mode()
    def forward(batch: Floats) -> tuple[Floats, Floats]:
        features = model.features(torch.from_numpy(batch))
        return model.fc2(features).numpy(), features.numpy()

    return forward_with_tta(forward, standardise(inks.numpy()), MARGIN, _BATCH_SIZE)
