"""What users send beyond clean digits, made from MNIST's digits and by code.

Digits are photographed, corrupted as in MNIST-C, reduced to a low resolution, drawn with a pen and
printed. Some of those drawn with a pen, in styles that MNIST's writers did not have, are also
photographed, corrupted and reduced. The rest are pictures without a digit. All of them go through
``preprocess``, as a user's picture does, so that the network learns what it will be given.
Worker processes share the tasks. Each task has a seed of its own, so that the number of processes
changes nothing.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from inkdigits.data.corruptions import FAMILIES, MNIST_C_SEVERITY, SEVERITIES, corrupt
from inkdigits.data.fonts import FontSplit, find_fonts, render_digits
from inkdigits.data.hands import Hands, draw_hands
from inkdigits.data.letters import scripts_of
from inkdigits.data.mnist import Digits
from inkdigits.data.non_digits import KINDS, Sources, make_non_digits, several_digits
from inkdigits.data.pen_strokes import draw_digits
from inkdigits.data.photos import photograph
from inkdigits.errors import DataError
from inkdigits.ink.normalize import normalise
from inkdigits.ink.plain import Foreground
from inkdigits.reader import preprocess
from inkdigits.types import NO_DIGIT, Ink, Labels, Pixels, Rng

# Pictures that one task makes: few enough to spread evenly, many enough to start cheaply.
_TASK_SIZE = 500
# The share of the corrupted digits that has MNIST-C's severity; the others have any.
_MNIST_C_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class SynthesisConfig:
    """How many pictures of which kinds; shares need not sum to 1."""

    digits: int = 60_000  # pictures with a digit
    others: int = 60_000  # pictures without one
    # Shares of ``digits``.
    photos: float = 0.27
    corrupted: float = 0.36
    low_resolution: float = 0.20
    strokes: float = 0.11
    printed: float = 0.06
    hands: float = 0.12  # of other hands; none where there are no such digits
    # Shares of the photographed, corrupted and reduced digits that are drawn with a pen, or by
    # other hands, instead of MNIST's.
    drawn: float = 0.2
    of_hands: float = 0.15
    # Shares of ``others``, by the names of ``non_digits.KINDS``.
    kinds: tuple[tuple[str, float], ...] = (
        ("blank", 0.01),
        ("scribble", 0.09),
        ("noise", 0.05),
        ("texture", 0.06),
        ("letter", 0.15),
        ("symbol", 0.06),
        ("two_digits", 0.07),
        ("part_of_digit", 0.02),
        ("wandering", 0.09),
        ("handwritten_letter", 0.23),
        ("several_digits", 0.11),
        ("cut_digit", 0.03),
        ("broken_digit", 0.03),
    )
    # Share of ``others`` that is photographed or corrupted afterwards, so that neither is a sign of
    # a digit.
    degraded_others: float = 0.25
    fonts: FontSplit = "train"  # which split of the installed fonts renders letters
    seed: int = 0  # of everything random

    def __post_init__(self) -> None:
        unknown = [kind for kind, _ in self.kinds if kind not in KINDS]
        if unknown:
            raise DataError(f"kind is {unknown[0]!r}; it must be one of {', '.join(KINDS)}")
        if self.digits < 0 or self.others < 0 or not self.digits + self.others:
            raise DataError(
                f"digits is {self.digits} and others {self.others}; neither may be negative, and "
                "one must be above 0"
            )


@dataclass(frozen=True, slots=True)
class _Task:
    what: str
    n: int
    seed: tuple[int, ...]


class _Given:
    """What the tasks of this process are made from."""

    inks: Ink
    labels: Labels
    config: SynthesisConfig
    hands: Hands
    sources: Sources


def synthesise(
    digits: Digits,
    config: SynthesisConfig,
    hands: Hands | None = None,
    *,
    workers: int | None = None,
    report: Callable[[int, int], None] = lambda _done, _all: None,
) -> Digits:
    """Make about ``config.digits + config.others`` pictures and return their ink in random order.

    The label is ``NO_DIGIT`` where there is none. Pictures in which no ink was found are left out.
    ``hands`` are digits of other hands than ``digits``.
    ``workers`` limits the processes, one per core, and ``report`` is called with how many tasks
    are done, of how many.

    Raises:
        DataError: no digits to make them from, no fonts, or so few that none of any kind is made.

    >>> given = Digits(torch.full((2, 28, 28), 255, dtype=torch.uint8), torch.tensor([1, 7]))
    >>> config = SynthesisConfig(digits=0, others=9, kinds=(("scribble", 1.0),))
    >>> len(synthesise(given, config, workers=1))
    9
    """
    if not len(digits):
        raise DataError("there are no digits to make others from")
    hands = hands or Hands()
    tasks = _tasks(config, of_hands=bool(len(hands)))
    if not tasks:
        raise DataError(
            f"{config.digits} digits and {config.others} others are too few to be divided among "
            "the kinds; ask for 100 or more"
        )
    arguments = (digits.inks.numpy(), digits.labels.numpy(), config, hands)
    made: list[tuple[Ink, Labels]] = []
    processes = min(workers or os.cpu_count() or 1, len(tasks))
    if processes == 1:
        _prepare(*arguments)
        for task in tasks:
            made.append(_make(task))
            report(len(made), len(tasks))
    else:
        # Spawned: a fork would copy the locks of torch's threads.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _prepare, arguments) as pool:
            for result in pool.map(_make, tasks):
                made.append(result)
                report(len(made), len(tasks))
    inks, labels = (np.concatenate(arrays) for arrays in zip(*made, strict=True))
    order = np.random.default_rng((config.seed, 1)).permutation(len(inks))
    return Digits(torch.from_numpy(inks[order]), torch.from_numpy(labels[order]))


def _tasks(config: SynthesisConfig, *, of_hands: bool) -> list[_Task]:
    ways = {
        "photos": config.photos,
        "low_resolution": config.low_resolution,
        "strokes": config.strokes,
        "printed": config.printed,
        "hands": config.hands if of_hands else 0.0,
        **{family: config.corrupted / len(FAMILIES) for family in FAMILIES},
    }
    wanted = [(name, config.digits * share / sum(ways.values())) for name, share in ways.items()]
    total = sum(share for _, share in config.kinds)
    wanted += [(kind, config.others * share / total) for kind, share in config.kinds]
    return [
        _Task(what, min(_TASK_SIZE, round(size) - start), (config.seed, number, start))
        for number, (what, size) in enumerate(wanted)
        for start in range(0, round(size), _TASK_SIZE)
    ]


def _prepare(inks: Ink, labels: Labels, config: SynthesisConfig, hands: Hands) -> None:
    _Given.inks, _Given.labels, _Given.config, _Given.hands = inks, labels, config, hands
    fonts, script_fonts = find_fonts(config.fonts), find_fonts(latin=False)
    _Given.sources = Sources(fonts, inks, script_fonts, scripts_of(config.fonts))


def _make(task: _Task) -> tuple[Ink, Labels]:
    rng = np.random.default_rng(task.seed)
    if task.what == "several_digits":
        # All ink counts: were one left out, the other would be a digit.
        canvases = [several_digits(rng, _Given.inks) for _ in range(task.n)]
        whole = [normalise(Foreground.whole_picture(255 * canvas)) for canvas in canvases]
        return np.stack(whole), np.full(task.n, NO_DIGIT)
    if task.what in KINDS:
        pictures = make_non_digits(task.what, task.n, rng, _Given.sources)
        inks, labels = _found(pictures, np.full(len(pictures), NO_DIGIT))
        return _degraded(inks, rng), labels
    if task.what == "strokes":
        return _found(*draw_digits(task.n, rng))
    if task.what == "hands":
        return _found(*draw_hands(task.n, _Given.hands, rng))
    if task.what == "printed":
        return _found(*render_digits(task.n, _Given.sources.fonts, rng))
    clean, labels = _clean_digits(task.n, rng)
    if task.what == "photos":
        return _found(photograph(clean, rng), labels)
    if task.what == "low_resolution":
        return _found(lower_resolution(clean, rng), labels)
    return _found(_corrupted(clean, task.what, rng), labels)


def _found(pictures: Sequence[Pixels] | Pixels, labels: Labels) -> tuple[Ink, Labels]:
    """Return the ink of each picture in which there is some, and its label."""
    inks = np.stack([preprocess(picture) for picture in pictures])
    found = inks.any(axis=(1, 2))
    return inks[found], labels[found]


def _clean_digits(n: int, rng: Rng) -> tuple[Ink, Labels]:
    """Return MNIST's digits and, for shares, the ink of digits with a pen and by other hands."""
    chosen = rng.integers(len(_Given.inks), size=n)
    inks, labels = _Given.inks[chosen], _Given.labels[chosen]
    drawn = round(_Given.config.drawn * n)
    if drawn:
        pictures, labels[:drawn] = draw_digits(drawn, rng)
        inks[:drawn] = [preprocess(picture) for picture in pictures]
    others = round(_Given.config.of_hands * n) if len(_Given.hands) else 0
    if others:
        theirs, labels[-others:] = draw_hands(others, _Given.hands, rng)
        inks[-others:] = [preprocess(picture) for picture in theirs]
    return inks, labels


def _corrupted(inks: Ink, family: str, rng: Rng) -> Ink:
    """Corrupt each picture in MNIST-C's severity or, as often, in any."""
    severities = rng.choice(SEVERITIES, size=len(inks))
    severities[rng.random(len(inks)) < _MNIST_C_SHARE] = MNIST_C_SEVERITY[family]
    changed = np.empty_like(inks)
    for severity in SEVERITIES:
        at = severities == severity
        if at.any():
            changed[at] = corrupt(inks[at], family, severity, rng)
    return changed


def _degraded(inks: Ink, rng: Rng) -> Ink:
    """Photograph or corrupt a share of the inks and preprocess them again."""
    result = inks.copy()
    for at in np.flatnonzero(rng.random(len(inks)) < _Given.config.degraded_others):
        one = inks[at : at + 1]
        if rng.random() < 0.5:
            picture = photograph(one, rng)[0]
        else:
            picture = _corrupted(one, FAMILIES[rng.integers(len(FAMILIES))], rng)[0]
        ink = preprocess(picture)
        if ink.any():
            result[at] = ink
    return result


def lower_resolution(inks: Ink, rng: Rng) -> list[Pixels]:
    """Make digits as in small scans: 7 to 18 pixels high, in few shades, cut at their edges.

    Returns:
        N pictures (H, W) uint8, as small as that or enlarged by one of the usual filters.

    >>> len(lower_resolution(np.full((2, 28, 28), 255, np.uint8), np.random.default_rng(0)))
    2
    """
    names = ("NEAREST", "BOX", "BILINEAR", "BICUBIC", "LANCZOS")
    filters = [Image.Resampling[name] for name in names]
    pictures = []
    for ink in inks:
        image = Image.fromarray(ink)
        box = image.point(lambda value: 255 * (value > 40)).getbbox() or (4, 4, 24, 24)
        margin = int(rng.integers(0, 4))
        image = image.crop((box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin))
        height = int(rng.integers(7, 19))
        width = max(3, round(height * image.width / image.height))
        if rng.random() < 0.5:  # scans that fill a square, however narrow the digit is
            width = round(width + rng.uniform(0.3, 1.0) * (height - width))
        values = np.asarray(
            image.resize((width, height), filters[rng.integers(1, 4)]), dtype=np.float32
        )
        values = values * np.float32(255 / max(1.0, float(values.max())))
        shades = int(rng.choice([2, 2, 5, 17, 256]))
        if shades == 2:
            values = np.where(values > rng.uniform(70, 150), np.float32(255), np.float32(0))
        else:
            values = np.rint(values / 255 * (shades - 1)) * np.float32(255 / (shades - 1))
        small = Image.fromarray(np.rint(values).astype(np.uint8))
        if rng.random() < 0.6:
            factor = rng.uniform(1.5, 10)
            size = (round(width * factor), round(height * factor))
            small = small.resize(size, filters[rng.integers(len(filters))])
        edge = int(rng.integers(0, 3))
        picture = np.pad(np.asarray(small), edge)
        pictures.append(255 - picture if rng.random() < 0.3 else picture)
    return pictures
