"""Weights → the point at which they are operated: temperature, novelty, thresholds.

All three are fitted to digits that trained nothing and chose nothing. The temperature is fitted to
clean digits and to as many synthesised ones (photographed, corrupted, drawn, printed), so that
confidence means the same on both; the thresholds to clean ones, for whose like they are
guaranteed, and so that the same digits mildly corrupted keep the risk too, as counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
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
from inkdigits.model.networks import Network
from inkdigits.model.tta import MARGIN, forward_with_tta
from inkdigits.training.export import network_of
from inkdigits.types import NO_DIGIT, Floats

BATCH_SIZE = 500
Weights = dict[str, torch.Tensor]
Readings: TypeAlias = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a threshold accepts of a set of pictures.

    Attributes:
        n: pictures.
        n_accepted: those accepted.
        n_wrong: those accepted and read wrong.
    """

    n: int
    n_accepted: int
    n_wrong: int


@dataclass(frozen=True, slots=True, eq=False)
class OperatingPoint:
    """What ``find_operating_point`` fitted, and how it was.

    Attributes:
        calibration: the temperature and what it does to clean digits.
        hard: scores of the synthesised digits at that temperature; None where there were none.
        policy: thresholds.
        corrupted: what the policy accepts of the mildly corrupted digits; None where there were
            none.
        refusal_auroc: the chance that a synthesised picture without a digit is stranger than a
            clean digit, 0 to 1; None where there were none.
        answers: (N, 10) float32, logits of the clean calibration digits.
        drift: how their ink and confidences are distributed, for later comparison.
    """

    calibration: CalibrationReport
    hard: ProbabilityScores | None
    policy: DecisionPolicy
    corrupted: Accepted | None
    refusal_auroc: float | None
    answers: Floats
    drift: DriftReference

    @property
    def temperature(self) -> float:
        """What divides the logits."""
        return self.calibration.temperature


def find_operating_point(
    weights: Weights,
    clean: Digits,
    *,
    synthetic: Digits | None = None,
    corrupted: Digits | None = None,
    risk: float = RISK,
    report: Callable[[str], None] = lambda _: None,
) -> OperatingPoint:
    """Fit temperature, novelty and policy.

    What is rejected as no digit counts as not accepted, so the risks hold for what is accepted in
    the end. When no threshold keeps the risk on these pictures the policy accepts nothing, and
    ``report`` is told why.

    Args:
        weights: state_dict of a network.
        clean: digits that trained nothing and chose nothing.
        synthetic: pictures made from ``clean`` by ``synthesis.synthesise``, with a digit or
            without; None fits temperature and novelty to ``clean``.
        corrupted: ``clean`` after ``corruptions.corrupt_mildly``, on which the risk is to be kept
            too; None asks for ``clean`` alone.
        risk: tolerated share of wrong readings among the accepted.
        report: told, in a line, what each step found.

    Raises:
        DataError: too few pictures to fit a temperature or to tell drift by, or all are read
            right.
    """
    model = network_of(weights)
    prepared = _prepared(clean)
    answers = logits_and_features(model, prepared)[0]
    labels = clean.labels.numpy()
    hard_answers, hard_labels = answers[:0], labels[:0]
    refusal = None
    novelty = energy(answers)
    if synthetic is not None:
        with_digit = synthetic.labels != NO_DIGIT
        hard = synthetic[with_digit.nonzero().squeeze(1)]
        hard_answers, hard_labels = logits_and_features(model, hard.inks)[0], hard.labels.numpy()
        others = synthetic[(~with_digit).nonzero().squeeze(1)]
        if len(others):
            refusal = auroc(-novelty, -energy(logits_and_features(model, others.inks)[0]))
            report(f"told from digits by {METHOD}: AUROC {refusal:.4f} (n = {len(others):,})")
    result = calibrate(answers, labels, also=(hard_answers, hard_labels))
    after = probabilities(answers, result.temperature)
    confidence = after.max(axis=1)
    limit = reject_threshold(novelty)
    sets = [_not_rejected(after, labels, novelty, limit)]
    if corrupted is not None:
        changed = logits_and_features(model, _prepared(corrupted))[0]
        shares = probabilities(changed, result.temperature)
        sets.append(_not_rejected(shares, corrupted.labels.numpy(), energy(changed), limit))
    policy = _policy(sets, limit, risk, report)
    accepted = None
    if corrupted is not None:
        accepted = _accepted(sets[1], policy.accept_threshold)
        if accepted.n_accepted:
            report(
                f"of as many mildly corrupted ones {100 * accepted.n_accepted / accepted.n:.2f} % "
                f"are accepted, {accepted.n_wrong} of {accepted.n_accepted:,} wrong"
            )
    hard_scores = None
    if len(hard_labels):
        hard_scores = score_probabilities(
            probabilities(hard_answers, result.temperature), hard_labels
        )
    _tell(result, hard_scores, len(hard_labels), policy, report)
    drift = DriftReference.from_inks_and_confidences(prepared.numpy(), confidence)
    return OperatingPoint(result, hard_scores, policy, accepted, refusal, answers, drift)


def _prepared(digits: Digits) -> torch.Tensor:
    """As a user's would be: a digit of MNIST comes out as itself, but for a few pixels."""
    return torch.from_numpy(np.stack([preprocess(ink) for ink in digits.inks.numpy()]))


def _not_rejected(
    shares: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    novelty: npt.NDArray[np.float64],
    limit: float | None,
) -> Readings:
    """Confidences, 0 for what is rejected as no digit, and which readings are right."""
    confidence = shares.max(axis=1)
    if limit is not None:
        confidence = np.where(novelty > limit, 0.0, confidence)
    return confidence, shares.argmax(axis=1) == labels


def _accepted(readings: Readings, threshold: float | None) -> Accepted:
    confidence, right = readings
    if threshold is None:
        return Accepted(len(right), 0, 0)
    return Accepted(len(right), *count_accepted(confidence, right, threshold))


def _policy(
    sets: Sequence[Readings],
    limit: float | None,
    risk: float,
    report: Callable[[str], None],
) -> DecisionPolicy:
    (confidence, right), *also = sets
    choices = accept_choices(confidence, right, also=also, risks=(*RISKS, risk))
    try:
        chosen = accept_threshold(confidence, right, also=also, risk=risk)
    except NoThresholdError as error:
        report(f"nothing will be accepted without review: {error}")
        return DecisionPolicy(None, risk, LEVEL, choices, limit, REJECTED_SHARE)
    report(
        f"accepted from confidence {chosen.threshold:g}: {100 * chosen.coverage:.2f} % of the "
        f"calibration pictures, {chosen.n_wrong} of {chosen.n_accepted:,} wrong"
    )
    return DecisionPolicy(chosen.threshold, risk, LEVEL, choices, limit, REJECTED_SHARE)


def _tell(
    result: CalibrationReport,
    hard: ProbabilityScores | None,
    n_hard: int,
    policy: DecisionPolicy,
    report: Callable[[str], None],
) -> None:
    before, scaled = result.before, result.after
    report(
        f"calibrated: temperature {result.temperature:.4f}, NLL {before.nll.value:.4f} → "
        f"{scaled.nll.value:.4f}, ECE {100 * before.ece.value:.2f} → "
        f"{100 * scaled.ece.value:.2f} % (n = {result.n:,})"
    )
    if hard is not None:
        report(
            f"on synthesised digits: NLL {hard.nll.value:.4f}, ECE {100 * hard.ece.value:.2f} % "
            f"(n = {n_hard:,})"
        )
    if policy.novelty_threshold is None:
        report(f"no picture will be rejected as no digit: {result.n:,} digits are too few to tell")
    else:
        report(f"rejected as no digit above {METHOD} {policy.novelty_threshold:.4f}")


def logits_and_features(model: Network, inks: torch.Tensor) -> tuple[Floats, Floats]:
    """Logits (N, 10) and features (N, 128), float32, for ink (N, 28, 28) uint8.

    As ``DigitReader.logits_and_features`` gives them, test-time augmentation included.
    """

    @torch.inference_mode()
    def forward(batch: Floats) -> tuple[Floats, Floats]:
        features = model.features(torch.from_numpy(batch))
        return model.fc2(features).numpy(), features.numpy()

    return forward_with_tta(forward, standardise(inks.numpy()), MARGIN, BATCH_SIZE)


def describe(point: OperatingPoint) -> dict[str, Any]:
    """What optimal_temperature.json and run.json keep of it, beside the policy."""
    return {
        "second_look_margin": MARGIN,
        "calibration": point.calibration.to_dict(),
        "calibration_on_synthetic": None if point.hard is None else asdict(point.hard),
        "refusal_auroc_on_synthetic": point.refusal_auroc,
        "accepted_of_corrupted": None if point.corrupted is None else asdict(point.corrupted),
        PROVENANCE: point.drift.to_dict(),
    }
