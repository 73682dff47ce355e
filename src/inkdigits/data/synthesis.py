"""What users send beyond clean digits, made from MNIST's digits and by code.

Digits are put on paper, in light and before cameras (``pictures``), corrupted as in MNIST-C,
reduced to a low resolution, drawn with a pen, printed, and cut from numbers. The rest has no
digit, several, or too little of one. Every picture is read as a user's is, so that the network
learns what it will be given. What was written is known: where reading found something else, the
picture is left out.
Worker processes share the tasks. Each task has a seed of its own, so that the number of processes
changes nothing.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from inkdigits.data.corruptions import (
    FAMILIES,
    MNIST_C_SEVERITY,
    SEVERITIES,
    corrupt,
    lower_resolution,
)
from inkdigits.data.fonts import FontSplit, find_fonts, render_digits
from inkdigits.data.hands import Hands
from inkdigits.data.letters import scripts_of
from inkdigits.data.mnist import Digits
from inkdigits.data.non_digits import draw_non_digit
from inkdigits.data.pictures.cut_numbers import cut_number
from inkdigits.data.pictures.foreground import Sources
from inkdigits.data.pictures.numbers import WrittenDigits
from inkdigits.data.pictures.pairs import Look, Pair, make_pair
from inkdigits.data.pixels import blend_ink
from inkdigits.errors import DataError
from inkdigits.ink.normalize import normalise, preprocess
from inkdigits.ink.plain import Foreground
from inkdigits.ink.segment import Segmenter
from inkdigits.model.artifact import SEGMENTER, read_network, write_atomically
from inkdigits.model.backends import onnx_function
from inkdigits.types import NO_DIGIT, Ink, Labels, Picture, Rng

# Pictures that one task makes: few enough to spread evenly, many enough to start cheaply.
_TASK_SIZE = 500
# The share of the corrupted digits that has MNIST-C's severity; the others have any.
_MNIST_C_SHARE = 0.5
# The share of the corrupted and reduced digits that are drawn: every second by other hands, the
# others mostly in styles.
_DRAWN_SHARE = 0.6
# The least cosine of the ink that was found and the ink that was written: of one digit or sign, and
# of several digits, of which none may be missing.
_ALIKE, _ALL_ALIKE = 0.5, 0.75
# A digit with less than the first share of its ink outside of the picture is one, with more than
# the second none; of a 1 that is cut off a 1 is left.
_SLIGHT_CUT, _DEEP_CUT = 0.08, 0.35
# What is left out is made again, this many times in all.
_MOST_TRIES = 6
_PER_NUMBER, _MOST_NUMBERS = 3, 20  # candidates of one number; numbers per candidate
_WHOLE_PIECE, _WRONG_PIECE = "whole_piece", "wrong_piece"
# Kinds of ``pairs`` that have several digits, too little of one, or none.
_PAIRS = ("several", "pair", "cut", "empty")


@dataclass(frozen=True, slots=True)
class SynthesisConfig:
    """How many pictures of which kinds; shares need not sum to 1."""

    digits: int = 60_000  # pictures with a digit
    others: int = 60_000  # pictures without one
    # Shares of ``digits``.
    ways: tuple[tuple[str, float], ...] = (
        ("paper", 0.25),
        ("tiny", 0.04),
        ("corrupted", 0.26),
        ("low_resolution", 0.2),
        ("canvas", 0.09),
        ("hands", 0.16),  # none where there are no digits of other hands
        ("printed", 0.05),
        (_WHOLE_PIECE, 0.05),
        ("cut", 0.03),
    )
    # Shares of ``others``, by the names of ``non_digits.KINDS`` and of some kinds of ``pairs``.
    kinds: tuple[tuple[str, float], ...] = (
        ("scribble", 0.09),
        ("noise", 0.03),
        ("texture", 0.05),
        ("letter", 0.13),
        ("symbol", 0.05),
        ("wandering", 0.08),
        ("handwritten_letter", 0.21),
        ("cut_digit", 0.04),
        ("broken_digit", 0.03),
        ("several", 0.09),
        ("pair", 0.08),
        ("cut", 0.04),
        ("empty", 0.07),
        (_WRONG_PIECE, 0.07),
    )
    on_paper: float = 0.25  # share of what is no digit that is photographed too
    fonts: FontSplit = "train"  # which split of the installed fonts renders letters
    seed: int = 0  # of everything random


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What pictures are made from, and what finds their ink."""

    digits: Digits
    hands: Hands = field(default_factory=Hands)  # other hands than those of the digits
    # An ONNX model; by default that of the shipped artifact.
    segmenter: bytes = field(default_factory=lambda: read_network(SEGMENTER))

    def segmenter_digest(self) -> str:
        """Return the SHA-256 of the network that finds ink."""
        return hashlib.sha256(self.segmenter).hexdigest()

    def find_ink(self) -> Segmenter:
        """Return what finds ink, with a session of its own."""
        return onnx_function(self.segmenter, threads=1)


@dataclass(frozen=True, slots=True)
class _Task:
    what: str
    n: int
    seed: tuple[int, ...]
    is_digit: bool


class _Given:
    """What the tasks of this process are made from."""

    sources: Sources
    hands: Sources  # other hands alone, or drawn styles where there are none
    numbers: WrittenDigits
    on_paper: float
    segmenter: Segmenter
    preprocess: Callable[[Picture], Ink]


def ink_finder(segmenter: Segmenter) -> Callable[[Picture], Ink]:
    """Return ``preprocess`` with a network that finds ink.

    >>> ink_finder(lambda view: np.repeat(view, 2, axis=1))(np.zeros((28, 28), np.uint8)).any()
    np.False_
    """
    return partial(preprocess, segmenter=segmenter)


def synthesise(
    material: Material,
    config: SynthesisConfig,
    *,
    workers: int | None = None,
    kept: Path | None = None,
    report: Callable[[int, int], None] = lambda _done, _all: None,
) -> Digits:
    """Make about ``config.digits + config.others`` pictures and return their ink in random order.

    The label is ``NO_DIGIT`` where there is none. Pictures in which no ink was found are left out.
    ``workers`` limits the processes, one per core. ``kept`` is a folder for the results of tasks,
    which are not made again. ``report`` is called with how many tasks are done, of how many.

    Raises:
        DataError: no digits to make them from, no fonts, or so few that none of any kind is made.

    >>> given = Digits(torch.full((2, 28, 28), 255, dtype=torch.uint8), torch.tensor([1, 7]))
    >>> config = SynthesisConfig(digits=0, others=9, kinds=(("scribble", 1.0),))
    >>> len(synthesise(Material(given), config, workers=1)) > 5
    True
    """
    if not len(material.digits):
        raise DataError("there are no digits to make others from")
    tasks = _tasks(config, of_hands=bool(len(material.hands)))
    if not tasks:
        raise DataError(
            f"{config.digits} digits and {config.others} others are too few to be divided among "
            "the kinds; ask for 100 or more"
        )
    files = [kept / f"{number}.npz" if kept else None for number in range(len(tasks))]
    waiting = [t for t, file in zip(tasks, files, strict=True) if not (file and file.is_file())]
    results = _results(waiting, material, config, workers)
    made: list[tuple[Ink, Labels]] = []
    for file in files:
        made.append(_read_or_make(file, results))
        report(len(made), len(tasks))
    inks, labels = (np.concatenate(arrays) for arrays in zip(*made, strict=True))
    order = np.random.default_rng((config.seed, 1)).permutation(len(inks))
    return Digits(torch.from_numpy(inks[order]), torch.from_numpy(labels[order]))


def _results(
    tasks: list[_Task], material: Material, config: SynthesisConfig, workers: int | None
) -> Iterator[tuple[Ink, Labels]]:
    processes = min(workers or os.cpu_count() or 1, len(tasks))
    if processes <= 1:
        if tasks:
            _prepare(material, config)
        yield from map(_make, tasks)
        return
    # Spawned: a fork would copy the locks of torch's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _prepare, (material, config)) as pool:
        yield from pool.map(_make, tasks)


def _read_or_make(file: Path | None, results: Iterator[tuple[Ink, Labels]]) -> tuple[Ink, Labels]:
    if file is not None and file.is_file():
        with np.load(file) as saved:
            return saved["inks"], saved["labels"]
    inks, labels = next(results)
    if file is not None:
        content = io.BytesIO()
        np.savez(content, inks=inks, labels=labels)
        write_atomically(file, content.getvalue())
    return inks, labels


def _tasks(config: SynthesisConfig, *, of_hands: bool) -> list[_Task]:
    ways = dict(config.ways)
    corrupted = ways.pop("corrupted", 0.0)
    ways |= {family: corrupted / len(FAMILIES) for family in FAMILIES if corrupted}
    if not of_hands:
        ways.pop("hands", None)
    wanted = [
        (what, is_digit, size * share / sum(shares.values()))
        for is_digit, size, shares in (
            (True, config.digits, ways),
            (False, config.others, dict(config.kinds)),
        )
        for what, share in shares.items()
    ]
    return [
        _Task(what, min(_TASK_SIZE, round(size) - start), (config.seed, number, start), is_digit)
        for number, (what, is_digit, size) in enumerate(wanted)
        for start in range(0, round(size), _TASK_SIZE)
    ]


def _prepare(material: Material, config: SynthesisConfig) -> None:
    digits = material.digits
    inks, labels = digits.inks.numpy(), digits.labels.numpy()
    fonts = find_fonts(config.fonts)
    scripts = {"script_fonts": find_fonts(latin=False), "scripts": scripts_of(config.fonts)}
    _Given.sources = Sources(inks, labels, fonts, material.hands, **scripts)  # type: ignore[arg-type]
    _Given.hands = Sources(hands=material.hands, styles=not len(material.hands))
    _Given.numbers = WrittenDigits.of(digits)
    _Given.on_paper = config.on_paper
    _Given.segmenter = material.find_ink()
    _Given.preprocess = ink_finder(_Given.segmenter)


def _make(task: _Task) -> tuple[Ink, Labels]:
    rng = np.random.default_rng(task.seed)
    if task.what in (_WHOLE_PIECE, _WRONG_PIECE):
        return _pieces(task, rng)
    if task.what in (*FAMILIES, "low_resolution"):
        clean, labels = _clean_digits(task.n, rng)
        if task.what == "low_resolution":
            made = zip(lower_resolution(clean, rng), labels, strict=True)
        else:
            made = zip(_corrupted(clean, task.what, rng), labels, strict=True)
        found = [(_Given.preprocess(picture), label) for picture, label in made]
    elif task.what == "printed":
        drawn = zip(*render_digits(task.n, _Given.sources.fonts, rng), strict=True)
        found = [(_Given.preprocess(picture), label) for picture, label in drawn]
    else:
        make = _digit if task.is_digit else _other
        tries = (make(task.what, rng) for _ in range(_MOST_TRIES * task.n))
        found = list(islice((one for one in tries if one is not None and one[0].any()), task.n))
    inks = [ink for ink, _ in found if ink.any()]
    labels = np.array([label for ink, label in found if ink.any()], dtype=np.int64)
    return np.array(inks, dtype=np.uint8).reshape(-1, 28, 28), labels


def _digit(way: str, rng: Rng) -> tuple[Ink, int] | None:
    """Return the ink that reading finds in a picture of a digit, and which it is."""
    kind, look = _WAYS[way]
    sources = _Given.hands if way == "hands" else _Given.sources
    pair = make_pair(rng, sources, kind, look)
    if len(pair.digits) != 1 or pair.cut > _SLIGHT_CUT:
        return None
    return _read_pair(pair, pair.digits[0], _ALIKE)


def _other(kind: str, rng: Rng) -> tuple[Ink, int] | None:
    """Return the ink that reading finds in a picture without a readable digit."""
    if kind not in _PAIRS:
        sign = draw_non_digit(kind, rng, _Given.sources)
        if rng.random() >= _Given.on_paper or not sign.any():
            return _Given.preprocess(blend_ink(sign, rng)), NO_DIGIT
        pair = make_pair(rng, _Given.sources, "sign", None, sign.astype(np.float32))
        return _read_pair(pair, NO_DIGIT, _ALIKE)
    pair = make_pair(rng, _Given.sources, kind, "canvas" if rng.random() < 0.3 else None)
    if kind == "empty":
        return _Given.preprocess(pair.picture), NO_DIGIT
    if kind == "cut":
        is_none = pair.cut > _DEEP_CUT and pair.digits not in ((), (1,))
        return _read_pair(pair, NO_DIGIT, _ALIKE) if is_none else None
    return _read_pair(pair, NO_DIGIT, _ALL_ALIKE) if len(pair.digits) > 1 else None


def _read_pair(pair: Pair, label: int, least: float) -> tuple[Ink, int] | None:
    """Return the ink that was found, if it is like the one that was written."""
    found = _Given.preprocess(pair.picture)
    known = normalise(Foreground.whole_picture(np.float32(255) * pair.ink))
    both = [ink.ravel().astype(np.float32) for ink in (found, known)]
    lengths = float(np.linalg.norm(both[0]) * np.linalg.norm(both[1]))
    return (found, label) if float(both[0] @ both[1]) > least * lengths else None


def _pieces(task: _Task, rng: Rng) -> tuple[Ink, Labels]:
    """Cut numbers until there are as many digits, or as many of what is none, as wanted."""
    inks: list[Ink] = []
    labels: list[int] = []
    for _ in range(_MOST_NUMBERS * task.n):
        if len(labels) >= task.n:
            break
        found, known = cut_number(_Given.numbers, _Given.segmenter, rng)
        wanted = np.flatnonzero((known != NO_DIGIT) == task.is_digit)
        for at in rng.permutation(wanted)[:_PER_NUMBER]:
            inks.append(found[at])
            labels.append(int(known[at]))
    made = np.array(inks[: task.n], dtype=np.uint8).reshape(-1, 28, 28)
    return made, np.array(labels[: task.n], dtype=np.int64)


def _clean_digits(n: int, rng: Rng) -> tuple[Ink, Labels]:
    """Return MNIST's digits and, for a share, the ink of digits with a pen and by other hands."""
    sources = _Given.sources
    chosen = rng.integers(len(sources.inks), size=n)
    inks, labels = sources.inks[chosen], sources.labels[chosen]
    pens = Sources(hands=sources.hands), _Given.hands
    for at in range(round(_DRAWN_SHARE * n)):
        pair = make_pair(rng, pens[at % 2], "one", "canvas")
        if len(pair.digits) == 1:
            inks[at], labels[at] = _Given.preprocess(pair.picture), pair.digits[0]
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


# The kind of pair, and its look, of each way to make a digit; the others are made otherwise.
_WAYS: dict[str, tuple[str, Look | None]] = {
    "paper": ("one", None),
    "tiny": ("tiny", None),
    "canvas": ("one", "canvas"),
    "hands": ("one", "canvas"),
    "cut": ("cut", None),
}
