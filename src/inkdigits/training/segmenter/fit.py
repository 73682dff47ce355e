"""Train the network that finds ink, on pictures that are made while it learns.

Worker processes make pictures whose ink is known (``data.pictures``). Each is seen a few times, out
of order, and then replaced. The rate is constant after a warm-up and falls to zero at the end, so
that a run can be continued with more steps. A resumed run draws other pictures than one that was
not interrupted, so the weights differ.
"""

from __future__ import annotations

import io
import logging
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that PyTorch's own documentation uses
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from inkdigits.data.pictures.foreground import Sources
from inkdigits.data.pictures.pairs import Pair, centre_map, make_pair
from inkdigits.errors import TrainingError
from inkdigits.ink.segment import LEAST_DEVIATION, NEARER, Window, near_window, view, whole_window
from inkdigits.model.artifact import write_atomically
from inkdigits.model.devices import autocast_dtype
from inkdigits.model.networks import InkNet
from inkdigits.types import Doubles, Pixels, Rng

logger = logging.getLogger(__name__)

Size: TypeAlias = tuple[int, int]
# Views per step, by their height and width: about the same time per step for each.
BATCHES: dict[Size, int] = {(128, 128): 24, (192, 192): 11, (256, 256): 6, (96, 320): 13}
# Views of a size that are kept to be seen again, in batches.
_KEPT_BATCHES = 64
_LOGGED = 500  # steps between two lines of losses


@dataclass(frozen=True, slots=True)
class SegmentConfig:
    """How the segmenter is trained."""

    steps: int = 50_000
    learning_rate: float = 3e-3
    warm_up: int = 500  # steps
    decay: float = 0.25  # share of the steps in which the rate falls to zero, at the end
    weight_decay: float = 0.01
    ema_decay: float = 0.999  # per step
    reuse: int = 2  # steps for each batch of new pictures
    thin: float = 8.0  # how much more a thin stroke's pixels count
    seed: int = 0
    workers: int = 1  # processes that make pictures


class _Views(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches of views: (B, H, W) shades, and (B, 2, H, W) ink and centres, all uint8."""

    def __init__(self, sources: Sources, seed: tuple[int, ...]) -> None:
        self._sources = sources
        self._seed = seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        rng = np.random.default_rng((*self._seed, worker.id if worker else 0))
        waiting: dict[Size, list[tuple[Pixels, Pixels]]] = {size: [] for size in BATCHES}
        while True:
            for size, shades, targets in views(make_pair(rng, self._sources), rng):
                waiting[size].append((shades, targets))
                if len(waiting[size]) == BATCHES[size]:
                    pictures, known = zip(*waiting[size], strict=True)
                    waiting[size].clear()
                    yield torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(known))


def views(pair: Pair, rng: Rng) -> list[tuple[Size, Pixels, Pixels]]:
    """Return the views of a picture that reading it takes, each with its targets.

    >>> pair = Pair(np.zeros((60, 60), np.uint8), np.zeros((60, 60), np.float32), ())
    >>> {size for size, _, _ in views(pair, np.random.default_rng(0))} <= set(BATCHES)
    True
    """
    window, size = _squared(*whole_window(pair.picture.shape))
    chosen = [(window, size)]
    near = near_window(_region(pair, rng))
    if near[1][0] != near[1][1]:
        near = _strip(near[0])
    is_nearer = near[0][2] - near[0][0] < NEARER * (window[2] - window[0])
    # Parts of pictures with nothing in them are seen half as often.
    if is_nearer and (pair.ink.any() or rng.random() < 0.5):
        chosen.append(near)
    centres = centre_map(pair)
    made = []
    for box, shape in chosen:
        targets = [view(part, box, shape, repeat=False) for part in (pair.ink, centres)]
        known = np.rint(np.clip(np.stack(targets), 0, 1) * 255).astype(np.uint8)
        made.append((shape, view(pair.picture, box, shape), known))
    return made


def _squared(window: Window, size: Size) -> tuple[Window, Size]:
    """Return the window with a size of BATCHES: a square, or the strip."""
    left, top, right, bottom = window
    if right - left > 2.2 * (bottom - top):
        return _strip(window)
    x, y, side = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2
    return (x - side, y - side, x + side, y + side), (max(size), max(size))


def _strip(window: Window) -> tuple[Window, Size]:
    left, top, right, bottom = window
    wide = max(right - left, (bottom - top) * 320 / 96) / 2
    x, y, high = (left + right) / 2, (top + bottom) / 2, wide * 96 / 320
    return (x - wide, y - high, x + wide, y + high), (96, 320)


def _region(pair: Pair, rng: Rng) -> Window:
    """Return where a first pass could have found ink: too much or too little sometimes."""
    height, width = pair.ink.shape
    rows, columns = (
        np.flatnonzero(pair.ink.max(axis=1) > 0.3),
        np.flatnonzero(pair.ink.max(axis=0) > 0.3),
    )
    if len(rows):
        left, right = float(columns[0]), float(columns[-1] + 1)
        top, bottom = float(rows[0]), float(rows[-1] + 1)
        side = max(right - left, bottom - top)
        grown = side * (rng.uniform(-0.12, 0.35) if rng.random() < 0.6 else 0.0) / 2
        x, y = rng.normal(0, 0.05, 2) * side
        return left - grown + x, top - grown + y, right + grown + x, bottom + grown + y
    side = max(8.0, max(height, width) * rng.uniform(0.08, 0.5))
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


class _Replay:
    """The latest views of each size, from which batches are drawn."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._kept: dict[Size, list[tuple[Tensor, Tensor]]] = {}
        self._next: dict[Size, int] = {}

    def add(self, shades: Tensor, targets: Tensor) -> Size:
        size = (shades.shape[1], shades.shape[2])
        kept = self._kept.setdefault(size, [])
        if len(kept) < _KEPT_BATCHES:
            kept.append((shades, targets))
        else:
            at = self._next.get(size, 0)
            kept[at] = (shades, targets)
            self._next[size] = (at + 1) % _KEPT_BATCHES
        return size

    def draw(self, size: Size) -> tuple[Tensor, Tensor]:
        kept = self._kept[size]
        batches = self._rng.integers(len(kept), size=BATCHES[size]).tolist()
        rows = self._rng.integers(BATCHES[size], size=BATCHES[size]).tolist()
        chosen = list(zip(batches, rows, strict=True))
        return (
            torch.stack([kept[batch][0][row] for batch, row in chosen]),
            torch.stack([kept[batch][1][row] for batch, row in chosen]),
        )


def prepare(shades: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return views as the network takes them, changed at random, and their targets, 0 to 1.

    >>> x, y = prepare(torch.zeros(2, 32, 32), torch.zeros(2, 2, 32, 32))
    >>> x.shape, y.shape
    (torch.Size([2, 1, 32, 32]), torch.Size([2, 2, 32, 32]))
    """
    n = len(shades)
    x, y = shades.float().unsqueeze(1), targets.float() / 255
    each = (n, 1, 1, 1)
    x = torch.where(torch.rand(each) < 0.25, 255 - x, x)
    gamma = torch.where(torch.rand(each) < 0.3, torch.empty(each).uniform_(-0.5, 0.5).exp(), 1.0)
    x = 255 * (x / 255) ** gamma
    if torch.rand(()) < 0.5:
        x, y = x.flip(3), y.flip(3)
    if torch.rand(()) < 0.2:
        x, y = x.flip(2), y.flip(2)
    if x.shape[2] == x.shape[3] and torch.rand(()) < 0.2:
        x, y = x.transpose(2, 3), y.transpose(2, 3)
    deviation = x.std((2, 3), keepdim=True, correction=0).clamp_min(LEAST_DEVIATION)
    x = (x - x.mean((2, 3), keepdim=True)) / deviation
    return x.contiguous(memory_format=torch.channels_last), y


def segment_loss(output: Tensor, targets: Tensor, thin: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return three losses: of pixels of ink, of the overlap of ink, and of the digits' centres.

    Pixels of thin strokes, and those beside them, count up to ``1 + thin`` times. The overlap is
    Milletari, Navab and Ahmadi's Dice loss ("V-Net", arXiv:1606.04797), for pictures with ink.
    ``output`` and ``targets`` are (B, 2, H, W), logits and 0 to 1.

    >>> losses = segment_loss(torch.zeros(1, 2, 32, 32), torch.zeros(1, 2, 32, 32), 4.0)
    >>> [round(float(loss), 2) for loss in losses]
    [0.69, 0.0, 0.69]
    """
    ink, known = output[:, :1], targets[:, :1]
    # At half the resolution, which takes a quarter of the time.
    n, _, height, width = known.shape
    half = known.reshape(n, 1, height // 2, 2, width // 2, 2).mean((3, 5))
    weight = 1 + thin * F.max_pool2d(half, 3, 1, 1).sqrt() * (1 - F.avg_pool2d(half, 5, 1, 2)) ** 2
    weight = F.interpolate(weight, scale_factor=2.0, mode="nearest")
    pixels = (weight * F.binary_cross_entropy_with_logits(ink, known, reduction="none")).mean()
    share, total = ink.sigmoid(), known.sum((1, 2, 3))
    both = (share * known).sum((1, 2, 3))
    squares = (share * share + known * known).sum((1, 2, 3))
    overlap = ((total > 3).float() * (1 - (2 * both + 1) / (squares + 1))).mean()
    centres = F.binary_cross_entropy_with_logits(output[:, 1:], targets[:, 1:])
    return pixels, overlap, centres


class _State:
    """Everything that changes while it learns."""

    def __init__(self, config: SegmentConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.step = 0
        self.model = InkNet().to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.average = AveragedModel(self.model, avg_fn=self._averaged, use_buffers=True)

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


_PARTS = ("model", "optimizer", "average")
_MAY_CHANGE = ("steps", "workers")  # of the settings, when a run is resumed


def train_segmenter(
    sources: Sources,
    config: SegmentConfig,
    checkpoint: Path,
    *,
    resume: bool = False,
    save_every: float = 180.0,
    report: Callable[[str], None] = logger.info,
) -> dict[str, Tensor]:
    """Train an ``InkNet`` and return the averaged weights.

    The checkpoint is written every ``save_every`` seconds and at the end; ``resume`` continues from
    it. ``report`` is called with a line of losses every 500 steps.

    Raises:
        TrainingError: the checkpoint cannot be resumed from, or a loss is not finite.

    >>> train_segmenter(Sources(), SegmentConfig(), Path("none"), resume=True)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    inkdigits.errors.TrainingError: none cannot be resumed from: ...
    """
    state = _State(config)
    if resume:
        state.load(checkpoint)
    torch.manual_seed(config.seed + state.step)
    data = _Views(sources, (config.seed, state.step))
    ahead = 8 if config.workers else None
    loader = DataLoader(data, batch_size=None, num_workers=config.workers, prefetch_factor=ahead)
    replay = _Replay(np.random.default_rng((config.seed, state.step, 1)))
    losses, saved, began = np.zeros(3), time.monotonic(), time.monotonic()
    for shades, targets in loader:
        if state.step >= config.steps:  # the checkpoint was the last one
            break
        size = replay.add(shades, targets)
        for _ in range(config.reuse):
            losses += _step(state, *replay.draw(size))
            if state.step % _LOGGED == 0:
                report(_line(state, losses / _LOGGED, time.monotonic() - began))
                losses[:] = 0
        is_last = state.step >= config.steps
        if is_last or time.monotonic() - saved > save_every:
            state.save(checkpoint)
            saved = time.monotonic()
        if is_last:
            break
    return {name: value.clone() for name, value in state.average.module.state_dict().items()}


def _line(state: _State, losses: Doubles, seconds: float) -> str:
    if not np.isfinite(losses).all():
        raise TrainingError(f"the loss of step {state.step} is not finite")
    pixels, overlap, centres = losses
    return (
        f"finding ink: step {state.step:,} of {state.config.steps:,}, pixels {pixels:.4f} "
        f"overlap {overlap:.4f} centres {centres:.4f} "
        f"rate {state.rate():.5f} {seconds:.0f} s"
    )


def _step(state: _State, shades: Tensor, targets: Tensor) -> Doubles:
    for group in state.optimizer.param_groups:
        group["lr"] = state.rate()
    x, y = prepare(shades, targets)
    dtype = autocast_dtype(torch.device("cpu"))
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        output = state.model(x)
    pixels, overlap, centres = segment_loss(output.float(), y, state.config.thin)
    state.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(2 * pixels + overlap + 0.5 * centres)
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), 5.0)
    state.optimizer.step()
    state.step += 1
    state.average.update_parameters(state.model)
    return np.array([float(loss.detach()) for loss in (pixels, overlap, centres)])
