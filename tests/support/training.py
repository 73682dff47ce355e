"""A configuration that trains in seconds, and what it trains on."""

from dataclasses import replace

import torch

from inkdigits.data.mnist import Digits
from inkdigits.training.config import TrainConfig
from inkdigits.training.fit import FitInputs, FitResult, fit
from inkdigits.types import NO_DIGIT

CONFIG = TrainConfig(
    network="MNISTClassifier", epochs=3, batch_size=90, learning_rate=3e-3, ema_decay=0.9
)
ONE_EPOCH = replace(CONFIG, epochs=1)


def fit_here(inputs: FitInputs, config: TrainConfig, **options) -> FitResult:
    return fit(inputs, config, torch.device("cpu"), **options)


def noise(n: int) -> Digits:
    """Pictures without a digit."""
    generator = torch.Generator().manual_seed(5)
    inks = torch.randint(0, 256, (n, 28, 28), generator=generator, dtype=torch.uint8)
    return Digits(inks, torch.full((n,), NO_DIGIT))
