"""Training batches: the training split and what was synthesised, mixed, each augmented anew."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from inkdigits.data.mnist import Digits
from inkdigits.errors import TrainingError
from inkdigits.training.augmentation import AugmentationConfig, augment
from inkdigits.training.checkpoint import TrainConfig
from inkdigits.types import NO_DIGIT


class Sources:
    """What batches are drawn from: the training split, synthetic digits, and others.

    Args:
        train: the training split.
        synthetic: what ``synthesis.synthesise`` made, or None.
        config: how many of each are in a batch, and how far they are changed.

    Raises:
        TrainingError: a batch wants pictures of which there are none.
    """

    def __init__(self, train: Digits, synthetic: Digits | None, config: TrainConfig) -> None:
        self.config = config
        self.parts = [train]
        none = Digits(train.inks[:0], train.labels[:0])
        given = none if synthetic is None else synthetic
        without_digit = given.labels == NO_DIGIT
        wanted = zip(config.mixture[1:], (~without_digit, without_digit), strict=True)
        for (size, chosen), name in zip(wanted, ("digits", "pictures without one"), strict=True):
            part = given[chosen.nonzero().squeeze(1)]
            if size and not len(part):
                raise TrainingError(f"{size} synthetic {name} a batch are wanted; there are none")
            self.parts.append(part)

    def to(self, device: torch.device) -> Sources:
        """Move everything there."""
        self.parts = [part.to(device) for part in self.parts]
        return self

    def batches(
        self, steps: int, seed: int, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented pictures (B, 1, 28, 28) in 0 to 1 and labels (B,), for one epoch."""
        orders = []
        shuffle = torch.Generator().manual_seed(seed)
        for part, size in zip(self.parts, self.config.mixture, strict=True):
            drawn = [torch.zeros(0, dtype=torch.int64)]
            while sum(map(len, drawn)) < steps * size:
                drawn.append(torch.randperm(len(part), generator=shuffle))
            orders.append(torch.cat(drawn)[: steps * size].to(device).view(steps, size))
        generator = torch.Generator(device).manual_seed(seed)
        full = self.config.augmentation
        strengths = (full, full.scaled(0.5), full)
        for step in range(steps):
            pictures, labels = [], []
            for part, order, strength in zip(self.parts, orders, strengths, strict=True):
                index = order[step]
                if not len(index):
                    continue
                inks = part.inks[index].unsqueeze(1).float() / 255.0
                if full != AugmentationConfig.none():
                    inks = augment(inks, strength, generator)
                pictures.append(inks)
                labels.append(part.labels[index])
            yield torch.cat(pictures), torch.cat(labels)
