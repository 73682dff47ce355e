"""Which novelty score tells digits from the rest, and what each costs: a table. NumPy only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from inkdigits.decision.ood import (
    Method,
    NoveltyScorer,
    auroc,
    fit,
    reject_threshold,
    stratified_sample,
)
from inkdigits.types import Ink

Answer: TypeAlias = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]

# Digits that "mahalanobis" is fitted to: the covariance of 128 features needs some thousands.
_FITTED_TO = 10_000
_REPEATS = 200


@dataclass(frozen=True, slots=True)
class NoveltyRow:
    """One method's figures.

    Attributes:
        method: see ``NoveltyScorer.score``.
        auroc: of each family of non-digits, 0 to 1.
        refused: share of each family above the threshold for digits, 0 to 1.
        digits_refused: share of the digits above it, 0 to 1.
        cost: time of scoring one picture as a share of the network's time for it.
    """

    method: Method
    auroc: Mapping[str, float]
    refused: Mapping[str, float]
    digits_refused: float
    cost: float

    @property
    def mean_auroc(self) -> float:
        """The mean over the families, each counting the same."""
        return float(np.mean(list(self.auroc.values())))


def compare(
    answer: Callable[[Ink], Answer],
    train: tuple[Ink, npt.NDArray[np.integer]],
    thresholds_from: Ink,
    digits: Ink,
    others: Mapping[str, Ink],
) -> list[NoveltyRow]:
    """Score digits and non-digits by every method.

    Args:
        answer: (N, 28, 28) uint8 ink to logits and features, such as ``DigitReader.answer``.
        train: (N, 28, 28) inks and (N,) labels that trained the network, to fit the scorers to.
        thresholds_from: inks of other digits, which set each method's threshold.
        digits: inks of further digits, which are measured.
        others: inks of what isn't a digit, by family; at least one.

    Returns:
        A row a method, the best mean AUROC first.
    """
    inks, labels = train
    chosen = stratified_sample(labels, _FITTED_TO)
    features = answer(inks[chosen])[1]
    held, measured = answer(thresholds_from), answer(digits)
    answers = {name: answer(family) for name, family in others.items()}
    pass_seconds = _seconds(lambda: answer(digits[:1]))
    rows = []
    for method in get_args(Method):
        scorer = fit(features, labels[chosen], method)
        limit = reject_threshold(scorer.score(*held))
        limit = np.inf if limit is None else limit
        of_digits = scorer.score(*measured)
        of_others = {name: scorer.score(*found) for name, found in answers.items()}
        rows.append(
            NoveltyRow(
                method=method,
                auroc={name: auroc(of_digits, scores) for name, scores in of_others.items()},
                refused={name: float((s > limit).mean()) for name, s in of_others.items()},
                digits_refused=float((of_digits > limit).mean()),
                cost=_scoring_seconds(scorer, measured) / pass_seconds,
            )
        )
    return sorted(rows, key=lambda row: -row.mean_auroc)


def table(rows: list[NoveltyRow]) -> str:
    """The rows as Markdown: AUROC and, after the stroke, the share refused in percent."""
    families = list(rows[0].auroc)
    lines = [
        f"| Method | {' | '.join(families)} | Mean AUROC | Digits refused | Cost |",
        f"|---|{'---:|' * (len(families) + 3)}",
    ]
    for row in rows:
        cells = [f"{row.auroc[name]:.4f} / {100 * row.refused[name]:.1f} %" for name in families]
        lines.append(
            f"| {row.method} | {' | '.join(cells)} | {row.mean_auroc:.4f} | "
            f"{100 * row.digits_refused:.2f} % | {100 * row.cost:.1f} % |"
        )
    return "\n".join(lines)


def _scoring_seconds(scorer: NoveltyScorer, answers: Answer) -> float:
    logits, features = (part[:1] for part in answers)
    return _seconds(lambda: scorer.score(logits, features))


def _seconds(call: Callable[[], object]) -> float:
    """The median of many calls, which other work on the machine disturbs least."""
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return float(np.median(times))
