"""Training batches: the training split and what was synthesised, mixed, each augmented anew."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from inkdigits.data.mnist import Digits
from inkdigits.errors import TrainingError
from inkdigits.training.augmentation import AugmentationConfig, augment
from inkdigits.training.config import TrainConfig


def steps_per_epoch(n: int, config: TrainConfig) -> int:
    """Return how many batches n training pictures fill; a TrainingError if it is none.

    >>> steps_per_epoch(300, TrainConfig(batch_size=128))
    2
    """
    wanted = config.mixture[0]
    if n < wanted:
        raise TrainingError(
            f"{n} training pictures do not fill one batch of {wanted}; lower the batch size"
        )
    return n // wanted


class Loader:
    """Draws batches, ``steps`` per epoch, from the training split and what was synthesised.

    The pictures are kept, and the batches made, on ``device``. Fewer pictures than a batch needs
    raise a TrainingError.
    """

    def __init__(
        self, train: Digits, synthetic: Digits | None, config: TrainConfig, device: torch.device
    ) -> None:
        self.steps = steps_per_epoch(len(train), config)
        made = synthetic or Digits(train.inks[:0], train.labels[:0])
        parts = [train, *made.divided()]
        names = ("training pictures", "synthetic digits", "synthetic pictures without a digit")
        for part, size, name in zip(parts, config.mixture, names, strict=True):
            if size and not len(part):
                raise TrainingError(f"each batch needs {size} {name}, and there are none")
        self._parts = [part.to(device) for part in parts]
        self._config = config
        self._device = device

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch: augmented pictures (B, 1, 28, 28) in 0 to 1, and labels (B,)."""
        orders = []
        shuffle = torch.Generator().manual_seed(seed)
        for part, size in zip(self._parts, self._config.mixture, strict=True):
            needed = self.steps * size
            drawn = [torch.zeros(0, dtype=torch.int64)]
            while sum(map(len, drawn)) < needed:
                drawn.append(torch.randperm(len(part), generator=shuffle))
            orders.append(torch.cat(drawn)[:needed].to(self._device).view(self.steps, size))
        generator = torch.Generator(self._device).manual_seed(seed)
        full = self._config.augmentation
        strengths = (full, full.scaled(0.5), full)
        for step in range(self.steps):
            pictures, labels = [], []
            for part, order, strength in zip(self._parts, orders, strengths, strict=True):
                index = order[step]
                if not len(index):
                    continue
                inks = part.inks[index].unsqueeze(1).float() / 255.0
                if full != AugmentationConfig.none():
                    inks = augment(inks, strength, generator)
                pictures.append(inks)
                labels.append(part.labels[index])
            yield torch.cat(pictures), torch.cat(labels)
