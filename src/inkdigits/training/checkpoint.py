"""All that changes while training, and its way to disk and back."""

from __future__ import annotations

import hashlib
import io
import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from inkdigits.errors import TrainingError
from inkdigits.evaluation.environment import hardware, versions
from inkdigits.model.artifact import write_atomically
from inkdigits.model.devices import autocast_dtype
from inkdigits.model.networks import NETWORKS, NetworkName
from inkdigits.training.augmentation import AugmentationConfig


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a run trains.

    Attributes:
        epochs: passes over the training split.
        batch_size: pictures a step; the last, incomplete batch of an epoch is left out.
        synthetic: share of a batch that are digits from ``synthesis``, 0 to 0.9.
        others: share of a batch that are pictures without a digit, 0 to 0.9.
        learning_rate: the peak of the one-cycle schedule (Smith and Topin, "Super-convergence",
            arXiv:1708.07120), reached after ``warmup`` of the steps and annealed to almost zero.
        warmup: share of the steps in which the learning rate rises.
        weight_decay: AdamW's, on weight matrices and kernels, not on biases and normalisation.
        ema_decay: a step's decay of the exponential moving average of the weights, which is what
            is validated and kept; 0 keeps the weights themselves.
        augmentation: how the training split's pictures are changed; those from ``synthesis`` are
            changed half as far, for some of them are changed a lot already.
        dropout: probability of every dropout layer; None leaves the network's own. 0 learns
            faster in the first epochs and, without teachers, ends lower.
        network: which network is trained.
        distillation: share of the loss that is the distance from the teachers' answers, 0 to 1;
            the rest is cross-entropy with the labels.
        distillation_temperature: divides both sides' logits in that distance.
        keep: which epoch's weights a run leaves: the one with the lowest validation loss, or the
            last.
        seed: of everything random in the run.
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
            raise TrainingError(f"network {self.network!r} is none of {', '.join(NETWORKS)}")
        if self.keep not in ("best", "last"):
            raise TrainingError(f"keep is {self.keep!r}; it must be best or last")

    @property
    def mixture(self) -> tuple[int, int, int]:
        """Pictures in a batch: of the training split, digits from ``synthesis``, others."""
        synthetic = round(self.synthetic * self.batch_size)
        others = round(self.others * self.batch_size)
        return self.batch_size - synthetic - others, synthetic, others


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch's figures: mean training loss (nats, augmented pictures), then validation's.

    The validation loss is that at the best temperature, see ``train.scaled_loss``.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state_dict's names and values."""
    content = hashlib.sha256()
    for name in sorted(weights):
        content.update(name.encode())
        content.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Where and with what epochs are trained, as JSON takes it."""
    return {
        "device": str(device),
        "autocast": str(autocast_dtype(device) or torch.float32).removeprefix("torch."),
        "hardware": hardware(),
        "versions": versions(),
    }


def _moving_average(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """EMA update whose decay starts low, so that the random first weights are soon forgotten."""

    def update(average: Any, current: Any, n_averaged: Tensor | int) -> None:
        n = float(n_averaged)
        rate = min(decay, (1.0 + n) / (10.0 + n))
        get_ema_multi_avg_fn(rate)(average, current, n_averaged)  # type: ignore[no-untyped-call]

    return update


class TrainingState:
    """Network, moving average, optimiser, schedule, history and the weights to keep so far."""

    def __init__(
        self,
        config: TrainConfig,
        steps: int,
        device: torch.device,
        fingerprint: dict[str, Any],
        initial: Mapping[str, Tensor] | None,
    ) -> None:
        self.config = config
        self.device = device
        self.fingerprint = fingerprint
        # channels_last is the layout that convolutions on CPUs and tensor cores work in.
        self.model: nn.Module = NETWORKS[config.network]()
        if initial is not None:
            self.model.load_state_dict(dict(initial))
        if config.dropout is not None:
            for layer in self.model.modules():
                if isinstance(layer, nn.Dropout | nn.Dropout2d):
                    layer.p = config.dropout
        self.model = self.model.to(memory_format=torch.channels_last).to(device)
        self.average = (
            AveragedModel(
                self.model, multi_avg_fn=_moving_average(config.ema_decay), use_buffers=True
            )
            if config.ema_decay
            else None
        )
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            fused=device.type in ("cpu", "cuda"),
        )
        self.scheduler = OneCycleLR(
            self.optimizer,
            max_lr=config.learning_rate,
            total_steps=config.epochs * steps,
            pct_start=config.warmup,
        )
        self.history: list[Epoch] = []
        # A run may be interrupted and go on elsewhere: what trained its epochs, in order.
        self.machine = describe_machine(device)
        self.machines: list[dict[str, Any]] = []
        self.kept_weights: dict[str, Tensor] = {}
        self.kept_epoch = 0

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept."""
        return self.model if self.average is None else self.average.module

    def add(self, figures: Epoch) -> None:
        """Note an epoch's figures, and keep its weights where ``config.keep`` asks for them."""
        lowest = min((past.validation_loss for past in self.history), default=math.inf)
        if self.config.keep == "last" or figures.validation_loss < lowest:
            self.kept_epoch = figures.epoch
            self.kept_weights = self.weights()
        self.history.append(figures)
        if not self.machines or self.machines[-1] != self.machine:
            self.machines.append(self.machine)

    def weights(self) -> dict[str, Tensor]:
        """A copy, on the CPU, of the weights that are validated."""
        return {
            name: value.detach().to("cpu", copy=True).contiguous()
            for name, value in self.evaluated.state_dict().items()
        }

    def save(self, path: Path) -> None:
        """Write all of it, whole or not at all; of a finished run only what it leaves."""
        saved: dict[str, Any] = {
            "fingerprint": self.fingerprint,
            "history": [asdict(figures) for figures in self.history],
            "machines": self.machines,
            "kept_weights": self.kept_weights,
            "kept_epoch": self.kept_epoch,
        }
        if len(self.history) < self.config.epochs:
            saved["to_go_on"] = {name: part.state_dict() for name, part in self._parts().items()}
        buffer = io.BytesIO()
        torch.save(saved, buffer)
        write_atomically(path, buffer.getvalue())

    def _parts(self) -> dict[str, Any]:
        """What changes with each step, by name."""
        parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        return parts if self.average is None else {**parts, "average": self.average}

    def load(self, path: Path) -> None:
        """Read back what ``save`` wrote.

        Raises:
            TrainingError: missing, unreadable, or of another configuration or data.
        """
        if not path.is_file():
            raise TrainingError(f"there is nothing to resume from: no checkpoint at {path}")
        try:
            saved = torch.load(path, map_location=self.device, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
            raise TrainingError(f"the checkpoint {path} can't be read: {error}") from error
        if not isinstance(saved, dict) or not saved.keys() >= {"fingerprint", "machines"}:
            raise TrainingError(f"{path} isn't a checkpoint of this version of inkdigits train")
        differing = _differences(saved["fingerprint"], self.fingerprint)
        if differing:
            raise TrainingError(
                f"the checkpoint {path} is of another run; it differs in {', '.join(differing)}"
            )
        if "to_go_on" in saved:
            for name, part in self._parts().items():
                part.load_state_dict(saved["to_go_on"][name])
        self.history = [Epoch(**figures) for figures in saved["history"]]
        self.machines = saved["machines"]
        self.kept_weights = {k: v.cpu() for k, v in saved["kept_weights"].items()}
        self.kept_epoch = saved["kept_epoch"]


def _differences(saved: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name in sorted(saved.keys() | wanted.keys()):
        was, now = saved.get(name), wanted.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            names += _differences(was, now, f"{prefix}{name}.")
        elif was != now:
            names.append(f"{prefix}{name} ({was} there, {now} here)")
    return names
