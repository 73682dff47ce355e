"""The settings of a training run: what decides the weights, and the rest of the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from inkdigits.data.labelled import HELD_BACK
from inkdigits.data.synthesis import SynthesisConfig
from inkdigits.decision.risk import RISK
from inkdigits.model.networks import NetworkName
from inkdigits.training.augmentation import AugmentationConfig
from inkdigits.types import Device


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How weights are trained."""

    epochs: int = 40  # passes over the training split
    batch_size: int = 128  # pictures per step; an epoch's last, incomplete batch is left out
    synthetic: float = 0.0  # share of a batch that are digits from ``synthesis``
    others: float = 0.0  # share of a batch that are pictures without a digit
    # The peak of the one-cycle schedule (Smith and Topin, "Super-convergence", arXiv:1708.07120),
    # reached after the share ``warmup`` of the steps and annealed to almost zero.
    learning_rate: float = 2e-3
    warmup: float = 0.15
    weight_decay: float = 0.02  # AdamW's, on matrices and kernels, not on biases and normalisation
    # Decay per step of the moving average of the weights, which is validated and kept; 0 keeps the
    # weights themselves.
    ema_decay: float = 0.999
    # Of the training split's pictures; those from ``synthesis`` are changed half as far, because
    # some of them are changed a lot already.
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    # Probability of every dropout layer; None leaves the network's own. 0 learns faster in the
    # first epochs and ends lower.
    dropout: float | None = None
    network: NetworkName = "DigitNet"
    keep: Literal["best", "last"] = "best"  # the epoch with the lowest validation loss, or the last
    seed: int = 0  # of everything random in the run

    @property
    def mixture(self) -> tuple[int, int, int]:
        """Pictures in a batch: of the training split, digits from ``synthesis``, others."""
        synthetic = round(self.synthetic * self.batch_size)
        others = round(self.others * self.batch_size)
        return self.batch_size - synthetic - others, synthetic, others


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a run writes."""

    run: Path  # weights, temperature, artifact, run.json and the checkpoint
    figures: Path  # PNG files
    logs: Path  # TensorBoard's event files


@dataclass(frozen=True, slots=True)
class AddConfig:
    """Which labelled pictures a run learns from beside MNIST, and how."""

    sources: tuple[str, ...] = ()  # as ``data.labelled`` reads them
    pattern: str | None = None  # of the label in names
    weight: float | None = None  # how often each is drawn per epoch; None: see ``added.SHARE``
    held_back: float = HELD_BACK  # the share that is kept apart to measure with, 0 to 1


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A whole run: how to train, from what, and where to write."""

    train: TrainConfig
    folders: Folders
    device: Device = "auto"
    # What to make beside the digits, where there are no ``pictures``.
    synthesis: SynthesisConfig | None = None
    pictures: tuple[Path, ...] = ()  # files of ``synthesis_cache.write_synthetic``
    # Weights to start from: ``mnist_classifier.pt`` of another run, or an artifact.
    initial: Path | None = None
    added: AddConfig = field(default_factory=AddConfig)
    segmenter: Path | None = None  # what finds ink, as ``run_folder.read_network_file`` reads it
    line_reader: Path | None = None  # what reads lines, likewise; None is the shipped one
    limit: int | None = None  # the most pictures of MNIST's training part
    # Digits that the temperature is fitted to beside the clean ones; None: as many as those.
    calibration_synthetic: int | None = None
    resume: bool = False  # continue from the folder's checkpoint
    risk: float = RISK  # tolerated share of wrong readings among the accepted
    progress: bool = False  # show progress bars on standard error
