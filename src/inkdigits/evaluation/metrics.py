"""From predictions to the figures that describe a reader; no files, no model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inkdigits.calibration.intervals import LEVEL, N_RESAMPLES, Estimate, wilson_interval
from inkdigits.calibration.scores import (
    ProbabilityScores,
    check_probabilities,
    score_probabilities,
)
from inkdigits.calibration.temperature import N_DIGITS, check_labels
from inkdigits.errors import DataError


def confusion_matrix(labels: npt.ArrayLike, predicted: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return (10, 10) int64 counts: row = true digit, column = predicted digit.

    Both are (N,) integers from 0 to 9, N at least 1; anything else raises a DataError.

    >>> confusion_matrix([4, 4], [4, 9])[4].tolist()
    [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    """
    n = np.size(labels)
    if n == 0:
        raise DataError("labels are empty: at least one picture is needed")
    true, read = check_labels(labels, n), check_labels(predicted, n)
    counts = np.bincount(true * N_DIGITS + read, minlength=N_DIGITS * N_DIGITS)
    return counts.reshape(N_DIGITS, N_DIGITS).astype(np.int64)


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Precision, recall and F1 (0 to 1) of a digit or a mean, and its number of pictures."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class ClassificationReport:
    """Scores digit by digit, with their means."""

    digits: tuple[ClassScores, ...]  # ten scores, index = digit
    macro: ClassScores  # plain means over the ten digits
    weighted: ClassScores  # means weighted by support

    def __str__(self) -> str:
        """Return a table for a terminal, percentages with two decimals."""
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
    """Return precision, recall and F1 of each digit, with macro and weighted means.

    Precision is TP / (TP + FP), recall TP / (TP + FN), F1 their harmonic mean. A score whose
    denominator is 0 (a digit never predicted, or without pictures) is 0, as with scikit-learn's
    ``zero_division=0``. Arguments and errors are those of ``confusion_matrix``.

    >>> classification_report([4, 4], [4, 9]).digits[4].recall
    0.5
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
    """Everything measured on one set of pictures."""

    n: int  # pictures
    n_correct: int  # those predicted correctly
    accuracy: Estimate  # ``n_correct / n``, 0 to 1, with its Wilson interval
    # NLL (nats), Brier (0 to 2) and both ECEs (0 to 1), with bootstrap intervals.
    scores: ProbabilityScores
    level: float  # of every interval here, for example 0.95
    confusion: npt.NDArray[np.int64]  # (10, 10) int64, row = true digit, column = predicted digit
    report: ClassificationReport  # precision, recall and F1
    # (n - n_correct,) int64 indices of the misread pictures, the most confident mistake first.
    misread: npt.NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation in lists, numbers and dictionaries that ``json.dumps`` takes."""
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
        """Return lines for a terminal that need no knowledge of the field."""

        def line(name: str, e: Estimate, unit: str, meaning: str = "", counts: str = "") -> str:
            scale, digits = (100, 2) if unit else (1, 4)
            value, low, high = (f"{scale * x:.{digits}f}" for x in (e.value, e.low, e.high))
            interval = f"{100 * self.level:g} % interval {low}\N{EN DASH}{high}{unit}"
            return f"{name:<15}{value}{unit} ({counts}{interval}){meaning}"

        s, counts = self.scores, f"{self.n_correct:,} of {self.n:,}; "
        difference = ": the difference between confidence and accuracy; 0 is best"
        penalty = ": the penalty for doubting the right digit; 0 is best"
        squares = ": squared error of the probabilities, 0 to 2; 0 is best"
        return "\n".join(
            (
                line("accuracy", self.accuracy, " %", counts=counts),
                line("ECE", s.ece, " %", difference),
                line("ECE, adaptive", s.ece_adaptive, " %", ": the same, in bins of equal size"),
                line("NLL", s.nll, "", penalty),
                line("Brier score", s.brier, "", squares),
            )
        )


def evaluate(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    n_resamples: int = N_RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    writers: npt.ArrayLike | None = None,
) -> Evaluation:
    """Measure a reader on pictures whose digits are known.

    The largest of the probabilities (N, 10) is the predicted digit, the lower digit in a tie.
    ``n_resamples`` and ``seed`` are the bootstrap's, and ``level`` is that of every interval. With
    ``writers`` (N,) the bootstrap draws writers instead of pictures.

    Raises:
        DataError: invalid shapes or values.
        ConfigError: a level outside (0, 1), or no resamples.

    >>> evaluate(np.eye(10), range(10), n_resamples=10).accuracy.value
    1.0
    """
    p, y = check_probabilities(probabilities, labels)
    predicted = p.argmax(axis=1)
    wrong = np.flatnonzero(predicted != y)
    n, n_correct = len(y), len(y) - len(wrong)
    return Evaluation(
        n=n,
        n_correct=n_correct,
        accuracy=Estimate(n_correct / n, *wilson_interval(n_correct, n, level)),
        scores=score_probabilities(
            p, y, n_resamples=n_resamples, level=level, seed=seed, writers=writers
        ),
        level=level,
        confusion=confusion_matrix(y, predicted),
        report=classification_report(y, predicted),
        misread=wrong[np.argsort(-p[wrong].max(axis=1), kind="stable")].astype(np.int64),
    )


def suspect_labels(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the indices of labels that are likely wrong, the least plausible first.

    Confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in
    Dataset Labels", JAIR 70, 2021): a digit is confidently read if its probability is at least the
    mean that pictures with that label have. A label is suspect if another digit than it is.

    ``probabilities`` (N, 10) are of a model that has not learned from the pictures; errors are
    those of ``check_probabilities``.

    >>> suspect_labels(np.eye(10)[[1, 7, 7, 1]], [1, 7, 1, 1]).tolist()
    [2]
    """
    p, y = check_probabilities(probabilities, labels)
    own = p[np.arange(len(y)), y]
    # A digit that nothing is labelled as is confidently read from the mean of all.
    limits = np.array([own[y == d].mean() if (y == d).any() else own.mean() for d in range(10)])
    confident = np.where(p >= limits, p, 0.0)
    other = confident.argmax(axis=1)
    suspect = np.flatnonzero((confident.max(axis=1) > 0) & (other != y))
    return suspect[np.argsort(own[suspect], kind="stable")].astype(np.int64)
