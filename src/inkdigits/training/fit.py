"""fit: data + model + config + device → trained weights. It writes one checkpoint, no reports.

Reproducibility: every epoch draws its order, augmentation and dropout from (seed, epoch), so a run
that was interrupted and resumed ends with the same weights, bit for bit, as one that wasn't, on
the same machine, library versions and number of threads. Across machines, thread counts or
devices, floating-point sums are taken in another order and weights differ slightly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from inkdigits.data.mnist import Digits
from inkdigits.errors import TrainingError
from inkdigits.ink.normalize import MEAN, STD
from inkdigits.model.allocator import keep_freed_memory
from inkdigits.model.devices import autocast_dtype
from inkdigits.training.checkpoint import Epoch, TrainConfig, TrainingState, weights_digest
from inkdigits.training.loader import Sources
from inkdigits.types import NO_DIGIT

# Tried on the validation answers of each epoch.
TEMPERATURES = tuple(2.0 ** (step / 8) for step in range(-8, 17))


@dataclass(frozen=True, slots=True)
class FitResult:
    """What training leaves.

    Attributes:
        weights: state_dict of the configured network on the CPU, from the epoch that
            ``TrainConfig.keep`` says: the last, or the one with the lowest validation loss, each
            at its best temperature (accuracy on a few thousand pictures moves in steps too
            coarse to choose by).
        kept_epoch: that epoch, counted from 1.
        history: every epoch's figures.
        machines: what trained them, as ``training_state.describe_machine`` has it: one, or more
            where the run went on elsewhere.
        stopped_early: ``stop_when`` ended the run before its last epoch.
    """

    weights: dict[str, Tensor]
    kept_epoch: int
    history: list[Epoch]
    machines: list[dict[str, Any]]
    stopped_early: bool = False


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
    synthetic: Digits | None = None,
    initial: Mapping[str, Tensor] | None = None,
    teachers: Sequence[nn.Module] = (),
    checkpoint: Path | None = None,
    resume: bool = False,
    log_dir: Path | None = None,
    progress: bool = False,
    stop_when: Callable[[Epoch], bool] | None = None,
    validate_every: int | None = None,
) -> FitResult:
    """Train the configured network and return the weights that ``config.keep`` asks for.

    Args:
        train: what the weights are fitted to.
        validation: what each epoch is validated on.
        config: how.
        device: where; see ``resolve_device``.
        synthetic: what ``synthesis.synthesise`` made, where ``config`` gives it a share of each
            batch.
        initial: state_dict to start from; None starts from random weights.
        teachers: networks whose mean answer is learned beside the labels, by the share
            ``config.distillation``; empty where that is 0.
        checkpoint: file that holds the state after each epoch, for ``resume``.
        resume: go on from ``checkpoint``; only the epoch that was under way is lost.
        log_dir: folder for TensorBoard's event files.
        progress: show a bar with loss, validation accuracy and time left, on standard error.
        stop_when: called with each epoch's figures; true ends the run there.
        validate_every: steps after which, within an epoch too, ``stop_when`` is called with the
            figures so far; where it then ends the run, they stand for that epoch, and the
            checkpoint stays at the epoch before. None validates at the end of epochs only.

    Raises:
        TrainingError: fewer pictures than a batch, none for a share of it, a loss that is not
            finite, teachers without a share in the loss or a share without teachers, or a
            checkpoint that is missing, unreadable, or of another configuration or data.
    """
    steps = len(train) // config.mixture[0]
    if not steps:
        raise TrainingError(
            f"{len(train)} training pictures don't fill one batch of {config.mixture[0]}"
        )
    sources = Sources(train, synthetic, config)
    if bool(teachers) != bool(config.distillation):
        raise TrainingError(
            f"distillation is {config.distillation} with {len(teachers)} teachers; either there "
            "are teachers and it is above 0, or neither"
        )
    keep_freed_memory()
    torch.manual_seed(config.seed)
    fingerprint = _fingerprint(config, train, validation, synthetic, initial, teachers)
    state = TrainingState(config, steps, device, fingerprint, initial)
    if resume:
        if checkpoint is None:
            raise TrainingError("there is nothing to resume from: no checkpoint was named")
        state.load(checkpoint)
    sources, validation = sources.to(device), validation.to(device)
    for teacher in teachers:
        teacher.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
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
                    state, sources, validation, teachers, steps, bar, stop_when, validate_every
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
    return FitResult(state.kept_weights, state.kept_epoch, state.history, state.machines, stopped)


def _fingerprint(
    config: TrainConfig,
    train: Digits,
    validation: Digits,
    synthetic: Digits | None,
    initial: Mapping[str, Tensor] | None,
    teachers: Sequence[nn.Module],
) -> dict[str, Any]:
    return {
        "config": asdict(config),
        "train": train.digest(),
        "validation": validation.digest(),
        "synthetic": synthetic.digest() if synthetic else None,
        "initial": weights_digest(initial) if initial else None,
        "teachers": [weights_digest(teacher.state_dict()) for teacher in teachers],
    }


def _run_epoch(
    state: TrainingState,
    sources: Sources,
    validation: Digits,
    teachers: Sequence[nn.Module],
    steps: int,
    bar: tqdm[Any],
    stop_when: Callable[[Epoch], bool] | None = None,
    validate_every: int | None = None,
) -> tuple[Epoch, bool]:
    """One epoch's figures, and whether ``stop_when`` ended it before its last step."""
    config = state.config
    number = len(state.history) + 1
    started = time.perf_counter()
    # One seed an epoch, so that resuming needs no generator's state.
    seed = config.seed * 1_000_003 + number
    torch.manual_seed(seed)
    dtype = autocast_dtype(state.device)
    state.model.train()
    answering = [torch.inference_mode()(teacher) for teacher in teachers]
    total = torch.zeros((), device=state.device)
    stopped = False
    for step, (pictures, labels) in enumerate(sources.batches(steps, seed, state.device), start=1):
        pictures = ((pictures - MEAN) / STD).contiguous(memory_format=torch.channels_last)
        with torch.autocast(state.device.type, dtype=dtype, enabled=dtype is not None):
            output = state.model(pictures)
            lessons = [teach(pictures) for teach in answering]
        loss = _loss(output.float(), labels, lessons, config)
        state.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        state.optimizer.step()
        state.scheduler.step()
        if state.average is not None:
            state.average.update_parameters(state.model)
        total += loss.detach()
        bar.update()
        if step % 50 == 0:
            bar.set_description(f"epoch {number}/{config.epochs} loss {float(total) / step:.4f}")
        if stop_when and validate_every and step % validate_every == 0 and step < steps:
            figures = _figures(state, validation, number, float(total) / step, started)
            stopped = bool(stop_when(figures))
            if stopped:
                break
    if not stopped:
        figures = _figures(state, validation, number, float(total) / steps, started)
    state.add(figures)
    bar.set_postfix_str(
        f"validation {100 * figures.validation_accuracy:.2f} %, kept epoch {state.kept_epoch}"
    )
    return figures, stopped


def _loss(output: Tensor, labels: Tensor, lessons: Sequence[Tensor], config: TrainConfig) -> Tensor:
    """Mean loss in nats: against the labels, and against the teachers' mean answer.

    Where batches hold pictures without a digit, an eleventh logit that is always 0 stands for
    those, in both. So the log of the summed exponentials of the ten becomes the log odds of a
    digit against none, and minus that, the energy, tells digits from the rest (Liu, Wang, Owens
    and Li, "Energy-based Out-of-distribution Detection", NeurIPS 2020, train it with hinges for
    the same end); the softmax of the ten remains what a digit is, if it is one.

    The second part is Hinton, Vinyals and Dean's ("Distilling the Knowledge in a Neural Network",
    arXiv:1503.02531, section 2), both sides softened by the same temperature and the gradient
    scaled back by its square.

    Args:
        output: (B, 10) float32 logits.
        labels: (B,) int64, NO_DIGIT where there is none.
        lessons: each teacher's (B, 10) logits.
        config: the share and the temperature.
    """
    if config.mixture[2]:
        labels = torch.where(labels == NO_DIGIT, output.shape[1], labels)
        output, *lessons = (F.pad(answers, (0, 1)) for answers in (output, *lessons))
    loss = F.cross_entropy(output, labels)
    if not lessons:
        return loss
    softness = config.distillation_temperature
    shares = torch.stack([(lesson.float() / softness).softmax(1) for lesson in lessons]).mean(0)
    taught = F.kl_div((output / softness).log_softmax(1), shares, reduction="batchmean")
    return (1.0 - config.distillation) * loss + config.distillation * softness**2 * taught


def scaled_loss(answers: Tensor, labels: Tensor) -> float:
    """Cross-entropy in nats at the best of a list of temperatures.

    Calibration fits a temperature anyway. Without one an epoch that is too sure of itself looks
    worse than it will be served.

    Args:
        answers: (N, 10) float32 logits.
        labels: (N,) int64.
    """
    return min(float(F.cross_entropy(answers / t, labels)) for t in TEMPERATURES)


def _figures(
    state: TrainingState,
    validation: Digits,
    number: int,
    train_loss: float,
    started: float,
) -> Epoch:
    if not math.isfinite(train_loss):
        raise TrainingError(
            f"the loss of epoch {number} is {train_loss}; lower the learning rate "
            f"({state.config.learning_rate})"
        )
    answers = logits(state.evaluated, validation.inks)
    labels = validation.labels.cpu()
    loss = scaled_loss(answers, labels)
    return Epoch(
        epoch=number,
        train_loss=train_loss,
        validation_loss=loss,
        validation_accuracy=float((answers.argmax(1) == labels).float().mean()),
        learning_rate=float(state.scheduler.get_last_lr()[0]),
        seconds=time.perf_counter() - started,
    )
