"""From predictions to the figures that describe a reader; no files, no model."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from inkdigits.calibration.intervals import LEVEL, Estimate, wilson_interval
from inkdigits.calibration.scores import (
    ProbabilityScores,
    check_probabilities,
    score_probabilities,
)
from inkdigits.calibration.temperature import N_DIGITS
from inkdigits.types import Json


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Everything measured on one set of pictures."""

    n: int  # pictures
    n_correct: int  # those predicted correctly
    accuracy: Estimate  # ``n_correct / n``, 0 to 1, with its Wilson interval
    # NLL (nats), Brier (0 to 2) and both ECEs (0 to 1), with bootstrap intervals.
    scores: ProbabilityScores
    confusion: npt.NDArray[np.int64]  # (10, 10) int64, row = true digit, column = predicted digit
    # (n - n_correct,) int64 indices of the misread pictures, the most confident mistake first.
    misread: npt.NDArray[np.int64]

    def to_dict(self) -> Json:
        """Return the evaluation in lists, numbers and dictionaries that ``json.dumps`` takes."""
        return {
            "n": self.n,
            "n_correct": self.n_correct,
            "level": LEVEL,
            "accuracy": asdict(self.accuracy),
            **asdict(self.scores),
            "confusion_matrix": self.confusion.tolist(),
            "classification_report": classification_report(self.confusion),
            "misread": self.misread.tolist(),
        }

    def summary(self) -> str:
        """Return lines for a terminal that need no knowledge of the field."""

        def line(name: str, e: Estimate, unit: str, meaning: str = "", counts: str = "") -> str:
            scale, digits = (100, 2) if unit else (1, 4)
            value, low, high = (f"{scale * x:.{digits}f}" for x in (e.value, e.low, e.high))
            interval = f"{100 * LEVEL:g} % interval {low}\N{EN DASH}{high}{unit}"
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
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, writers: npt.ArrayLike | None = None
) -> Evaluation:
    """Measure a reader on pictures whose digits are known.

    The largest of the probabilities (N, 10) is the predicted digit, the lower digit in a tie. With
    ``writers`` (N,) the bootstrap draws writers instead of pictures. Errors are those of
    ``check_probabilities``.

    >>> evaluate(np.eye(10), range(10)).accuracy.value
    1.0
    """
    p, y = check_probabilities(probabilities, labels)
    predicted = p.argmax(axis=1)
    wrong = np.flatnonzero(predicted != y)
    n, n_correct = len(y), len(y) - len(wrong)
    counts = np.bincount(y * N_DIGITS + predicted, minlength=N_DIGITS * N_DIGITS)
    return Evaluation(
        n=n,
        n_correct=n_correct,
        accuracy=Estimate(n_correct / n, *wilson_interval(n_correct, n)),
        scores=score_probabilities(p, y, writers=writers),
        confusion=counts.reshape(N_DIGITS, N_DIGITS).astype(np.int64),
        misread=wrong[np.argsort(-p[wrong].max(axis=1), kind="stable")].astype(np.int64),
    )


def classification_report(confusion: npt.NDArray[np.int64]) -> Json:
    """Return precision, recall and F1 (0 to 1) of each digit, with macro and weighted means.

    A score whose denominator is 0 (a digit never predicted, or without pictures) is 0, as with
    scikit-learn's ``zero_division=0``. Rows of the (10, 10) counts are true digits.

    >>> classification_report(np.eye(10, dtype=int))["macro"]
    {'precision': 1.0, 'recall': 1.0, 'f1': 1.0, 'support': 10}
    """
    hits = np.diag(confusion).astype(np.float64)
    support, read = confusion.sum(axis=1), confusion.sum(axis=0)
    scores = {
        "precision": hits / np.maximum(read, 1),
        "recall": hits / np.maximum(support, 1),
        "f1": 2 * hits / np.maximum(support + read, 1),
    }

    def mean(weights: npt.NDArray[np.int64] | None) -> Json:
        means = {name: float(np.average(of, weights=weights)) for name, of in scores.items()}
        return {**means, "support": int(support.sum())}

    digits = [
        {**{name: float(of[d]) for name, of in scores.items()}, "support": int(support[d])}
        for d in range(N_DIGITS)
    ]
    return {"digits": digits, "macro": mean(None), "weighted": mean(support)}


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
