"""Scores of what a reader answered to digits and non-digits, and their report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from inkdigits.calibration.intervals import Estimate, wilson_interval
from inkdigits.calibration.scores import reliability_curve
from inkdigits.decision.prediction import Prediction
from inkdigits.evaluation.ood_metrics import auroc, fpr_at_95_tpr
from inkdigits.evaluation.report import aligned


@dataclass(frozen=True, slots=True)
class DigitScores:
    """How one set of digits was read."""

    name: str  # of the set
    group: str  # "clean", "corruption" or "other"
    severities: tuple[int, ...]  # of the corruption; empty where there is none
    n: int  # pictures; over all severities
    n_correct: int  # those read right
    accuracy: Estimate  # 0 to 1, with its 95 % Wilson interval
    # Expected calibration error in 15 bins, 0 to 1; a picture in which no ink was found counts as
    # 10 % for each digit.
    ece: float
    n_accepted: int  # those accepted without review
    coverage: float  # ``n_accepted / n``
    n_wrong_accepted: int  # those accepted and read wrong
    # 0 to 1, with its 95 % Wilson interval; None where none is accepted.
    wrong_among_accepted: Estimate | None
    rejected: float  # share rejected, 0 to 1
    # Of each digit from 0 to 9: pictures, those read right, accepted, and accepted but wrong.
    by_digit: tuple[tuple[int, int, int, int], ...] = ()
    # Of each of the 15 bins that holds pictures: mean confidence, those read right, pictures.
    reliability: tuple[tuple[float, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class NonDigitScores:
    """What was decided on one kind of non-digits."""

    name: str  # of the kind
    n: int  # pictures
    auroc: float  # the chance that a clean digit scores higher, 0 to 1
    fpr_at_95_tpr: float  # share that passes where 95 % of clean digits do, 0 to 1
    rejected: float  # share rejected, 0 to 1
    reviewed: float  # share left to review, 0 to 1
    accepted: float  # share accepted as a digit, 0 to 1
    # Why pictures were rejected, and how many for each reason.
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RobustnessReport:
    """The scores of all sets."""

    model_version: str  # which artifact was measured
    score: str  # what tells digits from non-digits, "novelty" (negated) or "confidence"
    # Clean first, then the corruptions in MNIST-C's order, then other digits.
    digits: tuple[DigitScores, ...]
    # In the order of ``non_digits.KINDS``, then photographs of paper without a digit and scenes
    # without one.
    non_digits: tuple[NonDigitScores, ...]

    @property
    def corruption_accuracy(self) -> float:
        """The mean accuracy over the corruption families, 0 to 1."""
        return float(np.mean([s.accuracy.value for s in self.digits if s.group == "corruption"]))

    def to_dict(self) -> dict[str, Any]:
        """Return the report in lists, numbers and dictionaries that ``json.dumps`` takes."""
        return {**asdict(self), "corruption_accuracy": self.corruption_accuracy}

    def table(self) -> str:
        """Return three tables for a terminal, in per cent."""
        heads = ("accuracy", "95 % interval", "ECE", "accepted", "wrong of those", "rejected")
        digits: list[tuple[str, ...]] = [("digits", "n", *heads)]
        for s in self.digits:
            name = f"{s.name} ({', '.join(map(str, s.severities))})" if s.severities else s.name
            interval = f"{100 * s.accuracy.low:.2f}\N{EN DASH}{100 * s.accuracy.high:.2f}"
            wrong = s.wrong_among_accepted
            share = "none accepted" if wrong is None else f"{100 * wrong.value:.2f}"
            parts = _percent(s.accuracy.value), interval, *_percents(s.ece, s.coverage)
            digits.append((name, f"{s.n:,}", *parts, share, _percent(s.rejected)))
        mean = _percent(self.corruption_accuracy)
        digits.append(("mean of the corruptions", "", mean, *[""] * 5))
        of_each = [("accepted, wrong of those", *map(str, range(10)))]
        of_each += [
            (s.name, *(f"{100 * a / n:.1f}, {w}" if n else "-" for n, _, a, w in s.by_digit))
            for s in self.digits
            if s.group != "corruption" and s.by_digit
        ]
        heads = ("AUROC", "FPR at 95 % TPR", "rejected", "reviewed", "accepted", "reason")
        others: list[tuple[str, ...]] = [("not digits", "n", *heads)]
        for o in self.non_digits:
            shares = _percents(o.fpr_at_95_tpr, o.rejected, o.reviewed, o.accepted)
            others.append((o.name, f"{o.n:,}", f"{o.auroc:.4f}", *shares, _main_reason(o)))
        note = (
            "Severities are in brackets. All figures but AUROC are in per cent. Digits are told "
            f"from the rest by {self.score}."
        )
        return "\n\n".join((aligned(digits), aligned(of_each), aligned(others), note))


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _percents(*shares: float) -> list[str]:
    return [_percent(share) for share in shares]


def _main_reason(scores: NonDigitScores) -> str:
    """Return the most frequent reason and its share of the rejected, in per cent."""
    if not scores.reasons:
        return ""
    reason = max(scores.reasons, key=scores.reasons.__getitem__)
    return f"{reason} {100 * scores.reasons[reason] / sum(scores.reasons.values()):.0f}"


def score_digits(
    name: str,
    group: str,
    severities: tuple[int, ...],
    answers: Sequence[Prediction],
    labels: npt.ArrayLike,
) -> DigitScores:
    """Score the answers, at least one, to labelled digits; one without ink is wrong.

    >>> import inkdigits
    >>> answers = inkdigits.load().predict_batch([np.zeros((28, 28), np.uint8)])
    >>> score_digits("blank", "other", (), answers, [7]).n_correct
    0
    """
    n, truth = len(answers), np.asarray(labels)
    right = np.array([a.digit == label for a, label in zip(answers, truth.tolist(), strict=True)])
    accepted = np.array([a.decision == "accept" for a in answers])
    n_correct, n_accepted = int(right.sum()), int(accepted.sum())
    mistaken = accepted & ~right
    curve = reliability_curve(np.array([a.probabilities for a in answers]), truth)
    n_wrong = int(mistaken.sum())
    return DigitScores(
        name=name,
        group=group,
        severities=severities,
        n=n,
        n_correct=n_correct,
        accuracy=_share(n_correct, n),
        ece=curve.ece,
        n_accepted=n_accepted,
        coverage=n_accepted / n,
        n_wrong_accepted=n_wrong,
        wrong_among_accepted=_share(n_wrong, n_accepted) if n_accepted else None,
        rejected=sum(a.decision == "reject" for a in answers) / n,
        by_digit=tuple(
            (
                int(of.sum()),
                int((of & right).sum()),
                int((of & accepted).sum()),
                int((of & mistaken).sum()),
            )
            for of in (truth == digit for digit in range(10))
        ),
        reliability=tuple(
            zip(
                curve.confidence.tolist(),
                np.rint(curve.accuracy * curve.count).astype(int).tolist(),
                curve.count.tolist(),
                strict=True,
            )
        ),
    )


def score_non_digits(
    digits: Sequence[Prediction], kinds: Mapping[str, Sequence[Prediction]]
) -> tuple[str, tuple[NonDigitScores, ...]]:
    """Score how each kind is told from digits, and what was decided.

    The score is minus the "novelty" where the reader gives one, else the "confidence"; which one
    is returned too. A picture without ink scores below everything.

    >>> import inkdigits
    >>> blank = inkdigits.load().predict_batch([np.zeros((28, 28), np.uint8)])
    >>> score_non_digits(blank, {"blank": blank})[1][0].auroc
    0.5
    """
    everything = [*digits, *(a for answers in kinds.values() for a in answers)]
    by_novelty = all(a.novelty is not None for a in everything if a.digit is not None)

    def score(answer: Prediction) -> float:
        if answer.digit is None:
            return -np.inf
        return -answer.novelty if by_novelty and answer.novelty is not None else answer.confidence

    positive = [score(a) for a in digits]
    results = []
    for name, answers in kinds.items():
        negative = [score(a) for a in answers]
        decisions = [a.decision for a in answers]
        results.append(
            NonDigitScores(
                name,
                len(answers),
                auroc(positive, negative),
                fpr_at_95_tpr(positive, negative),
                rejected=decisions.count("reject") / len(answers),
                reviewed=decisions.count("review") / len(answers),
                accepted=decisions.count("accept") / len(answers),
                reasons=dict(Counter(a.reason for a in answers if a.reason)),
            )
        )
    return "novelty" if by_novelty else "confidence", tuple(results)


def _share(successes: int, n: int) -> Estimate:
    return Estimate(successes / n, *wilson_interval(successes, n))
