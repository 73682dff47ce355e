"""MNIST as whole tensors, and its fixed split.

The 60,000 training pictures are divided once, by a fixed seed: about 44,000 train the weights,
1,200 are for validation, 14,800 for calibration (temperature and accept thresholds). A risk of
0.1 % cannot be shown with fewer than 2,995 accepted digits; among 14,432 eight may be misread, and
some digits of MNIST are mislabelled.

QMNIST (C. Yadav and L. Bottou, "Cold Case: The Lost MNIST Digits", NeurIPS 2019) tells who wrote
each digit. With its table the parts share no writer. Without it the split is by picture, stratified
by digit, and the writers of calibration have other digits in the training part.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import MNIST, QMNIST
from torchvision.datasets.utils import download_url

from inkdigits.data.hands import Hands, load_hands
from inkdigits.errors import DataError
from inkdigits.types import NO_DIGIT, Json, Report

SPLIT_SEED = 20261123
# Validation's and calibration's shares of the training part.
FRACTIONS = (0.02, 14.8 / 60)
# In QMNIST, writers below this are census clerks (NIST's series hsf_0 to hsf_3), the others school
# pupils (hsf_4).
FIRST_PUPIL = 2100

SplitName: TypeAlias = Literal["writers", "pictures"]
"""What the parts do not share: writers, or only pictures."""


@dataclass(frozen=True, slots=True)
class Digits:
    """Labelled ink."""

    inks: Tensor  # (N, 28, 28) uint8; 0 is background, 255 is ink
    labels: Tensor  # (N,) int64, 0 to 9; NO_DIGIT where there is none to read
    writers: Tensor | None = None  # (N,) int64, who wrote each; None where that is not known
    certain: Tensor | None = None  # (N,) bool, whose ink lets them be accepted; None is all

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> Digits:
        others = (None if of is None else of[index] for of in (self.writers, self.certain))
        return Digits(self.inks[index], self.labels[index], *others)

    def divided(self) -> tuple[Digits, Digits]:
        """Return the pictures with a digit, and those without."""
        with_digit = self.labels != NO_DIGIT
        return self[with_digit.nonzero().squeeze(1)], self[(~with_digit).nonzero().squeeze(1)]

    def to(self, device: torch.device) -> Digits:
        """Return the same digits on ``device``."""
        return Digits(self.inks.to(device), self.labels.to(device), self.writers)

    def digest(self) -> str:
        """Return the SHA-256 of the pictures and labels, which identifies the data."""
        content = hashlib.sha256(self.inks.cpu().numpy().tobytes())
        content.update(self.labels.to(torch.uint8).cpu().numpy().tobytes())
        return content.hexdigest()


@dataclass(frozen=True, slots=True)
class Splits:
    """Train, validation and calibration from MNIST's training part; test is its test part."""

    train: Digits
    validation: Digits
    calibration: Digits
    test: Digits
    # "split", "split_seed", and the SHA-256 of files: "writers_sha256" and "hands_sha256".
    origin: Json = field(default_factory=dict)
    # Of other collections, whose writers train or calibrate.
    train_hands: Hands = field(default_factory=Hands)
    calibration_hands: Hands = field(default_factory=Hands)


def load_splits(
    root: Path,
    *,
    download: bool = False,
    by: SplitName | None = None,
    report: Report = lambda _: None,
) -> Splits:
    """Read MNIST from ``root`` in TorchVision's layout (``root/MNIST/raw``), and split it.

    Args:
        root: its folder ``qmnist`` or ``QMNIST/raw`` may hold QMNIST's table of writers, and
            ``pendigits`` and ``optdigits`` other hands' digits (``hands.load_hands``).
        download: fetches files that are missing; the table only if it can be reached.
        by: what the parts do not share; None is writers if the table is there, else pictures.
        report: told if the writers are not known.

    Raises:
        DataError: the files are missing and ``download`` is off, or they have another shape.

    >>> load_splits(Path("nowhere"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    inkdigits.errors.DataError: MNIST's training part cannot be read from nowhere/MNIST/raw...
    """
    training = _read(root, train=True, download=download)
    test = _read(root, train=False, download=download)
    origin: Json = {"split": by or "writers", "split_seed": SPLIT_SEED}
    if by != "pictures":
        tables = [_find_table(root, part, download=download) for part in ("train", "test")]
        if all(tables):
            training, test = (
                _with_writers(digits, table)
                for digits, table in zip((training, test), tables, strict=True)
                if table is not None
            )
            origin["writers_sha256"] = [
                hashlib.sha256(table.read_bytes()).hexdigest() for table in tables if table
            ]
        elif by == "writers":
            raise DataError(
                f"the split by writer needs QMNIST's tables in {root}/qmnist: "
                f"{' and '.join(_table_name(part) for part in ('train', 'test'))}"
            )
        else:
            origin["split"] = "pictures"
            report(
                f"{root}/qmnist has no table of QMNIST's writers; calibration then has writers of "
                "the training part, and its promise for unknown writers is weaker"
            )
    if training.writers is not None:
        parts = writer_split(training.writers, FRACTIONS, SPLIT_SEED)
    else:
        parts = stratified_split(training.labels, FRACTIONS, SPLIT_SEED)
    train, validation, calibration = (training[part] for part in parts)
    hands = load_hands(root, "train"), load_hands(root, "calibration")
    origin["hands_sha256"] = hands[0].sha256
    return Splits(train, validation, calibration, test, origin, *hands)


def _read(root: Path, *, train: bool, download: bool) -> Digits:
    try:
        dataset = MNIST(str(root), train=train, download=download)
    except (RuntimeError, OSError, ValueError) as error:
        part = "training" if train else "test"
        # Of files that are not there, torchvision names an option of its own.
        is_missing = isinstance(error, RuntimeError) and not download
        raise DataError(
            f"MNIST's {part} part cannot be read from {root}/MNIST/raw"
            + ("." if is_missing else f": {error}")
            + ("" if download else " Pass --download to fetch it, or --data for another folder.")
        ) from error
    inks, labels = dataset.data, dataset.targets.long()
    if inks.ndim != 3 or inks.shape[1:] != (28, 28) or len(inks) != len(labels) or not len(inks):
        raise DataError(
            f"{root}/MNIST/raw holds pictures {tuple(inks.shape)} and {len(labels)} labels; "
            "expected (N, 28, 28) and N"
        )
    return Digits(inks, labels)


def _table_name(part: str) -> str:
    return f"qmnist-{part}-labels-idx2-int.gz"


def _find_table(root: Path, part: str, *, download: bool) -> Path | None:
    """Return where QMNIST's table of MNIST's train or test part is; None if it is nowhere."""
    folders = (root / "qmnist", root / "QMNIST" / "raw")
    for folder in folders:
        if (folder / _table_name(part)).is_file():
            return folder / _table_name(part)
    if not download:
        return None
    url, digest = QMNIST.resources[part][1]
    try:
        download_url(url, str(folders[1]), _table_name(part), digest)
    except (RuntimeError, OSError):
        return None
    return folders[1] / _table_name(part)


def _with_writers(digits: Digits, table: Path) -> Digits:
    """Return the digits with their writers, by a table of which they are the first rows."""
    try:
        values = np.frombuffer(gzip.decompress(table.read_bytes()), dtype=">i4", offset=12)
        rows = values.reshape(-1, 8)[: len(digits)]
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{table} cannot be read: {error}; delete it") from error
    if not np.array_equal(rows[:, 0], digits.labels.numpy()):
        raise DataError(f"{table} is of other digits than those in MNIST/raw; delete it")
    return Digits(digits.inks, digits.labels, torch.from_numpy(rows[:, 2].astype(np.int64)))


def writer_split(writers: Tensor, fractions: tuple[float, ...], seed: int) -> tuple[Tensor, ...]:
    """Return disjoint, sorted indices that share no writer: the remainder, then each fraction.

    Clerks and pupils, told apart by the writers (N,), give the same shares. A part has the writers
    that fit into its share, so it is a little smaller.

    Raises:
        DataError: a share is so small that a part would be empty.

    >>> [len(part) for part in writer_split(torch.arange(20) // 2, (0.2,), seed=0)]
    [16, 4]
    """
    generator = torch.Generator().manual_seed(seed)
    bounds = torch.tensor(fractions, dtype=torch.float64).cumsum(0)
    part_of = torch.empty_like(writers)
    for group in (writers < FIRST_PUPIL, writers >= FIRST_PUPIL):
        _, index, counts = np.unique(
            writers[group].numpy(), return_inverse=True, return_counts=True
        )
        order = torch.randperm(len(counts), generator=generator)
        reached = torch.from_numpy(counts)[order].double().cumsum(0) / max(1, counts.sum())
        part = torch.empty_like(order)
        part[order] = torch.bucketize(reached - 1e-9, bounds)
        part_of[group] = part[torch.from_numpy(index)]
    numbers = (len(fractions), *range(len(fractions)))
    parts = tuple((part_of == number).nonzero().squeeze(1) for number in numbers)
    if not all(len(part) for part in parts):
        raise DataError(f"shares of {fractions} of {len(set(writers.tolist()))} writers are empty")
    return parts


def stratified_split(labels: Tensor, fractions: tuple[float, ...], seed: int) -> tuple[Tensor, ...]:
    """Return disjoint, sorted indices: the remainder first, then a part for each of ``fractions``.

    Each part has a rounded share of each digit of the labels (N,). The digits with the largest
    remainders round up, so that the part's size is the rounded share of all pictures.

    Raises:
        DataError: a share is so small that a part would be empty.

    >>> [len(part) for part in stratified_split(torch.arange(20) % 10, (0.5,), seed=0)]
    [10, 10]
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = []
    for digit in labels.bincount().nonzero().flatten().tolist():
        of_digit = (labels == digit).nonzero().squeeze(1)
        shuffled.append(of_digit[torch.randperm(len(of_digit), generator=generator)])
    parts = []
    for fraction in fractions:
        sizes = _shares(torch.tensor([len(s) for s in shuffled]), fraction, len(labels))
        if not sizes.sum():
            raise DataError(f"a share of {fraction} of {len(labels)} pictures is empty")
        parts.append(torch.cat([s[:n] for s, n in zip(shuffled, sizes.tolist(), strict=True)]))
        shuffled = [s[n:] for s, n in zip(shuffled, sizes.tolist(), strict=True)]
    return (torch.cat(shuffled).sort().values, *(part.sort().values for part in parts))


def _shares(available: Tensor, fraction: float, total: int) -> Tensor:
    """Return how many of each digit: largest-remainder rounding to ``round(fraction * total)``."""
    wanted = round(fraction * total)
    exact = available.double() / available.sum() * wanted
    sizes = exact.floor().long()
    left = wanted - int(sizes.sum())
    order = (exact - sizes).argsort(descending=True, stable=True)
    sizes[order[:left]] += 1
    return sizes
