"""fit: pictures + configuration + device → trained weights. It writes one checkpoint, no reports.

Every epoch draws its order, augmentation and dropout from (seed, epoch). So a run that was
interrupted and resumed ends with the same weights, bit for bit, as one that was not, on the same
machine, library versions and number of threads. Elsewhere floating-point sums are taken in another
order, and weights differ slightly.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that PyTorch's own documentation uses
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from inkdigits.data.mnist import Digits
from inkdigits.errors import TrainingError
from inkdigits.ink.normalize import MEAN, STD
from inkdigits.model.allocator import keep_freed_memory
from inkdigits.model.devices import autocast_dtype
from inkdigits.training.checkpoint import Epoch, TrainingState, weights_digest
from inkdigits.training.config import TrainConfig
from inkdigits.training.loader import Loader
from inkdigits.types import NO_DIGIT, Json

# Tried on the validation logits of each epoch.
_TEMPERATURES = tuple(2.0 ** (step / 8) for step in range(-8, 17))


@dataclass(frozen=True, slots=True, eq=False)
class FitInputs:
    """What a network learns from."""

    train: Digits  # the weights are fitted to these
    validation: Digits  # each epoch is validated on these
    # What ``synthesis.synthesise`` made, where the configuration gives it a share of each batch.
    synthetic: Digits | None = None
    initial: Mapping[str, Tensor] | None = None  # state_dict to start from; None is random


@dataclass(frozen=True, slots=True)
class FitResult:
    """What training leaves."""

    # state_dict on the CPU, from the epoch that ``TrainConfig.keep`` says. Accuracy on a few
    # thousand pictures is too coarse to choose by, so the lowest validation loss is the best.
    weights: dict[str, Tensor]
    kept_epoch: int  # that epoch, counted from 1
    history: list[Epoch]
    machines: list[Json]  # what trained the epochs: more than one after a resume elsewhere


def standardise(inks: Tensor) -> Tensor:
    """Return (B, 28, 28) uint8 as the network takes it: (B, 1, 28, 28) float32.

    >>> standardise(torch.zeros(2, 28, 28, dtype=torch.uint8)).shape
    torch.Size([2, 1, 28, 28])
    """
    return (inks.unsqueeze(1).float() / 255.0 - MEAN) / STD


@torch.inference_mode()
def logits(model: nn.Module, inks: Tensor, batch_size: int = 500) -> Tensor:
    """Return the logits in evaluation mode (N, 10), float32 on the CPU, of inks (N, 28, 28).

    >>> from inkdigits.model.networks import MNISTClassifier
    >>> logits(MNISTClassifier(), torch.zeros(3, 28, 28, dtype=torch.uint8)).shape
    torch.Size([3, 10])
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
    inputs: FitInputs,
    config: TrainConfig,
    device: torch.device,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    log_dir: Path | None = None,
    progress: bool = False,
) -> FitResult:
    """Train the configured network and return the weights that ``config.keep`` asks for.

    ``checkpoint`` holds the state after each epoch, and ``resume`` continues from it: only the
    epoch that was under way is lost. ``log_dir`` is for TensorBoard's event files, and
    ``progress`` shows a bar on standard error, or a line per epoch where that is no terminal.

    A TrainingError names too few pictures for a batch, a loss that is not finite, or a checkpoint
    that cannot be resumed from.

    >>> digits = Digits(torch.zeros(8, 28, 28, dtype=torch.uint8), torch.arange(8))
    >>> config = TrainConfig(epochs=1, batch_size=4, network="MNISTClassifier")
    >>> fit(FitInputs(digits, digits), config, torch.device("cpu")).kept_epoch
    1
    """
    loader = Loader(inputs.train, inputs.synthetic, config, device)
    keep_freed_memory()
    torch.manual_seed(config.seed)
    state = TrainingState(
        config, loader.steps, device, _fingerprint(inputs, config), inputs.initial
    )
    if resume:
        if checkpoint is None:
            raise TrainingError("there is nothing to resume from: no checkpoint was named")
        state.load(checkpoint)
    with ExitStack() as stack:
        epochs, steps = len(state.history), loader.steps
        shown = None if progress else True  # None: only on a terminal
        bar = tqdm(total=config.epochs * steps, initial=epochs * steps, disable=shown)
        stack.callback(bar.close)
        writer = None
        if log_dir:
            writer = stack.enter_context(SummaryWriter(str(log_dir), purge_step=epochs + 1))
        trainer = _Trainer(state, loader, inputs.validation.to(device), bar)
        while len(state.history) < config.epochs:
            figures = trainer.run_epoch()
            if progress and bar.disable:
                tqdm.write(_line(figures, config.epochs), file=sys.stderr)
            if writer:
                _log(writer, figures)
            if checkpoint:
                state.save(checkpoint)
    return FitResult(state.kept_weights, state.kept_epoch, state.history, state.machines)


def _fingerprint(inputs: FitInputs, config: TrainConfig) -> Json:
    """Return what must be the same for a run to be resumed."""
    return {
        "config": asdict(config),
        "train": inputs.train.digest(),
        "validation": inputs.validation.digest(),
        "synthetic": inputs.synthetic.digest() if inputs.synthetic else None,
        "initial": weights_digest(inputs.initial) if inputs.initial else None,
    }


def _line(figures: Epoch, epochs: int) -> str:
    return (
        f"epoch {figures.epoch}/{epochs} loss {figures.train_loss:.4f}, validation "
        f"{100 * figures.validation_accuracy:.2f} %, {figures.seconds:.0f} s"
    )


def _log(writer: SummaryWriter, figures: Epoch) -> None:
    for name, value in asdict(figures).items():
        if name != "epoch":
            writer.add_scalar(name, value, figures.epoch)


class _Trainer:
    def __init__(
        self, state: TrainingState, loader: Loader, validation: Digits, bar: tqdm[Any]
    ) -> None:
        self._state = state
        self._loader = loader
        self._validation = validation
        self._bar = bar

    def run_epoch(self) -> Epoch:
        """Train one epoch, and return its figures."""
        state = self._state
        number = len(state.history) + 1
        began = time.perf_counter()
        # One seed per epoch, so that resuming needs no generator's state.
        seed = state.config.seed * 1_000_003 + number
        torch.manual_seed(seed)
        state.model.train()
        total = torch.zeros((), device=state.device)
        for step, (pictures, labels) in enumerate(self._loader.batches(seed), start=1):
            total += self._train_step(pictures, labels)
            self._bar.update()
            if step % 50 == 0:
                loss = float(total) / step
                self._bar.set_description(f"epoch {number}/{state.config.epochs} loss {loss:.4f}")
        figures = self._validate(number, float(total) / self._loader.steps, began)
        state.add(figures)
        self._bar.set_postfix_str(
            f"validation {100 * figures.validation_accuracy:.2f} %, kept epoch {state.kept_epoch}"
        )
        return figures

    def _train_step(self, pictures: Tensor, labels: Tensor) -> Tensor:
        """Update the weights by one batch, and return its loss."""
        state = self._state
        dtype = autocast_dtype(state.device)
        pictures = ((pictures - MEAN) / STD).contiguous(memory_format=torch.channels_last)
        with torch.autocast(state.device.type, dtype=dtype, enabled=dtype is not None):
            output = state.model(pictures)
        loss = cross_entropy(output.float(), labels, others=bool(state.config.mixture[2]))
        state.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        state.optimizer.step()
        state.scheduler.step()
        if state.average is not None:
            state.average.update_parameters(state.model)
        return loss.detach()

    def _validate(self, number: int, train_loss: float, began: float) -> Epoch:
        state = self._state
        if not math.isfinite(train_loss):
            raise TrainingError(
                f"the loss of epoch {number} is {train_loss}; lower the learning rate "
                f"({state.config.learning_rate})"
            )
        output = logits(state.evaluated, self._validation.inks)
        labels = self._validation.labels.cpu()
        return Epoch(
            epoch=number,
            train_loss=train_loss,
            validation_loss=scaled_loss(output, labels),
            validation_accuracy=float((output.argmax(1) == labels).float().mean()),
            learning_rate=float(state.scheduler.get_last_lr()[0]),
            seconds=time.perf_counter() - began,
        )


def cross_entropy(output: Tensor, labels: Tensor, *, others: bool = False) -> Tensor:
    """Return the mean loss in nats of logits (B, 10), float32, against labels (B,).

    With ``others``, pictures without a digit, an eleventh logit that is always 0 stands for those.
    So the log of the summed exponentials of the ten becomes the log odds of a digit against none,
    and minus that, the energy, separates digits from other pictures (Liu, Wang, Owens and Li,
    "Energy-based Out-of-distribution Detection", NeurIPS 2020, train it with hinges for the same
    end). The softmax of the ten still says which digit it is, if it is one.

    >>> round(float(cross_entropy(torch.zeros(1, 10), torch.tensor([3]))), 4)
    2.3026
    """
    if others:
        labels = torch.where(labels == NO_DIGIT, output.shape[1], labels)
        output = F.pad(output, (0, 1))
    return F.cross_entropy(output, labels)


def scaled_loss(output: Tensor, labels: Tensor) -> float:
    """Return the cross-entropy in nats at the best of a list of temperatures.

    Calibration fits a temperature later. Without one, an overconfident epoch looks worse here than
    it will be when it is served.

    >>> scaled_loss(torch.zeros(2, 10), torch.tensor([0, 1])) < 2.31
    True
    """
    return min(float(F.cross_entropy(output / t, labels)) for t in _TEMPERATURES)
