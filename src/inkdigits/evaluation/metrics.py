"""From predictions to the figures that describe a reader. Pure: no files, no model. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inkdigits.calibration.intervals import LEVEL, Estimate, wilson_interval
from inkdigits.calibration.scores import (
    N_DIGITS,
    N_RESAMPLES,
    ProbabilityScores,
    check_labels,
    check_probabilities,
    score_probabilities,
)
from inkdigits.errors import DataError


def confusion_matrix(labels: npt.ArrayLike, predicted: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """How often each digit was read as each digit.

    Args:
        labels: (N,) integers from 0 to 9, N at least 1.
        predicted: (N,) integers from 0 to 9.

    Returns:
        (10, 10) int64: row = true digit, column = digit read.

    Raises:
        DataError: shapes or values that can't be.
    """
    n = np.size(labels)
    if n == 0:
        raise DataError("labels are empty: at least one picture is needed")
    true, read = check_labels(labels, n), check_labels(predicted, n)
    counts = np.bincount(true * N_DIGITS + read, minlength=N_DIGITS * N_DIGITS)
    return counts.reshape(N_DIGITS, N_DIGITS).astype(np.int64)


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Precision, recall and F1 (0 to 1) of a digit or an average, and its number of pictures."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class ClassificationReport:
    """Scores digit by digit, with their averages.

    Attributes:
        digits: ten scores, index = digit.
        macro: plain means over the ten digits.
        weighted: means weighted by support.
    """

    digits: tuple[ClassScores, ...]
    macro: ClassScores
    weighted: ClassScores

    def __str__(self) -> str:
        """The report as a table for a terminal, percentages with two decimals."""
        rows = [(str(digit), scores) for digit, scores in enumerate(self.digits)]
        rows += [("macro mean", self.macro), ("weighted mean", self.weighted)]
        lines = [f"{'digit':>13}  {'precision':>9}  {'recall':>8}  {'F1':>8}  {'pictures':>8}"]
        lines += [
            f"{name:>13}  {100 * s.precision:>7.2f} %  {100 * s.recall:>6.2f} %"
            f"  {100 * s.f1:>6.2f} %  {s.support:>8,}"
            for name, s in rows
        ]
        return "\n".join(lines)


def classification_report(labels: npt.ArrayLike, predicted: npt.ArrayLike) -> ClassificationReport:
    """Precision, recall and F1 of each digit, with macro and weighted means.

    Precision is TP / (TP + FP), recall TP / (TP + FN), F1 their harmonic mean. Where a
    denominator is 0 (a digit never read, or of which there is no picture) the score is 0, as with
    scikit-learn's ``zero_division=0``. Arguments and errors as in ``confusion_matrix``.
    """
    matrix = confusion_matrix(labels, predicted)
    hits = np.diag(matrix).astype(np.float64)
    support, read = matrix.sum(axis=1), matrix.sum(axis=0)
    precision = hits / np.maximum(read, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + read, 1)
    total = int(support.sum())

    def mean(weights: npt.NDArray[np.int64] | None) -> ClassScores:
        p, r, f = (float(np.average(values, weights=weights)) for values in (precision, recall, f1))
        return ClassScores(p, r, f, total)

    return ClassificationReport(
        digits=tuple(
            ClassScores(float(p), float(r), float(f), int(s))
            for p, r, f, s in zip(precision, recall, f1, support, strict=True)
        ),
        macro=mean(None),
        weighted=mean(support),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Everything measured on one set of pictures.

    Attributes:
        n: pictures.
        n_correct: those read right.
        accuracy: ``n_correct / n``, 0 to 1, with its Wilson interval.
        scores: NLL (nats), Brier (0 to 2) and both ECEs (0 to 1), with bootstrap intervals.
        level: of every interval here, for example 0.95.
        confusion: (10, 10) int64, row = true digit, column = digit read.
        report: precision, recall and F1.
        misread: (n - n_correct,) int64 indices of the pictures read wrong, the most confident
            mistake first.
    """

    n: int
    n_correct: int
    accuracy: Estimate
    scores: ProbabilityScores
    level: float
    confusion: npt.NDArray[np.int64]
    report: ClassificationReport
    misread: npt.NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """The same, nested, in lists, numbers and dictionaries that ``json.dumps`` takes."""
        return {
            "n": self.n,
            "n_correct": self.n_correct,
            "level": self.level,
            "accuracy": asdict(self.accuracy),
            **asdict(self.scores),
            "confusion_matrix": self.confusion.tolist(),
            "classification_report": asdict(self.report),
            "misread": self.misread.tolist(),
        }

    def summary(self) -> str:
        """Lines for a terminal that need no knowledge of the field."""
        s = self.scores
        interval = f"{100 * self.level:g} % interval"
        accuracy = _span(self.accuracy, scale=100, digits=2)
        rows: Sequence[tuple[str, str]] = (
            (
                "accuracy",
                f"{100 * self.accuracy.value:.2f} % ({self.n_correct:,} of {self.n:,}; "
                f"{interval} {accuracy} %)",
            ),
            (
                "ECE",
                f"{100 * s.ece.value:.2f} % ({interval} {_span(s.ece, scale=100, digits=2)} %): "
                "how far confidence and accuracy lie apart; 0 is best",
            ),
            (
                "ECE, adaptive",
                f"{100 * s.ece_adaptive.value:.2f} % ({interval} "
                f"{_span(s.ece_adaptive, scale=100, digits=2)} %): the same, in bins of equal size",
            ),
            (
                "NLL",
                f"{s.nll.value:.4f} ({interval} {_span(s.nll, scale=1, digits=4)}): "
                "the penalty for doubting the right digit; 0 is best",
            ),
            (
                "Brier score",
                f"{s.brier.value:.4f} ({interval} {_span(s.brier, scale=1, digits=4)}): "
                "squared error of the probabilities, 0 to 2; 0 is best",
            ),
        )
        return "\n".join(f"{name:<15}{text}" for name, text in rows)


def evaluate(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    n_resamples: int = N_RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Evaluation:
    """Measure a reader on pictures whose digits are known.

    Args:
        probabilities: (N, 10) calibrated, rows summing to 1; the largest is the digit read, the
            lower digit in a tie.
        labels: (N,) integers from 0 to 9.
        n_resamples: bootstrap resamples behind the intervals of the scores.
        level: of every interval, between 0 and 1.
        seed: of the bootstrap.

    Raises:
        DataError: shapes or values that can't be.
        ConfigError: a level outside (0, 1), or no resamples.
    """
    p, y = check_probabilities(probabilities, labels)
    predicted = p.argmax(axis=1)
    wrong = np.flatnonzero(predicted != y)
    n, n_correct = len(y), len(y) - len(wrong)
    return Evaluation(
        n=n,
        n_correct=n_correct,
        accuracy=Estimate(n_correct / n, *wilson_interval(n_correct, n, level)),
        scores=score_probabilities(p, y, n_resamples=n_resamples, level=level, seed=seed),
        level=level,
        confusion=confusion_matrix(y, predicted),
        report=classification_report(y, predicted),
        misread=wrong[np.argsort(-p[wrong].max(axis=1), kind="stable")].astype(np.int64),
    )


def _span(estimate: Estimate, *, scale: float, digits: int) -> str:
    low, high = scale * estimate.low, scale * estimate.high
    return f"{low:.{digits}f}\N{EN DASH}{high:.{digits}f}"
