"""The settings of a training run: what decides the weights, and the rest of the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from inkdigits.data.synthesis import SynthesisConfig
from inkdigits.decision.risk import RISK
from inkdigits.errors import TrainingError
from inkdigits.model.networks import NETWORKS, NetworkName
from inkdigits.training.augmentation import AugmentationConfig
from inkdigits.types import Device


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How weights are trained.

    Attributes:
        epochs: passes over the training split.
        batch_size: pictures per step; the last, incomplete batch of an epoch is left out.
        synthetic: share of a batch that are digits from ``synthesis``, 0 to 0.9.
        others: share of a batch that are pictures without a digit, 0 to 0.9.
        learning_rate: the peak of the one-cycle schedule (Smith and Topin, "Super-convergence",
            arXiv:1708.07120), reached after ``warmup`` of the steps and annealed to almost zero.
        warmup: share of the steps in which the learning rate rises.
        weight_decay: AdamW's, on weight matrices and kernels, not on biases and normalisation.
        ema_decay: decay per step of the exponential moving average of the weights, which is
            validated and kept; 0 keeps the weights themselves.
        augmentation: how the training split's pictures are changed; those from ``synthesis`` are
            changed half as far, because some of them are changed a lot already.
        dropout: probability of every dropout layer; None leaves the network's own. 0 learns
            faster in the first epochs and, without teachers, ends lower.
        network: which network is trained.
        distillation: share of the loss that is the distance from the teachers' answers, 0 to 1;
            the rest is cross-entropy with the labels.
        distillation_temperature: divides both sides' logits in that distance.
        keep: which epoch's weights a run leaves: the one with the lowest validation loss, or the
            last.
        seed: of everything random in the run.

    Raises:
        TrainingError: a value outside its range; the message names both.
    """

    epochs: int = 40
    batch_size: int = 128
    synthetic: float = 0.0
    others: float = 0.0
    learning_rate: float = 2e-3
    warmup: float = 0.15
    weight_decay: float = 0.02
    ema_decay: float = 0.999
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    dropout: float | None = None
    network: NetworkName = "DigitNet"
    distillation: float = 0.0
    distillation_temperature: float = 2.0
    keep: Literal["best", "last"] = "best"
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {
            "epochs": (self.epochs, 1, 100_000),
            "batch_size": (self.batch_size, 2, 65_536),
            "synthetic": (self.synthetic, 0.0, 0.9),
            "others": (self.others, 0.0, 0.9),
            "synthetic and others together": (self.synthetic + self.others, 0.0, 0.9),
            "learning_rate": (self.learning_rate, 1e-8, 10.0),
            "warmup": (self.warmup, 0.001, 0.999),
            "weight_decay": (self.weight_decay, 0.0, 10.0),
            "ema_decay": (self.ema_decay, 0.0, 0.999999),
            "dropout": (0.0 if self.dropout is None else self.dropout, 0.0, 0.99),
            "distillation": (self.distillation, 0.0, 1.0),
            "distillation_temperature": (self.distillation_temperature, 0.1, 100.0),
        }
        for name, (value, low, high) in limits.items():
            if not low <= value <= high:
                raise TrainingError(f"{name} is {value}; it must be between {low} and {high}")
        if self.network not in NETWORKS:
            raise TrainingError(
                f"network is {self.network!r}; it must be one of {', '.join(NETWORKS)}"
            )
        if self.keep not in ("best", "last"):
            raise TrainingError(f"keep is {self.keep!r}; it must be best or last")

    @property
    def mixture(self) -> tuple[int, int, int]:
        """Pictures in a batch: of the training split, digits from ``synthesis``, others."""
        synthetic = round(self.synthetic * self.batch_size)
        others = round(self.others * self.batch_size)
        return self.batch_size - synthetic - others, synthetic, others


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a run writes.

    Attributes:
        run: weights, temperature, artifact, run.json and the checkpoint.
        figures: PNG files.
        logs: TensorBoard's event files.
    """

    run: Path
    figures: Path
    logs: Path


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A whole run: how to train, from what, and where to write.

    Attributes:
        train: how the weights are trained.
        folders: where to write.
        device: where to train.
        synthesis: what to make beside the digits, where ``train`` gives that a share of each
            batch and there are no ``pictures``.
        pictures: files of ``synthesis_cache.write_synthetic``, which are used instead.
        initial: weights (``mnist_classifier.pt`` of another run) to start from.
        teachers: weights to learn from, ``mnist_classifier.pt`` of other runs.
        resume: continue from the folder's checkpoint.
        risk: tolerated share of wrong readings among the accepted.
        progress: show progress bars on standard error.
    """

    train: TrainConfig
    folders: Folders
    device: Device = "auto"
    synthesis: SynthesisConfig | None = None
    pictures: tuple[Path, ...] = ()
    initial: Path | None = None
    teachers: tuple[Path, ...] = ()
    resume: bool = False
    risk: float = RISK
    progress: bool = False
