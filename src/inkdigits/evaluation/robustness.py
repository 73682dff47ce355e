"""How a reader performs beyond clean MNIST: corruptions, other handwriting, and non-digits.

Every picture is encoded and goes through ``DigitReader.predict_batch``, as a user's would. The
digits are the given ones, corrupted as in MNIST-C and photographed by code, alone and in scenes;
cut off, framed or tiny (``probes``); digits drawn by code; and other hands'. The non-digits are
made by code, with letters and symbols from fonts, and letters as if by hand from scripts, that are
held back from training. Training uses the same generators with other seeds, but not the probes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits

from inkdigits.data.corruptions import FAMILIES, MNIST_C_SEVERITY, corrupt
from inkdigits.data.fonts import find_fonts
from inkdigits.data.hands import Hands
from inkdigits.data.letters import scripts_of
from inkdigits.data.mnist import FIRST_PUPIL
from inkdigits.data.non_digits import KINDS, make_non_digits
from inkdigits.data.pictures.foreground import Sources
from inkdigits.data.pictures.pairs import Look, make_pair
from inkdigits.decision.prediction import Prediction, Reader
from inkdigits.evaluation.probes import (
    ONES,
    digit_makers,
    draw_ones,
    empty_makers,
    several_makers,
)
from inkdigits.evaluation.robustness_report import (
    DigitScores,
    RobustnessReport,
    score_digits,
    score_non_digits,
)
from inkdigits.ink.png import encode_png
from inkdigits.types import Ink, Labels, Pixels, Report, Rng

Pictures: TypeAlias = "Sequence[Pixels] | Pixels"

PER_FAMILY = 1000
SEED = 20261124
# Pictures of 1.5 megapixels that are read at most.
_LARGE_ONES = 200
# Pictures that are made, encoded and read at once: a large one takes 490 kB.
_BATCH_SIZE = 500


def measure_robustness(
    reader: Reader,
    inks: Ink,
    labels: npt.ArrayLike,
    *,
    per_family: int = PER_FAMILY,
    severities: Sequence[int] | None = None,
    seed: int = SEED,
    writers: npt.ArrayLike | None = None,
    hands: Hands | None = None,
    report: Report = lambda _: None,
) -> RobustnessReport:
    """Read every set of digits and every kind of non-digits once.

    The inks (N, 28, 28) are digits that training has not seen, and the labels (N,) 0 to 9. At most
    ``per_family`` pictures of each set, kind and severity are read, and all clean digits. Results
    of several ``severities`` of a corruption are pooled; None is MNIST-C's own of each. ``writers``
    (N,) tell census clerks' digits from pupils', and ``hands`` are other hands' that trained
    nothing. ``report`` is called with a line that says what comes next.

    >>> import inkdigits
    >>> inks = np.zeros((1, 28, 28), np.uint8)
    >>> inks[:, 4:24, 8:20] = np.eye(20, 12, dtype=np.uint8) * 255
    >>> measure_robustness(inkdigits.load(), inks, [1], per_family=1).digits[0].name
    'clean'
    """
    clean, truth = _sample(inks, labels, per_family, seed)
    sources = Sources(
        inks,
        np.asarray(labels),
        find_fonts("held_back"),
        script_fonts=find_fonts(latin=False),
        scripts=scripts_of("held_back"),
    )
    report(f"clean: {len(inks):,} digits")
    clean_answers = _read(reader, [inks])
    digits = [score_digits("clean", "clean", (), clean_answers, labels)]
    digits += _by_group(clean_answers, labels, writers)
    settings: dict[str, Any] = {"per_family": per_family, "severities": severities, "seed": seed}
    digits += measure_corruptions(reader, inks, labels, **settings, report=report)
    others = _other_digits(clean, truth, per_family, hands or Hands(), seed)
    for name, written, batches in chain(others, _probes(clean, truth, per_family, seed)):
        report(f"{name}: {len(written):,} digits")
        digits.append(score_digits(name, "other", (), _read(reader, batches), written))
    kinds = {}
    for kind, batches in _non_digits(per_family, sources, seed):
        report(f"{kind}: {per_family:,} pictures to reject")
        kinds[kind] = _read(reader, batches)
    score, non_digits = score_non_digits(clean_answers, kinds)
    return RobustnessReport(reader.model_version, score, tuple(digits), non_digits)


def measure_corruptions(
    reader: Reader,
    inks: Ink,
    labels: npt.ArrayLike,
    *,
    per_family: int = PER_FAMILY,
    severities: Sequence[int] | None = None,
    seed: int = SEED,
    report: Report = lambda _: None,
) -> tuple[DigitScores, ...]:
    """Read digits with each corruption; arguments are those of ``measure_robustness``.

    The digits are drawn once, without replacement, and each corruption gets the same ones.

    >>> import inkdigits
    >>> reader, ink = inkdigits.load(), np.zeros((1, 28, 28), np.uint8)
    >>> len(measure_corruptions(reader, ink, [1], severities=(1,)))
    15
    """
    clean, truth = _sample(inks, labels, per_family, seed)
    scores = []
    for family in FAMILIES:
        levels = (MNIST_C_SEVERITY[family],) if severities is None else tuple(severities)
        listed = ", ".join(map(str, levels))
        report(f"{family}: {len(clean):,} digits in severity {listed}")
        corrupted = [corrupt(clean, family, s, _rng(seed, f"{family} {s}")) for s in levels]
        answers, repeated = _read(reader, corrupted), np.tile(truth, len(levels))
        scores.append(score_digits(family, "corruption", levels, answers, repeated))
    return tuple(scores)


def _by_group(
    answers: Sequence[Prediction], labels: npt.ArrayLike, writers: npt.ArrayLike | None
) -> list[DigitScores]:
    """Score clerks and pupils apart, where it is known who wrote what."""
    if writers is None:
        return []
    pupils, truth = np.asarray(writers) >= FIRST_PUPIL, np.asarray(labels)
    groups = {"census clerks": np.flatnonzero(~pupils), "school pupils": np.flatnonzero(pupils)}
    return [
        score_digits(name, "other", (), [answers[i] for i in of.tolist()], truth[of])
        for name, of in groups.items()
        if len(of)
    ]


def _sample(inks: Ink, labels: npt.ArrayLike, per_family: int, seed: int) -> tuple[Ink, Labels]:
    """Draw the digits that are changed."""
    chosen = _rng(seed, "digits").permutation(len(inks))[:per_family]
    return inks[chosen], np.asarray(labels)[chosen]


def _other_digits(
    inks: Ink, labels: Labels, n: int, hands: Hands, seed: int
) -> Iterator[tuple[str, Labels, Iterable[Pictures]]]:
    """Yield the name, labels and batches of each set that is neither clean nor MNIST-C's."""
    fonts = find_fonts("held_back")
    given = Sources(inks, labels, fonts, styles=False)
    strokes = Hands(hands.strokes, hands.stroke_labels, hands.stroke_writers)
    bitmaps = Hands(bitmaps=hands.bitmaps, bitmap_labels=hands.bitmap_labels)
    sets: dict[str, tuple[Sources, Look]] = {
        "photographs": (given, "paper"),
        "scenes": (given, "scene"),
        "pen strokes": (Sources(), "canvas"),
        "pen strokes of 6 writers": (Sources(hands=strokes, styles=False), "canvas"),
        "bitmaps": (Sources(hands=bitmaps, styles=False), "canvas"),
    }
    for name, (sources, look) in sets.items():
        if len(sources.inks) or len(sources.hands) or sources.styles:
            rng = _rng(seed, name)
            pairs = [make_pair(rng, sources, "one", look) for _ in range(n)]
            known = [(p.picture, p.digits[0]) for p in pairs if p.digits]
            yield name, np.array([d for _, d in known]), [[picture for picture, _ in known]]
    # 1,797 digits by Turkish writers, 8x8 in 17 shades, in the order of their writers.
    bundle = load_digits()
    chosen = _rng(seed, "scikit-learn").permutation(len(bundle.target))[:n]
    grey = np.rint(bundle.images[chosen] * (255 / 16)).astype(np.uint8)
    size, bicubic = (80, 80), Image.Resampling.BICUBIC
    pictures = [np.asarray(Image.fromarray(g).resize(size, bicubic)) for g in grey]
    yield "scikit-learn's digits", bundle.target[chosen].astype(np.int64), [pictures]


def _probes(
    inks: Ink, labels: Labels, n: int, seed: int
) -> Iterator[tuple[str, Labels, Iterable[Pictures]]]:
    """Yield the name, labels and batches of each kind of ``probes``."""
    for name, make in digit_makers().items():
        rng, of = _rng(seed, name), _LARGE_ONES if "large" in name else n
        parts = range(0, len(inks[:of]), _BATCH_SIZE)
        pictures = ([make(i, rng) for i in inks[:of][at : at + _BATCH_SIZE]] for at in parts)
        yield name, labels[:of], pictures
    for name in ONES:
        yield name, np.ones(n, dtype=np.int64), [draw_ones(name, n, _rng(seed, name))]


def _non_digits(n: int, sources: Sources, seed: int) -> Iterator[tuple[str, Iterable[Pictures]]]:
    """Yield the name and the batches of each kind of non-digits."""
    for kind in KINDS:
        rng = _rng(seed, kind)
        yield kind, (make_non_digits(kind, size, rng, sources) for size in _sizes(n))
    for name, make in {**several_makers(sources.inks), **empty_makers(sources)}.items():
        rng = _rng(seed, name)
        yield name, ([make(rng) for _ in range(size)] for size in _sizes(n))


def _sizes(n: int) -> list[int]:
    """Divide n pictures into batches, so that few are held in memory."""
    return [min(_BATCH_SIZE, n - start) for start in range(0, n, _BATCH_SIZE)]


def _read(reader: Reader, batches: Iterable[Pictures]) -> list[Prediction]:
    """Return the answers to pictures sent as PNG files."""
    answers: list[Prediction] = []
    for pictures in batches:
        for start in range(0, len(pictures), _BATCH_SIZE):
            batch = pictures[start : start + _BATCH_SIZE]
            answers += reader.predict_batch([encode_png(p, compress_level=1) for p in batch])
    return answers


def _rng(seed: int, name: str) -> Rng:
    """Return a set's own randomness, so that leaving one out does not change the next."""
    return np.random.default_rng((seed, zlib.crc32(name.encode())))
