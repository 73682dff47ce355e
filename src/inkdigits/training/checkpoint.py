"""The state of a training run: everything that changes, and its checkpoint on disk."""

from __future__ import annotations

import hashlib
import io
import math
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from inkdigits.errors import TrainingError
from inkdigits.evaluation.environment import hardware, versions
from inkdigits.model.artifact import write_atomically
from inkdigits.model.devices import autocast_dtype
from inkdigits.model.networks import NETWORKS
from inkdigits.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Epoch:
    """The figures of one epoch."""

    epoch: int  # counted from 1
    train_loss: float  # mean over augmented pictures, in nats
    validation_loss: float  # in nats, at the best temperature; see ``fit.scaled_loss``
    validation_accuracy: float  # 0 to 1
    learning_rate: float  # at the end of the epoch
    seconds: float  # how long it took, validation included


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state_dict's names and values, as hexadecimal digits.

    >>> weights_digest({"bias": torch.zeros(2)})[:8]
    '6f58b405'
    """
    content = hashlib.sha256()
    for name in sorted(weights):
        content.update(name.encode())
        content.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def _moving_average(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """Return an update whose decay starts low, so the random first weights soon lose weight."""

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
        self.average = None
        if config.ema_decay:
            update = _moving_average(config.ema_decay)
            self.average = AveragedModel(self.model, multi_avg_fn=update, use_buffers=True)
        parameters = list(self.model.parameters())
        matrices: dict[str, Any] = {"params": [p for p in parameters if p.ndim > 1]}
        others = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
        self.optimizer = torch.optim.AdamW(
            [matrices, others],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.scheduler = OneCycleLR(
            self.optimizer, config.learning_rate, config.epochs * steps, pct_start=config.warmup
        )
        self.history: list[Epoch] = []
        # What trained the epochs, in order: a run may be resumed on another machine.
        self.machine = {
            "device": str(device),
            "autocast": str(autocast_dtype(device) or torch.float32).removeprefix("torch."),
            "hardware": hardware(),
            "versions": versions(),
        }
        self.machines: list[dict[str, Any]] = []
        self.kept_weights: dict[str, Tensor] = {}
        self.kept_epoch = 0

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept."""
        return self.model if self.average is None else self.average.module

    def add(self, figures: Epoch) -> None:
        """Add an epoch's figures, and keep its weights where ``config.keep`` asks for them."""
        lowest = min((past.validation_loss for past in self.history), default=math.inf)
        if self.config.keep == "last" or figures.validation_loss < lowest:
            self.kept_epoch = figures.epoch
            self.kept_weights = self.weights()
        self.history.append(figures)
        if not self.machines or self.machines[-1] != self.machine:
            self.machines.append(self.machine)

    def weights(self) -> dict[str, Tensor]:
        """Return a copy, on the CPU, of the weights that are validated."""
        return {
            name: value.detach().to("cpu", copy=True).contiguous()
            for name, value in self.evaluated.state_dict().items()
        }

    def save(self, path: Path) -> None:
        """Write the checkpoint; that of a finished run holds its results only."""
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
        """Return what changes with each step, by name."""
        parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        return parts if self.average is None else {**parts, "average": self.average}

    def load(self, path: Path) -> None:
        """Read a checkpoint; missing, damaged or of another run it raises a TrainingError."""
        try:
            saved = torch.load(path, map_location=self.device, weights_only=True)
        except FileNotFoundError as error:
            raise TrainingError(
                f"there is nothing to resume from: no checkpoint at {path}; leave out --resume"
            ) from error
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
            raise TrainingError(f"the checkpoint {path} cannot be read: {error}") from error
        if not isinstance(saved, dict) or not saved.keys() >= {"fingerprint", "machines"}:
            raise TrainingError(
                f"{path} is not a checkpoint of this version; train again without --resume"
            )
        differing = _differences(saved["fingerprint"], self.fingerprint)
        if differing:
            raise TrainingError(
                f"the checkpoint {path} is of another run; it differs in {', '.join(differing)}. "
                "Train with its settings and data, or without --resume"
            )
        if "to_go_on" in saved:
            for name, part in self._parts().items():
                part.load_state_dict(saved["to_go_on"][name])
        self.history = [Epoch(**figures) for figures in saved["history"]]
        self.machines = saved["machines"]
        self.kept_weights = {k: v.cpu() for k, v in saved["kept_weights"].items()}
        self.kept_epoch = saved["kept_epoch"]


def _differences(saved: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    was, now = dict(flat(saved)), dict(flat(wanted))
    return [
        f"{name} ({was.get(name)} there, {now.get(name)} here)"
        for name in sorted(was.keys() | now.keys())
        if was.get(name) != now.get(name)
    ]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested dictionaries by their dotted names.

    >>> dict(flat({"augmentation": {"shift": 2}, "epochs": 4}))
    {'augmentation.shift': 2, 'epochs': 4}
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
