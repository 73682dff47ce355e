"""MNIST as whole tensors, and its fixed split.

The 60,000 training pictures are divided once, by a fixed seed and stratified by digit. 44,000 train
the weights, 1,200 are for validation, 14,800 for calibration (temperature and accept thresholds).
A risk of 0.1 % cannot be shown with fewer than 2,995 accepted digits; among 14,432 eight may be
misread, and some digits of MNIST are mislabelled.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import MNIST

from inkdigits.errors import DataError
from inkdigits.types import NO_DIGIT

SPLIT_SEED = 20261123
VALIDATION_FRACTION = 0.02
CALIBRATION_FRACTION = 14.8 / 60


@dataclass(frozen=True, slots=True)
class Digits:
    """Labelled ink."""

    inks: Tensor  # (N, 28, 28) uint8; 0 is background, 255 is ink
    labels: Tensor  # (N,) int64, 0 to 9; NO_DIGIT where there is none to read

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> Digits:
        return Digits(self.inks[index], self.labels[index])

    def divided(self) -> tuple[Digits, Digits]:
        """Return the pictures with a digit, and those without."""
        with_digit = self.labels != NO_DIGIT
        return self[with_digit.nonzero().squeeze(1)], self[(~with_digit).nonzero().squeeze(1)]

    def to(self, device: torch.device) -> Digits:
        """Return the same digits on ``device``."""
        return Digits(self.inks.to(device), self.labels.to(device))

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


def load_splits(
    root: Path,
    *,
    download: bool = False,
    fractions: tuple[float, float] = (VALIDATION_FRACTION, CALIBRATION_FRACTION),
) -> Splits:
    """Read MNIST from ``root`` in TorchVision's layout (``root/MNIST/raw``), and split it.

    ``download`` fetches files that are missing. ``fractions`` are validation's and calibration's
    shares of the training part.

    Raises:
        DataError: the files are missing and ``download`` is off, or they have another shape.

    >>> load_splits(Path("nowhere"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    inkdigits.errors.DataError: MNIST's training part cannot be read from nowhere/MNIST/raw: ...
    """
    training = _read(root, train=True, download=download)
    test = _read(root, train=False, download=download)
    train, validation, calibration = stratified_split(training.labels, fractions, SPLIT_SEED)
    return Splits(training[train], training[validation], training[calibration], test)


def _read(root: Path, *, train: bool, download: bool) -> Digits:
    try:
        dataset = MNIST(str(root), train=train, download=download)
    except (RuntimeError, OSError, ValueError) as error:
        part = "training" if train else "test"
        raise DataError(
            f"MNIST's {part} part cannot be read from {root}/MNIST/raw: {error}"
            + ("" if download else " Pass --download to fetch it, or --data for another folder.")
        ) from error
    inks, labels = dataset.data, dataset.targets.long()
    if inks.ndim != 3 or inks.shape[1:] != (28, 28) or len(inks) != len(labels) or not len(inks):
        raise DataError(
            f"{root}/MNIST/raw holds pictures {tuple(inks.shape)} and {len(labels)} labels; "
            "expected (N, 28, 28) and N"
        )
    return Digits(inks, labels)


def stratified_split(labels: Tensor, fractions: tuple[float, ...], seed: int) -> tuple[Tensor, ...]:
    """Return disjoint, sorted indices: the remainder first, then a part for each of ``fractions``.

    Each part has a rounded share of each digit of the labels (N,). The digits with the largest
    remainders round up, so that the part's size is the rounded share of all pictures.

    Raises:
        DataError: a share is so small that a part would be empty, or they sum to 1 or more.

    >>> [len(part) for part in stratified_split(torch.arange(20) % 10, (0.5,), seed=0)]
    [10, 10]
    """
    if not 0 < sum(fractions) < 1:
        raise DataError(f"the parts' shares {fractions} must sum to more than 0 and less than 1")
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
