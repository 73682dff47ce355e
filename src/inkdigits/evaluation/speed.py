"""How much faster an accelerator is than the CPU, and ONNX Runtime than PyTorch, on this machine.

Contenders must answer alike before they are timed (``timing.race``). All is float32, without TF32,
unless a contender's name says otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that PyTorch's own documentation uses

from inkdigits.errors import ConfigError, InkdigitsError
from inkdigits.evaluation.environment import accelerator_name, hardware, versions
from inkdigits.evaluation.timing import BASELINE, BenchmarkResult, Row, race, rows_of
from inkdigits.ink.normalize import INK_SIZE, standardise
from inkdigits.model.allocator import keep_freed_memory
from inkdigits.model.artifact import read_artifact
from inkdigits.model.backends import OnnxBackend, TorchBackend
from inkdigits.model.devices import autocast_dtype, resolve_device
from inkdigits.model.networks import DigitNet
from inkdigits.types import Device

ONNX_CONTENDER = "ONNX Runtime, CPU"
TRAINING_BATCH = 128
LOGIT_TOLERANCE = 1e-3
# Largest difference of two products of n x n normal matrices, relative to the largest entry.
PRODUCT_TOLERANCE = 1e-4


def run_benchmark(
    *,
    sizes: Sequence[int] = (1000, 2000, 4000),
    batches: Sequence[int] = (1, 16, 64, 256),
    repeats: int = 5,
    device: Device = "auto",
    artifact_path: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> BenchmarkResult:
    """Time matrix products, reading digits, and a step of training.

    Reading goes from standardised ink to logits in the computer's memory, as in serving: an
    accelerator's time includes the way there and back. Matrices and training pictures are on the
    device before.

    Args:
        sizes: n of the n x n matrix products, 1 or more.
        batches: pictures that are read at a time, 1 or more.
        repeats: samples of each contender, 1 or more; five or more make the range telling.
        device: what to compare the CPU with; "auto" is the best there is, "cpu" nothing.
        artifact_path: the model that reads; None is the shipped one.
        progress: told of each task as it starts.

    Raises:
        ConfigError: a size, batch or number of repeats below 1.
        BackendUnavailableError: the device isn't here.
        ArtifactError: the model can't be used.
        InkdigitsError: contenders don't compute the same, so that comparing their time is idle.
    """
    for name, values in (("size", sizes), ("batch", batches), ("number of repeats", [repeats])):
        if not values or min(values) < 1:
            raise ConfigError(f"each {name} must be 1 or more; these are {list(values)}")
    tell = progress or (lambda _: None)
    chosen = resolve_device(device)
    accelerator = None if chosen.type == "cpu" else chosen
    threads = torch.get_num_threads()
    notes = [*_load_note(), *_accelerator_note(device, accelerator)]
    artifact = read_artifact(artifact_path)
    # cuDNN multiplies in TF32, with 10 bits of mantissa, unless told not to.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        rows: list[Row] = []
        for n in sizes:
            tell(f"matrix product, {n} x {n}")
            rows += _matrix_product(n, accelerator, repeats)
        readers = _readers(artifact, accelerator, threads)
        for batch in batches:
            tell(f"reading digits, batch {batch}")
            rows += _reading(readers, batch, repeats)
        tell(f"training step, batch {TRAINING_BATCH}")
        rows += _training_step(accelerator, repeats)
    if autocast_dtype(torch.device("cpu")) is None:
        notes.append(
            "Training in bfloat16 on the CPU is left out: this CPU has no matrix units for it "
            "(AMX), without which it is slower than float32."
        )
    return BenchmarkResult(
        rows=tuple(rows),
        accelerator=accelerator_name() if accelerator else None,
        threads=threads,
        repeats=repeats,
        hardware=hardware(),
        versions=versions(),
        notes=tuple(notes),
    )


def _accelerator_note(asked: Device, accelerator: torch.device | None) -> Iterator[str]:
    if accelerator is None:
        why = (
            "only the CPU was asked for"
            if asked == "cpu"
            else "PyTorch finds neither an NVIDIA GPU (cuda) nor an Apple one (mps)"
        )
        yield f"There is no accelerator here: {why}. PyTorch and ONNX Runtime compare on the CPU."


def _load_note() -> Iterator[str]:
    """Other programs take time from all contenders, not from each the same."""
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5:
        yield (
            f"Other programs were using the CPU (load average {os.getloadavg()[0]:.1f} at the "
            "start): times are too long, and less comparable."
        )


def _matrix_product(n: int, accelerator: torch.device | None, repeats: int) -> list[Row]:
    generator = torch.Generator().manual_seed(n)
    left, right = (torch.randn((n, n), generator=generator) for _ in range(2))

    def contender(device: torch.device) -> Callable[[], torch.Tensor]:
        a, b = left.to(device), right.to(device)
        product = torch.empty_like(a)
        return lambda: torch.mm(a, b, out=product)

    contenders = _on_devices(contender, accelerator)
    products = {name: call().cpu() for name, call in contenders.items()}
    largest = float(products[BASELINE].abs().max())
    _check_alike(products, PRODUCT_TOLERANCE * largest, f"the {n} x {n} matrix product")
    samples = race(contenders, repeats, _synchronizer(accelerator))
    # n² entries, each of n products and n sums.
    return rows_of(f"matrix product, {n} x {n}", samples, 2 * n**3 / 1e9, "GFLOP/s")


def _readers(
    artifact: bytes, accelerator: torch.device | None, threads: int
) -> dict[str, OnnxBackend | TorchBackend]:
    readers: dict[str, OnnxBackend | TorchBackend] = {BASELINE: TorchBackend(artifact, "cpu")}
    if accelerator:
        # resolve_device gives only the types that Device names.
        name: Any = accelerator.type
        readers[f"PyTorch, {name}"] = TorchBackend(artifact, name)
    readers[ONNX_CONTENDER] = OnnxBackend(artifact, threads)
    return readers


def _reading(
    readers: Mapping[str, OnnxBackend | TorchBackend], batch: int, repeats: int
) -> list[Row]:
    random = np.random.default_rng(batch)
    ink = random.integers(0, 256, (batch, INK_SIZE, INK_SIZE), dtype=np.uint8)
    pictures = standardise(ink)
    answers = {name: torch.from_numpy(r.logits(pictures)) for name, r in readers.items()}
    _check_alike(answers, LOGIT_TOLERANCE, f"the logits of a batch of {batch}")
    contenders = {name: _reading_call(reader, pictures) for name, reader in readers.items()}
    # Logits come back as NumPy arrays: the accelerator has been waited for.
    samples = race(contenders, repeats)
    return rows_of(f"reading digits, batch {batch}", samples, batch, "pictures/s")


def _reading_call(reader: OnnxBackend | TorchBackend, pictures: Any) -> Callable[[], object]:
    return lambda: reader.logits(pictures)


def _training_step(accelerator: torch.device | None, repeats: int) -> list[Row]:
    """Forward, backward, AdamW, as ``train.fit`` does them, without augmentation."""
    keep_freed_memory()
    contenders: dict[str, Callable[[], torch.Tensor]] = {}
    for device in (torch.device("cpu"), *([accelerator] if accelerator else [])):
        place = "CPU" if device.type == "cpu" else device.type
        contenders[f"PyTorch, {place}"] = _trainer(device, None)
        reduced = autocast_dtype(device)
        if reduced is not None:
            kind = str(reduced).removeprefix("torch.")
            contenders[f"PyTorch {kind}, {place}"] = _trainer(device, reduced)
    losses = {name: call().cpu() for name, call in contenders.items()}
    # Dropout differs between devices, and random data's first loss is ln 10 give or take that.
    _check_alike(losses, 0.5, "the first training loss")
    samples = race(contenders, repeats, _synchronizer(accelerator))
    return rows_of(f"training step, batch {TRAINING_BATCH}", samples, TRAINING_BATCH, "pictures/s")


def _trainer(device: torch.device, dtype: torch.dtype | None) -> Callable[[], torch.Tensor]:
    torch.manual_seed(0)
    model = DigitNet().to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=device.type in ("cpu", "cuda"))
    pictures = torch.randn(TRAINING_BATCH, 1, INK_SIZE, INK_SIZE).to(device)
    labels = torch.randint(0, 10, (TRAINING_BATCH,)).to(device)

    def step() -> torch.Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            output = model(pictures)
        loss = F.cross_entropy(output.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.detach()

    return step


def _on_devices(
    contender: Callable[[torch.device], Callable[[], torch.Tensor]],
    accelerator: torch.device | None,
) -> dict[str, Callable[[], torch.Tensor]]:
    contenders = {BASELINE: contender(torch.device("cpu"))}
    if accelerator:
        contenders[f"PyTorch, {accelerator.type}"] = contender(accelerator)
    return contenders


def _synchronizer(accelerator: torch.device | None) -> Callable[[], object]:
    """What waits for the accelerator; for the CPU there is nothing to wait for."""
    if accelerator is None:
        return lambda: None
    return torch.mps.synchronize if accelerator.type == "mps" else torch.cuda.synchronize


def _check_alike(answers: Mapping[str, torch.Tensor], tolerance: float, what: str) -> None:
    for name, answer in answers.items():
        difference = float((answer - answers[BASELINE]).abs().max())
        # Not "difference > tolerance", which NaN would pass.
        if not difference <= tolerance:
            raise InkdigitsError(
                f"{name} and {BASELINE} differ by {difference:.2g} in {what}; "
                f"{tolerance:.2g} is tolerated, so their times aren't comparable"
            )
