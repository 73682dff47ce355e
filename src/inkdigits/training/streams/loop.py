"""Train a network on examples that are made while it learns.

Worker processes make batches of examples (``data.pictures``). Each is seen several times, out of
order, and then replaced. The rate is constant after a warm-up and falls to zero at the end, so
that a run can be continued with more steps. A resumed run draws other examples than one that was
not interrupted, so the weights differ.
"""

from __future__ import annotations

import io
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from inkdigits.errors import TrainingError
from inkdigits.model.artifact import write_atomically
from inkdigits.model.devices import autocast_dtype
from inkdigits.types import Report, Rng

Batch: TypeAlias = tuple[Tensor, Tensor]
"""Inputs (B, H, W) uint8, and what is known of each (B, …)."""
Losses: TypeAlias = tuple[Tensor, dict[str, Tensor]]
"""What is made less, and its parts for the log."""

_LOGGED = 500  # steps between two lines of losses
_SAVED = 180.0  # seconds between two checkpoints


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """How a network is trained on a stream of examples."""

    steps: int = 50_000
    learning_rate: float = 3e-3
    warm_up: int = 500  # steps
    decay: float = 0.25  # share of the steps in which the rate falls to zero, at the end
    weight_decay: float = 0.01
    ema_decay: float = 0.999  # per step
    reuse: int = 2  # steps for each new batch
    kept: int = 64  # batches of each size that are kept to be seen again
    seed: int = 0
    workers: int = 1  # processes that make examples
    data: str = ""  # digest of what examples are made from


@dataclass(frozen=True, slots=True)
class Stream:
    """A network and what it learns from."""

    what: str  # it learns, for the log
    network: Callable[[], nn.Module]  # with random weights
    examples: Callable[[tuple[int, ...]], IterableDataset[Batch]]  # a seed → batches without end
    prepare: Callable[[Tensor, Tensor], Batch]  # a batch → float32 inputs, varied, and targets
    losses_of: Callable[[Tensor, Tensor], Losses]  # output and targets → the losses


def worker_rng(seed: tuple[int, ...]) -> Rng:
    """Return the generator of random numbers of this process, of those that make examples.

    >>> worker_rng((1, 2)).random() == np.random.default_rng((1, 2, 0)).random()
    True
    """
    worker = get_worker_info()
    return np.random.default_rng((*seed, worker.id if worker else 0))


class _Replay:
    """The latest batches of each size, from which others are drawn."""

    def __init__(self, kept: int, rng: Rng) -> None:
        self._rng = rng
        self._most = kept
        self._kept: dict[tuple[int, ...], list[Batch]] = {}
        self._next: dict[tuple[int, ...], int] = {}

    def add(self, batch: Batch) -> tuple[int, ...]:
        size = tuple(batch[0].shape)
        kept = self._kept.setdefault(size, [])
        if len(kept) < self._most:
            kept.append(batch)
        else:
            at = self._next.get(size, 0)
            kept[at] = batch
            self._next[size] = (at + 1) % self._most
        return size

    def draw(self, size: tuple[int, ...]) -> Batch:
        kept = self._kept[size]
        batches = self._rng.integers(len(kept), size=size[0]).tolist()
        rows = self._rng.integers(size[0], size=size[0]).tolist()
        chosen = list(zip(batches, rows, strict=True))
        return (
            torch.stack([kept[batch][0][row] for batch, row in chosen]),
            torch.stack([kept[batch][1][row] for batch, row in chosen]),
        )


class _State:
    """Everything that changes while it learns."""

    def __init__(self, model: nn.Module, config: StreamConfig) -> None:
        self.config = config
        self.step = 0
        self.model = model
        self.optimizer = torch.optim.AdamW(
            model.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.average = AveragedModel(model, avg_fn=self._averaged, use_buffers=True)

    def _averaged(self, average: Tensor, value: Tensor, steps: Tensor | int) -> Tensor:
        """Return the moving average, which forgets the first weights soon."""
        decay = min(self.config.ema_decay, (1 + int(steps)) / (10 + int(steps)))
        return average + (1 - decay) * (value - average)

    def rate(self) -> float:
        """Return the learning rate of the next step."""
        config, left = self.config, self.config.steps - self.step
        falling = max(1.0, config.decay * config.steps)
        return config.learning_rate * min(1.0, (self.step + 1) / config.warm_up, left / falling)

    def save(self, path: Path) -> None:
        content = io.BytesIO()
        parts: dict[str, Any] = {name: getattr(self, name).state_dict() for name in _PARTS}
        torch.save({"step": self.step, "config": asdict(self.config), **parts}, content)
        write_atomically(path, content.getvalue())

    def load(self, path: Path) -> None:
        try:
            saved = torch.load(path, weights_only=True)
            of_another = {
                name
                for name, value in saved["config"].items()
                if name not in _MAY_CHANGE and value != getattr(self.config, name, value)
            }
            if of_another:
                raise TrainingError(
                    f"{path} is of a run with another {', '.join(sorted(of_another))}. Train with "
                    "its settings, or without --resume"
                )
            for name in _PARTS:
                getattr(self, name).load_state_dict(saved[name])
            self.step = int(saved["step"])
        except (OSError, EOFError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
            raise TrainingError(f"{path} cannot be resumed from: {error}") from error

    def output(self, x: Tensor) -> Tensor:
        dtype = autocast_dtype(torch.device("cpu"))
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            found: Tensor = self.model(x)
        return found.float()

    def learn(self, losses: Losses) -> dict[str, float]:
        """Take one step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(losses[0])
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        self.average.update_parameters(self.model)
        found = {name: float(loss.detach()) for name, loss in losses[1].items()}
        if not np.isfinite(list(found.values())).all():
            raise TrainingError(f"the loss of step {self.step} is not finite")
        return found


_PARTS = ("model", "optimizer", "average")
_MAY_CHANGE = ("steps", "workers")  # of the settings, when a run is resumed


def train_on_stream(
    stream: Stream,
    config: StreamConfig,
    checkpoint: Path,
    *,
    resume: bool = False,
    report: Report = lambda _: None,
) -> dict[str, Tensor]:
    """Train a network and return the averaged weights.

    ``checkpoint`` is written every three minutes and at the end, and ``resume`` continues from it.
    ``report`` is called with a line of losses every 500 steps.

    Raises:
        TrainingError: the checkpoint cannot be resumed from, or a loss is not finite.

    >>> nothing = Stream("", lambda: nn.Linear(1, 1), None, None, None)
    >>> train_on_stream(nothing, StreamConfig(), Path("none"), resume=True)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    inkdigits.errors.TrainingError: none cannot be resumed from: ...
    """
    torch.manual_seed(config.seed)
    state = _State(stream.network(), config)
    if resume:
        state.load(checkpoint)
    torch.manual_seed(config.seed + state.step)
    data = stream.examples((config.seed, state.step))
    ahead = 8 if config.workers else None
    loader = DataLoader(data, batch_size=None, num_workers=config.workers, prefetch_factor=ahead)
    log = _Log(stream.what, report)
    replay = _Replay(config.kept, np.random.default_rng((config.seed, state.step, 1)))
    saved = time.monotonic()
    for batch in loader:
        if state.step >= config.steps:  # the checkpoint was the last one
            break
        size = replay.add(batch)
        for _ in range(config.reuse):
            x, y = stream.prepare(*replay.draw(size))
            log.add(state, state.learn(stream.losses_of(state.output(x), y)))
        is_last = state.step >= config.steps
        if is_last or time.monotonic() - saved > _SAVED:
            state.save(checkpoint)
            saved = time.monotonic()
        if is_last:
            break
    return {name: value.clone() for name, value in state.average.module.state_dict().items()}


class _Log:
    """The mean losses since the last line."""

    def __init__(self, what: str, report: Report) -> None:
        self._what = what
        self._report = report
        self._began = time.monotonic()
        self._losses: list[dict[str, float]] = []

    def add(self, state: _State, losses: dict[str, float]) -> None:
        self._losses.append(losses)
        if state.step % _LOGGED:
            return
        means = {name: np.mean([of[name] for of in self._losses]) for name in losses}
        parts = " ".join(f"{name} {value:.4f}" for name, value in means.items())
        self._report(
            f"{self._what}: step {state.step:,} of {state.config.steps:,}, {parts} "
            f"rate {state.rate():.5f} {time.monotonic() - self._began:.0f} s"
        )
        self._losses.clear()
