"""fit: data + model + config + device → trained weights. It writes one checkpoint, no reports.

Reproducibility: every epoch draws its order, augmentation and dropout from (seed, epoch), so a run
that was interrupted and resumed ends with the same weights, bit for bit, as one that wasn't, on
the same machine, library versions and number of threads. Across machines, thread counts or
devices, floating-point sums are taken in another order and weights differ slightly.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import pickle
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from inkdigits.augmentation import AugmentationConfig, augment
from inkdigits.data import Digits
from inkdigits.errors import BackendUnavailableError, TrainingError
from inkdigits.model import MNISTClassifier
from inkdigits.preprocessing import MEAN, STD

DeviceName: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a run trains.

    Attributes:
        epochs: passes over the training split.
        batch_size: pictures a step; the last, incomplete batch of an epoch is left out.
        learning_rate: the peak of the one-cycle schedule (Smith and Topin, "Super-convergence",
            arXiv:1708.07120), reached after ``warmup`` of the steps and annealed to almost zero.
        warmup: share of the steps in which the learning rate rises.
        weight_decay: AdamW's, on weight matrices and kernels, not on biases and normalisation.
        ema_decay: a step's decay of the exponential moving average of the weights, which is what
            is validated and kept; 0 keeps the weights themselves.
        augmentation: how pictures are changed.
        dropout: probability of both dropout layers; None leaves the network's own (0.25 and 0.5).
            0 learns faster in the first epochs and ends lower.
        seed: of everything random in the run.
    """

    epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 2e-3
    warmup: float = 0.15
    weight_decay: float = 0.02
    ema_decay: float = 0.999
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    dropout: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {
            "epochs": (self.epochs, 1, 100_000),
            "batch_size": (self.batch_size, 2, 65_536),
            "learning_rate": (self.learning_rate, 1e-8, 10.0),
            "warmup": (self.warmup, 0.001, 0.999),
            "weight_decay": (self.weight_decay, 0.0, 10.0),
            "ema_decay": (self.ema_decay, 0.0, 0.999999),
            "dropout": (0.0 if self.dropout is None else self.dropout, 0.0, 0.99),
        }
        for name, (value, low, high) in limits.items():
            if not low <= value <= high:
                raise TrainingError(f"{name} is {value}; it must be between {low} and {high}")


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch's figures: mean training loss (nats, augmented pictures), then validation's."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class FitResult:
    """What training leaves.

    Attributes:
        weights: state_dict of MNISTClassifier on the CPU, from the epoch with the lowest
            validation loss (accuracy on a few thousand pictures moves in steps too coarse to
            choose by).
        best_epoch: that epoch, counted from 1.
        history: every epoch's figures.
        stopped_early: ``stop_when`` ended the run before its last epoch.
    """

    weights: dict[str, Tensor]
    best_epoch: int
    history: list[Epoch]
    stopped_early: bool = False


def resolve_device(name: DeviceName = "auto") -> torch.device:
    """The device to train on; "auto" is the first present of cuda, mps, cpu.

    Raises:
        BackendUnavailableError: the device that was asked for isn't here.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(device for device, present in available.items() if present))
    if name not in available:
        raise BackendUnavailableError(f"device {name!r} is none of auto, {', '.join(available)}")
    if not available[name]:
        here = ", ".join(device for device, present in available.items() if present)
        raise BackendUnavailableError(f"device {name!r} isn't on this machine; it has {here}")
    return torch.device(name)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The type to multiply in, or None for float32.

    bfloat16 needs no loss scaling. A CPU without bfloat16 dot products emulates them, many times
    slower than float32, so there it isn't used.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return None


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks instead of returning them to the system after each step.

    Activations of tens of MB are otherwise mapped, zeroed by the kernel and unmapped at every
    step; keeping them made an epoch about 1.4 times as fast (docs/experiments.md). Elsewhere than
    on glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_max = -1, -4
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)


def standardise(inks: Tensor) -> Tensor:
    """(B, 28, 28) uint8 → (B, 1, 28, 28) float32 as the network takes it."""
    return (inks.unsqueeze(1).float() / 255.0 - MEAN) / STD


@torch.inference_mode()
def logits(model: nn.Module, inks: Tensor, batch_size: int = 500) -> Tensor:
    """The network's answers in evaluation mode and float32.

    Args:
        model: takes (B, 1, 28, 28) float32; its device is where the work is done.
        inks: (N, 28, 28) uint8.
        batch_size: pictures at a time.

    Returns:
        (N, 10) float32 on the CPU.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts = [
        model(standardise(part.to(device))).float().cpu() for part in torch.split(inks, batch_size)
    ]
    model.train(was_training)
    return torch.cat(parts)


def fit(
    train: Digits,
    validation: Digits,
    config: TrainConfig,
    device: torch.device,
    *,
    initial: Mapping[str, Tensor] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    log_dir: Path | None = None,
    progress: bool = False,
    stop_when: Callable[[Epoch], bool] | None = None,
    validate_every: int | None = None,
) -> FitResult:
    """Train MNISTClassifier and return the weights with the lowest validation loss.

    Args:
        train: what the weights are fitted to.
        validation: what chooses the epoch.
        config: how.
        device: where; see ``resolve_device``.
        initial: state_dict to start from; None starts from random weights.
        checkpoint: file that holds the state after each epoch, for ``resume``.
        resume: go on from ``checkpoint``; only the epoch that was under way is lost.
        log_dir: folder for TensorBoard's event files.
        progress: show a bar with loss, validation accuracy and time left, on standard error.
        stop_when: called with each epoch's figures; true ends the run there.
        validate_every: steps after which, within an epoch too, ``stop_when`` is called with the
            figures so far; where it then ends the run, they stand for that epoch, and the
            checkpoint stays at the epoch before. None validates at the end of epochs only.

    Raises:
        TrainingError: fewer pictures than a batch, a loss that is not finite, or a checkpoint
            that is missing, unreadable, or of another configuration or data.
    """
    steps = len(train) // config.batch_size
    if not steps:
        raise TrainingError(
            f"{len(train)} training pictures don't fill one batch of {config.batch_size}"
        )
    keep_freed_memory()
    torch.manual_seed(config.seed)
    fingerprint = _fingerprint(config, train, validation, initial)
    state = _State(config, steps, device, fingerprint, initial)
    if resume:
        if checkpoint is None:
            raise TrainingError("there is nothing to resume from: no checkpoint was named")
        state.load(checkpoint)
    train, validation = train.to(device), validation.to(device)
    writer = SummaryWriter(str(log_dir), purge_step=len(state.history) + 1) if log_dir else None
    stopped = False
    try:
        with tqdm(
            total=config.epochs * steps,
            initial=len(state.history) * steps,
            disable=not progress,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5,
        ) as bar:
            while len(state.history) < config.epochs and not stopped:
                figures, stopped = _run_epoch(
                    state, train, validation, config, steps, bar, stop_when, validate_every
                )
                if writer:
                    for name, value in asdict(figures).items():
                        if name != "epoch":
                            writer.add_scalar(name, value, figures.epoch)
                if checkpoint and not stopped:
                    state.save(checkpoint)
                stopped = stopped or bool(stop_when and stop_when(figures))
    finally:
        if writer:
            writer.close()
    return FitResult(state.best_weights, state.best_epoch, state.history, stopped)


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state_dict's names and values."""
    content = hashlib.sha256()
    for name in sorted(weights):
        content.update(name.encode())
        content.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def _fingerprint(
    config: TrainConfig,
    train: Digits,
    validation: Digits,
    initial: Mapping[str, Tensor] | None,
) -> dict[str, Any]:
    return {
        "config": asdict(config),
        "train": train.digest(),
        "validation": validation.digest(),
        "initial": weights_digest(initial) if initial else None,
    }


def _moving_average(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """EMA update whose decay starts low, so that the random first weights are soon forgotten."""

    def update(average: Any, current: Any, n_averaged: Tensor | int) -> None:
        n = float(n_averaged)
        rate = min(decay, (1.0 + n) / (10.0 + n))
        get_ema_multi_avg_fn(rate)(average, current, n_averaged)  # type: ignore[no-untyped-call]

    return update


class _State:
    """All that changes while training, and its way to disk and back."""

    def __init__(
        self,
        config: TrainConfig,
        steps: int,
        device: torch.device,
        fingerprint: dict[str, Any],
        initial: Mapping[str, Tensor] | None,
    ) -> None:
        self.device = device
        self.fingerprint = fingerprint
        # channels_last is the layout that convolutions on CPUs and tensor cores work in.
        self.model = MNISTClassifier()
        if initial is not None:
            self.model.load_state_dict(dict(initial))
        if config.dropout is not None:
            self.model.dropout1.p = self.model.dropout2.p = config.dropout
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
        self.best_weights: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.best_loss = math.inf

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept."""
        return self.model if self.average is None else self.average.module

    def add(self, figures: Epoch) -> None:
        self.history.append(figures)
        if figures.validation_loss < self.best_loss:
            self.best_loss, self.best_epoch = figures.validation_loss, figures.epoch
            self.best_weights = {
                name: value.detach().to("cpu", copy=True).contiguous()
                for name, value in self.evaluated.state_dict().items()
            }

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        torch.save(
            {
                "fingerprint": self.fingerprint,
                "model": self.model.state_dict(),
                "average": self.average.state_dict() if self.average else None,
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "history": [asdict(figures) for figures in self.history],
                "best_weights": self.best_weights,
                "best_epoch": self.best_epoch,
                "best_loss": self.best_loss,
            },
            temporary,
        )
        temporary.replace(path)

    def load(self, path: Path) -> None:
        if not path.is_file():
            raise TrainingError(f"there is nothing to resume from: no checkpoint at {path}")
        try:
            saved = torch.load(path, map_location=self.device, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
            raise TrainingError(f"the checkpoint {path} can't be read: {error}") from error
        if not isinstance(saved, dict) or "fingerprint" not in saved:
            raise TrainingError(f"{path} isn't a checkpoint of inkdigits train")
        differing = _differences(saved["fingerprint"], self.fingerprint)
        if differing:
            raise TrainingError(
                f"the checkpoint {path} is of another run; it differs in {', '.join(differing)}"
            )
        self.model.load_state_dict(saved["model"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        self.history = [Epoch(**figures) for figures in saved["history"]]
        self.best_weights = {k: v.cpu() for k, v in saved["best_weights"].items()}
        self.best_epoch, self.best_loss = saved["best_epoch"], saved["best_loss"]


def _differences(saved: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name in sorted(saved.keys() | wanted.keys()):
        was, now = saved.get(name), wanted.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            names += _differences(was, now, f"{prefix}{name}.")
        elif was != now:
            names.append(f"{prefix}{name} ({was} there, {now} here)")
    return names


def _run_epoch(
    state: _State,
    train: Digits,
    validation: Digits,
    config: TrainConfig,
    steps: int,
    bar: tqdm[Any],
    stop_when: Callable[[Epoch], bool] | None = None,
    validate_every: int | None = None,
) -> tuple[Epoch, bool]:
    """One epoch's figures, and whether ``stop_when`` ended it before its last step."""
    number = len(state.history) + 1
    started = time.perf_counter()
    # One seed an epoch, so that resuming needs no generator's state.
    seed = config.seed * 1_000_003 + number
    torch.manual_seed(seed)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    order = order[: steps * config.batch_size].to(state.device)
    generator = torch.Generator(state.device).manual_seed(seed)
    dtype = autocast_dtype(state.device)
    state.model.train()
    total = torch.zeros((), device=state.device)
    stopped = False
    for step, index in enumerate(torch.split(order, config.batch_size), start=1):
        pictures = train.inks[index].unsqueeze(1).float() / 255.0  # (B, 1, 28, 28)
        if config.augmentation != AugmentationConfig.none():
            pictures = augment(pictures, config.augmentation, generator)
        pictures = ((pictures - MEAN) / STD).contiguous(memory_format=torch.channels_last)
        with torch.autocast(state.device.type, dtype=dtype, enabled=dtype is not None):
            output = state.model(pictures)
        loss = F.cross_entropy(output.float(), train.labels[index])
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        state.scheduler.step()
        if state.average is not None:
            state.average.update_parameters(state.model)
        total += loss.detach()
        bar.update()
        if step % 50 == 0:
            bar.set_description(f"epoch {number}/{config.epochs} loss {float(total) / step:.4f}")
        if stop_when and validate_every and step % validate_every == 0 and step < steps:
            figures = _figures(state, validation, config, number, float(total) / step, started)
            stopped = bool(stop_when(figures))
            if stopped:
                break
    if not stopped:
        figures = _figures(state, validation, config, number, float(total) / steps, started)
    state.add(figures)
    bar.set_postfix_str(
        f"validation {100 * figures.validation_accuracy:.2f} %, best epoch {state.best_epoch}"
    )
    return figures, stopped


def _figures(
    state: _State,
    validation: Digits,
    config: TrainConfig,
    number: int,
    train_loss: float,
    started: float,
) -> Epoch:
    if not math.isfinite(train_loss):
        raise TrainingError(
            f"the loss of epoch {number} is {train_loss}; lower the learning rate "
            f"({config.learning_rate})"
        )
    answers = logits(state.evaluated, validation.inks)
    labels = validation.labels.cpu()
    return Epoch(
        epoch=number,
        train_loss=train_loss,
        validation_loss=float(F.cross_entropy(answers, labels)),
        validation_accuracy=float((answers.argmax(1) == labels).float().mean()),
        learning_rate=float(state.scheduler.get_last_lr()[0]),
        seconds=time.perf_counter() - started,
    )
