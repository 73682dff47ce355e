"""How a reader holds up beyond clean MNIST: corruptions, other hands, and what isn't a digit.

Every picture is encoded and goes through ``DigitReader.predict_batch``, as a user's would. The
figures say what was measured on: MNIST's digits that are handed in, corrupted as MNIST-C does, and
photographed by code, alone and in scenes; digits drawn by code; scikit-learn's; and non-digits made
by code, letters and symbols from fonts that are held back from training. Photographs, strokes,
blanks, scribbles, noise and textures come from the generators that training uses, with other
seeds; nothing is trained on scenes.
"""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from inkdigits.calibration.intervals import Estimate, wilson_interval
from inkdigits.calibration.scores import check_labels, expected_calibration_error
from inkdigits.data.corruptions import FAMILIES, MNIST_C_SEVERITY, corrupt
from inkdigits.data.fonts import Part, find_fonts
from inkdigits.data.non_digits import KINDS, Sources, make_non_digits
from inkdigits.data.pen_strokes import draw_digits
from inkdigits.data.photos import photograph, photograph_paper
from inkdigits.data.scenes import photograph_scenes
from inkdigits.decision.prediction import Prediction
from inkdigits.errors import DataError
from inkdigits.evaluation.ood_metrics import auroc, fpr_at_tpr
from inkdigits.ink.png import encode_png
from inkdigits.reader import Reader
from inkdigits.types import Labels, Pixels

PER_FAMILY = 1000
SEED = 20261124
# Pictures that are made, encoded and read at once: a large one takes 490 kB.
CHUNK = 500
PAPER = "photographed_paper"
SCENES = "scenes"
EMPTY_SCENES = "empty_scenes"


@dataclass(frozen=True, slots=True)
class DigitScores:
    """What was read of one set of digits.

    Attributes:
        name: of the set.
        group: "clean", "corruption" or "other".
        severities: of the corruption; empty where there is none.
        n: pictures; over all severities.
        n_correct: those read right.
        accuracy: 0 to 1, with its 95 % Wilson interval.
        ece: expected calibration error in 15 bins, 0 to 1; a picture in which no ink was found
            counts as 10 % for each digit.
        n_accepted: those accepted without review.
        coverage: ``n_accepted / n``.
        n_wrong_accepted: those accepted and read wrong.
        wrong_among_accepted: 0 to 1, with its 95 % Wilson interval; None where none is accepted.
        rejected: share rejected, 0 to 1.
    """

    name: str
    group: str
    severities: tuple[int, ...]
    n: int
    n_correct: int
    accuracy: Estimate
    ece: float
    n_accepted: int
    coverage: float
    n_wrong_accepted: int
    wrong_among_accepted: Estimate | None
    rejected: float


@dataclass(frozen=True, slots=True)
class RefusalScores:
    """What became of one kind of pictures that aren't a digit.

    Attributes:
        name: of the kind.
        n: pictures.
        auroc: the chance that a clean digit scores higher, 0 to 1.
        fpr_at_95_tpr: share that passes where 95 % of clean digits do, 0 to 1.
        rejected: share rejected, 0 to 1.
        reviewed: share left to somebody's review, 0 to 1.
        accepted: share accepted as a digit, 0 to 1.
    """

    name: str
    n: int
    auroc: float
    fpr_at_95_tpr: float
    rejected: float
    reviewed: float
    accepted: float


@dataclass(frozen=True, slots=True)
class RobustnessReport:
    """All sets together.

    Attributes:
        model_version: which artifact was measured.
        score: what refusal was scored by, "novelty" (negated) or "confidence".
        digits: clean first, then the corruptions in MNIST-C's order, then other hands.
        refusals: in the order of ``nondigits.KINDS``, then photographs of paper without a digit and
            scenes without one.
    """

    model_version: str
    score: str
    digits: tuple[DigitScores, ...]
    refusals: tuple[RefusalScores, ...]

    @property
    def corruption_accuracy(self) -> float:
        """Mean accuracy of the corruption families, 0 to 1."""
        return float(np.mean([s.accuracy.value for s in self.digits if s.group == "corruption"]))

    def to_dict(self) -> dict[str, Any]:
        """The same, nested, in lists, numbers and dictionaries that ``json.dumps`` takes."""
        return {**asdict(self), "corruption_accuracy": self.corruption_accuracy}

    def table(self) -> str:
        """Both tables for a terminal, in per cent."""
        lines = [
            f"{'digits':<26}{'n':>7}  accuracy  95 % interval      ECE  accepted  "
            "wrong of those  rejected"
        ]
        for s in self.digits:
            name = f"{s.name} ({_listed(s.severities)})" if s.severities else s.name
            interval = f"{100 * s.accuracy.low:.2f}\N{EN DASH}{100 * s.accuracy.high:.2f}"
            wrong = s.wrong_among_accepted
            share = "none accepted" if wrong is None else f"{100 * wrong.value:.2f}"
            lines.append(
                f"{name:<26}{s.n:>7,}  {100 * s.accuracy.value:>8.2f}  {interval:<13}  "
                f"{100 * s.ece:>7.2f}  {100 * s.coverage:>8.2f}  {share:>14}  "
                f"{100 * s.rejected:>8.2f}"
            )
        lines += [
            f"{'mean of the corruptions':<33}  {100 * self.corruption_accuracy:>8.2f}",
            "",
            f"{'not digits':<26}{'n':>7}     AUROC  FPR at 95 % TPR  rejected  reviewed  accepted",
        ]
        lines += [
            f"{r.name:<26}{r.n:>7,}  {r.auroc:>8.4f}  {100 * r.fpr_at_95_tpr:>15.2f}  "
            f"{100 * r.rejected:>8.2f}  {100 * r.reviewed:>8.2f}  {100 * r.accepted:>8.2f}"
            for r in self.refusals
        ]
        lines += [
            "",
            f"Severities in brackets. All in per cent but AUROC. Digits are told from the rest by "
            f"{self.score}.",
        ]
        return "\n".join(lines)


def measure_robustness(
    reader: Reader,
    inks: Pixels,
    labels: npt.ArrayLike,
    *,
    per_family: int = PER_FAMILY,
    severities: Sequence[int] | None = None,
    fonts: Part = "held_back",
    seed: int = SEED,
    report: Callable[[str], None] = lambda _: None,
) -> RobustnessReport:
    """Read every set and every kind once.

    Args:
        reader: what is measured.
        inks: (N, 28, 28) uint8 digits that training hasn't seen.
        labels: (N,) their digits, 0 to 9.
        per_family: pictures of each set, kind and severity at most, but for the clean digits,
            which are all read. Those to corrupt are drawn once, without replacement, and each
            corruption gets the same ones.
        severities: of each corruption, whose results are pooled; None is MNIST-C's own of each.
        fonts: the part that letters and symbols are rendered from.
        seed: the same one gives the same pictures.
        report: told in a line what comes next.

    Raises:
        DataError: pictures or labels that can't be; ``per_family`` below 1; no fonts.
        ConfigError: an unknown severity.
    """
    if inks.ndim != 3 or inks.shape[1:] != (28, 28) or not len(inks):
        raise DataError(f"inks must be (N, 28, 28) with N at least 1; this is {inks.shape}")
    known = check_labels(labels, len(inks))
    if per_family < 1 or (severities is not None and not severities):
        raise DataError("per_family must be at least 1, and severities not empty")
    sources = Sources(find_fonts(fonts), inks)
    chosen = _rng(seed, "digits").permutation(len(inks))[:per_family]
    clean, truth = inks[chosen], known[chosen]

    report(f"clean: {len(inks):,} digits")
    clean_answers = _read(reader, inks)
    sets = [score_digits("clean", "clean", (), clean_answers, known)]
    for family in FAMILIES:
        levels = (MNIST_C_SEVERITY[family],) if severities is None else tuple(severities)
        report(f"{family}: {len(clean):,} digits in severity {_listed(levels)}")
        answers: list[Prediction] = []
        for level in levels:
            changed = corrupt(clean, family, level, _rng(seed, f"{family} {level}"))
            answers += _read(reader, changed)
        repeated = np.tile(truth, len(levels))
        sets.append(score_digits(family, "corruption", levels, answers, repeated))
    report(f"photographs: {len(clean):,} digits")
    answers = _read_photographs(reader, photograph, clean, _rng(seed, "photographs"))
    sets.append(score_digits("photographs", "other", (), answers, truth))
    report(f"{SCENES}: {len(clean):,} digits")
    answers = _read_photographs(reader, photograph_scenes, clean, _rng(seed, SCENES))
    sets.append(score_digits(SCENES, "other", (), answers, truth))
    report(f"pen strokes: {per_family:,} digits")
    answers, drawn = _read_strokes(reader, per_family, _rng(seed, "strokes"))
    sets.append(score_digits("pen strokes", "other", (), answers, drawn))
    if importlib.util.find_spec("sklearn") is not None:
        pictures, written = _scikit_learn_digits(per_family, _rng(seed, "scikit-learn"))
        report(f"scikit-learn's digits: {len(pictures):,} digits")
        answers = _read(reader, pictures)
        sets.append(score_digits("scikit-learn's digits", "other", (), answers, written))
    kinds: dict[str, list[Prediction]] = {}
    for kind in KINDS:
        report(f"{kind}: {per_family:,} pictures to refuse")
        rng, kinds[kind] = _rng(seed, kind), []
        for size in _chunks(per_family):
            kinds[kind] += _read(reader, make_non_digits(kind, size, rng, sources))
    report(f"{PAPER}: {per_family:,} pictures to refuse")
    rng, kinds[PAPER] = _rng(seed, PAPER), []
    for size in _chunks(per_family):
        kinds[PAPER] += _read(reader, photograph_paper(size, rng))
    report(f"{EMPTY_SCENES}: {per_family:,} pictures to refuse")
    nothing = np.zeros((per_family, 28, 28), dtype=np.uint8)
    rng = _rng(seed, EMPTY_SCENES)
    kinds[EMPTY_SCENES] = _read_photographs(reader, photograph_scenes, nothing, rng)
    score, refusals = score_refusals(clean_answers, kinds)
    return RobustnessReport(reader.model_version, score, tuple(sets), refusals)


def score_digits(
    name: str,
    group: str,
    severities: tuple[int, ...],
    answers: Sequence[Prediction],
    labels: npt.ArrayLike,
) -> DigitScores:
    """Score what was read of labelled digits; reading nothing is wrong.

    Raises:
        DataError: no answers, or labels that don't belong to them.
    """
    n = len(answers)
    if not n:
        raise DataError(f"{name} holds no pictures")
    truth = check_labels(labels, n)
    right = np.array([a.digit == label for a, label in zip(answers, truth.tolist(), strict=True)])
    accepted = np.array([a.decision == "accept" for a in answers])
    shares = np.array([a.probabilities for a in answers])
    n_correct, n_accepted = int(right.sum()), int(accepted.sum())
    n_wrong = int((accepted & ~right).sum())
    return DigitScores(
        name=name,
        group=group,
        severities=severities,
        n=n,
        n_correct=n_correct,
        accuracy=_share(n_correct, n),
        ece=expected_calibration_error(shares, truth),
        n_accepted=n_accepted,
        coverage=n_accepted / n,
        n_wrong_accepted=n_wrong,
        wrong_among_accepted=_share(n_wrong, n_accepted) if n_accepted else None,
        rejected=sum(a.decision == "reject" for a in answers) / n,
    )


def score_refusals(
    digits: Sequence[Prediction], kinds: dict[str, list[Prediction]]
) -> tuple[str, tuple[RefusalScores, ...]]:
    """How each kind is told from digits, and what was decided.

    The score is minus the novelty where the reader gives one, else the confidence. A picture
    without ink scores below everything.

    Returns:
        "novelty" or "confidence", and the scores in the order of ``kinds``.

    Raises:
        DataError: no digits, or a kind without pictures.
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
        area, passed = auroc(positive, negative), fpr_at_tpr(positive, negative)
        decisions = [a.decision for a in answers]
        rejected, reviewed, accepted = (
            decisions.count(d) / len(answers) for d in ("reject", "review", "accept")
        )
        results.append(
            RefusalScores(name, len(answers), area, passed, rejected, reviewed, accepted)
        )
    return "novelty" if by_novelty else "confidence", tuple(results)


def _read(reader: Reader, pictures: Sequence[Pixels] | Pixels) -> list[Prediction]:
    """Answers to pictures sent as PNG files."""
    answers: list[Prediction] = []
    for start in range(0, len(pictures), CHUNK):
        answers += reader.predict_batch(
            [encode_png(p, compress_level=1) for p in pictures[start : start + CHUNK]]
        )
    return answers


def _read_photographs(
    reader: Reader,
    take: Callable[[Pixels, np.random.Generator], list[Pixels]],
    inks: Pixels,
    rng: np.random.Generator,
) -> list[Prediction]:
    answers: list[Prediction] = []
    for start in range(0, len(inks), CHUNK):
        answers += _read(reader, take(inks[start : start + CHUNK], rng))
    return answers


def _read_strokes(
    reader: Reader, n: int, rng: np.random.Generator
) -> tuple[list[Prediction], Labels]:
    answers: list[Prediction] = []
    labels = []
    for size in _chunks(n):
        pictures, drawn = draw_digits(size, rng)
        answers += _read(reader, pictures)
        labels.append(drawn)
    return answers, np.concatenate(labels)


def _scikit_learn_digits(n: int, rng: np.random.Generator) -> tuple[list[Pixels], Labels]:
    """At most n of 1,797 digits by Turkish writers, 8x8 in 17 shades, ten times enlarged."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    # They are in the order of their writers, so that the first n would be of a few hands.
    chosen = rng.permutation(len(bundle.target))[:n]
    grey = np.rint(bundle.images[chosen] * (255 / 16)).astype(np.uint8)
    enlarged = [
        np.asarray(Image.fromarray(g).resize((80, 80), Image.Resampling.BICUBIC)) for g in grey
    ]
    return enlarged, bundle.target[chosen].astype(np.int64)


def _chunks(n: int) -> list[int]:
    """Sizes of parts of n pictures, so that never more are held in memory."""
    return [min(CHUNK, n - start) for start in range(0, n, CHUNK)]


def _rng(seed: int, name: str) -> np.random.Generator:
    """Each set's own randomness: leaving one out doesn't change the next."""
    return np.random.default_rng((seed, zlib.crc32(name.encode())))


def _share(successes: int, n: int) -> Estimate:
    return Estimate(successes / n, *wilson_interval(successes, n))


def _listed(severities: Sequence[int]) -> str:
    return ", ".join(map(str, severities))
