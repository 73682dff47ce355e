"""Labelled pictures of one's own, as a run learns from them: checked, divided, weighted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from inkdigits.data.labelled import (
    Labelled,
    LabelledInks,
    describe_left_out,
    read_labelled,
)
from inkdigits.data.mnist import Digits, stratified_split
from inkdigits.errors import DataError
from inkdigits.evaluation.metrics import suspect_labels
from inkdigits.evaluation.report import contact_sheet
from inkdigits.ink.segment import Segmenter
from inkdigits.model.artifact import write_atomically
from inkdigits.reader import DigitReader
from inkdigits.training.config import AddConfig
from inkdigits.training.run_folder import Weights
from inkdigits.types import NO_DIGIT, Json, Report

SHARE: Final = 0.15
"""The share of an epoch's pictures that are added ones, by default."""
KEPT_CHANGE: Final = 0.7
"""The share of the weights' change that is kept: a mean of the weights before and after reads the
new manner as well, and forgets less (Wortsman et al., "Robust fine-tuning of zero-shot models",
CVPR 2022)."""
SUSPECTS_NAME: Final = "suspect_labels.png"
_MOST_SUSPECTS = 40


@dataclass(frozen=True, slots=True, eq=False)
class Added:
    """Labelled pictures, divided into what is learned from and what is kept apart."""

    learned: Digits
    held_back: Labelled  # as the reader is given them
    weight: float
    suspects: list[Json]  # labels that may be wrong, for run.json
    described: Json  # for run.json and the artifact

    def mixed_with(self, digits: Digits, seed: int) -> Digits:
        """Return MNIST's digits and the added ones, each as often as the weight says."""
        own, _ = self.learned.divided()
        times = torch.full((len(own),), int(self.weight))
        generator = torch.Generator().manual_seed(seed)
        times += torch.rand(len(own), generator=generator) < self.weight % 1
        index = torch.arange(len(own)).repeat_interleave(times)
        return Digits(
            torch.cat([digits.inks, own.inks[index]]), torch.cat([digits.labels, own.labels[index]])
        )


def between(before: Weights, after: Weights, share: float = KEPT_CHANGE) -> Weights:
    """Return the weights that lie so far on the way from those before to those after.

    >>> between({"bias": torch.zeros(1)}, {"bias": torch.ones(1)})
    {'bias': tensor([0.7000])}
    """
    return {
        name: before[name].lerp(value, share) if value.is_floating_point() else value
        for name, value in after.items()
    }


def check_apart(learned: Digits, test: Digits) -> None:
    """Raise DataError if a picture to learn from is one of the test part.

    >>> some = Digits(torch.ones(2, 28, 28, dtype=torch.uint8), torch.tensor([1, 7]))
    >>> check_apart(some, Digits(some.inks + 1, some.labels))
    """
    known = {ink.tobytes() for ink in test.inks.numpy()}
    count = sum(ink.tobytes() in known for ink in learned.inks.numpy())
    if count:
        raise DataError(
            f"{count:,} of the pictures of --add are in MNIST's test part, which is only for "
            "evaluation. Leave them out."
        )


def read_added(
    config: AddConfig,
    reader: DigitReader,
    n_digits: int,
    figures: Path,
    report: Report,
    segmenter: Segmenter | None = None,
) -> Added:
    """Read the labelled pictures, list labels that are not plausible, and divide the pictures.

    Args:
        config: which pictures, and how.
        reader: a model that has not learned from them, which says how plausible the labels are.
        n_digits: the pictures of MNIST in an epoch.
        figures: folder for the picture of suspect labels.
        report: told what was found, in lines.
        segmenter: of the new model; by default the shipped one.

    Raises:
        DataError: a source is missing or invalid.

    >>> import inkdigits
    >>> read_added(AddConfig(("nowhere",)), inkdigits.load(), 10, Path("none"), print)
    Traceback (most recent call last):
    inkdigits.errors.DataError: nowhere does not exist; name a folder, an archive or a table
    """
    pictures = read_labelled(config.sources, pattern=config.pattern).inks(segmenter)
    describe_left_out(pictures.left_out, report)
    suspects = _report_suspects(reader, pictures, figures, report)
    apart = pictures.held_back(config.held_back)
    inks, labels = torch.from_numpy(pictures.inks), torch.from_numpy(pictures.labels)
    learned = Digits(inks, labels)[torch.from_numpy(np.flatnonzero(~apart))]
    with_digit = int((learned.labels != NO_DIGIT).sum())
    weight = config.weight
    if weight is None:
        weight = max(1.0, round(SHARE / (1 - SHARE) * n_digits / max(1, with_digit), 1))
    report(
        f"added: {len(learned):,} labelled pictures for training, {weight:g} times per epoch, "
        f"and {int(apart.sum()):,} for evaluation"
    )
    held_back = [pictures.examples[i] for i in np.flatnonzero(apart).tolist()]
    described: Json = {
        "sources": sorted({example.source for example in pictures.examples}),
        "n": len(pictures.labels),
        "sha256": pictures.digest(),
        "learned": len(learned),
        "held_back": len(held_back),
        "weight": weight,
        "kept_change": KEPT_CHANGE,
        "left_out": len(pictures.left_out),
        "suspect_labels": len(suspects),
    }
    return Added(learned, Labelled(held_back), weight, suspects, described)


def _report_suspects(
    reader: DigitReader, pictures: LabelledInks, figures: Path, report: Report
) -> list[Json]:
    """List the labels that are not plausible, with a picture of them; return them for run.json."""
    with_digit = np.flatnonzero(pictures.labels != NO_DIGIT)
    if not len(with_digit):
        return []
    shares, labels = reader.probabilities(pictures.inks[with_digit]), pictures.labels[with_digit]
    rows = suspect_labels(shares, labels)
    found: list[Json] = [
        {
            "name": pictures.examples[with_digit[row]].name,
            "label": int(labels[row]),
            "digit": int(shares[row].argmax()),
            "confidence": float(shares[row].max()),
        }
        for row in rows
    ]
    if not found:
        return []
    shown = found[:_MOST_SUSPECTS]
    captions = [f"{one['label']}, not {one['digit']}?" for one in shown]
    sheet = contact_sheet(pictures.inks[with_digit[rows[: len(shown)]]], captions)
    write_atomically(figures / SUSPECTS_NAME, sheet)
    report(
        f"{len(found):,} of {len(with_digit):,} labels may be wrong but are used for training. See "
        f"{figures / SUSPECTS_NAME}, and correct them at their source."
    )
    for one in shown[:5]:
        report(
            f"  {one['name']}: labelled {one['label']}, read as {one['digit']} "
            f"({100 * one['confidence']:.1f} %)"
        )
    return found


def limited(digits: Digits, limit: int | None, seed: int) -> Digits:
    """Return at most so many of the digits, with each digit's share kept; None is all of them.

    >>> digits = Digits(torch.zeros(40, 28, 28), torch.arange(40) % 10)
    >>> len(limited(digits, 20, 0))
    20
    """
    if limit is None or limit >= len(digits):
        return digits
    _, chosen = stratified_split(digits.labels, (limit / len(digits),), seed)
    return digits[chosen]
