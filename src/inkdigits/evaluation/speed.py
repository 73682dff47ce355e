"""How much faster an accelerator is than the CPU, and ONNX Runtime than PyTorch, on this machine.

The answers of all contenders must agree before they are timed. Everything is float32, without TF32,
unless a contender's name says otherwise.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that PyTorch's own documentation uses

from inkdigits.errors import InkdigitsError
from inkdigits.evaluation.environment import accelerator_name, hardware, versions
from inkdigits.evaluation.timing import BASELINE, BenchmarkResult, Row, summarise, time_in_turns
from inkdigits.ink.normalize import INK_SIZE, standardise
from inkdigits.model.allocator import keep_freed_memory
from inkdigits.model.artifact import read_artifact
from inkdigits.model.backends import OnnxBackend, TorchBackend
from inkdigits.model.devices import autocast_dtype, resolve_device
from inkdigits.model.networks import DigitNet
from inkdigits.types import Device, Floats

Contenders: TypeAlias = "dict[str, Callable[[], torch.Tensor | Floats]]"
Devices: TypeAlias = "dict[str, torch.device]"

ONNX_CONTENDER = "ONNX Runtime, CPU"
TRAINING_BATCH = 128


def run_benchmark(
    *,
    sizes: Sequence[int] = (1000, 2000, 4000),
    batches: Sequence[int] = (1, 16, 64, 256),
    repeats: int = 5,
    device: Device = "auto",
    artifact_path: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> BenchmarkResult:
    """Time matrix products, reading digits, and a step of training.

    Reading goes from standardised ink to logits in the computer's memory, as in serving: an
    accelerator's time includes both transfers. Matrices and training pictures are on the device
    before.

    ``sizes`` are n of the n x n matrix products, ``batches`` pictures that are read at a time, and
    ``repeats`` samples of each contender. ``device`` is compared with the CPU, ``artifact_path``
    None is the shipped model, and ``progress`` is called with each task as it starts.

    Raises:
        BackendUnavailableError: the device is not present.
        ArtifactError: the model cannot be used.
        InkdigitsError: the contenders' answers differ, so that their times cannot be compared.

    >>> run_benchmark(artifact_path="none.onnx", device="cpu")
    Traceback (most recent call last):
    inkdigits.errors.ArtifactNotFoundError: there is no artifact at none.onnx...
    """
    accelerator = resolve_device(device)
    devices = {"CPU": torch.device("cpu"), accelerator.type.replace("cpu", "CPU"): accelerator}
    threads = torch.get_num_threads()
    notes = tuple(_notes(device, devices))
    readers = _readers(read_artifact(artifact_path), devices, threads)
    measure = partial(_measure, repeats=repeats, accelerator=accelerator, progress=progress)
    rows: list[Row] = []
    # cuDNN multiplies in TF32, with 10 bits of mantissa, unless told not to.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for n in sizes:
            # n² entries, each of n products and n sums, of a deviation of sqrt(n).
            task, tolerance = f"matrix product, {n} x {n}", 5e-4 * math.sqrt(n)
            rows += measure(task, _products(n, devices), tolerance, 2 * n**3 / 1e9, "GFLOP/s")
        for batch in batches:
            task = f"reading digits, batch {batch}"
            rows += measure(task, _readings(readers, batch), 1e-3, batch, "pictures/s")
        # Dropout differs between devices, and random data's first loss is ln 10 give or take that.
        task = f"training step, batch {TRAINING_BATCH}"
        rows += measure(task, _training_steps(devices), 0.5, TRAINING_BATCH, "pictures/s")
    return BenchmarkResult(
        rows=tuple(rows),
        accelerator=accelerator_name() if len(devices) > 1 else None,
        threads=threads,
        repeats=repeats,
        hardware=hardware(),
        versions=versions(),
        notes=notes,
    )


def _measure(
    task: str,
    contenders: Contenders,
    tolerance: float,
    work: float,
    unit: str,
    *,
    repeats: int,
    accelerator: torch.device,
    progress: Callable[[str], None],
) -> list[Row]:
    """Check that the answers agree within ``tolerance``, and time the contenders."""
    progress(task)
    answers = {name: torch.as_tensor(call()).cpu() for name, call in contenders.items()}
    for name, answer in answers.items():
        difference = float((answer - answers[BASELINE]).abs().max())
        # Not "difference > tolerance", which NaN would pass.
        if not difference <= tolerance:
            raise InkdigitsError(
                f"{name} and {BASELINE} differ by {difference:.2g} in {task}; the tolerance is "
                f"{tolerance:.2g}, so their times cannot be compared"
            )
    # There is nothing to wait for on the CPU.
    waits = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}
    samples = time_in_turns(contenders, repeats, waits.get(accelerator.type, lambda: None))
    return summarise(task, samples, work, unit)


def _notes(asked: Device, devices: Devices) -> Iterator[str]:
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5:
        yield (
            f"Other programs were using the CPU (load average {os.getloadavg()[0]:.1f} at the "
            "start): times are too long, and less comparable."
        )
    if len(devices) == 1:
        why = "PyTorch finds neither an NVIDIA GPU (cuda) nor an Apple one (mps)"
        if asked == "cpu":
            why = "only the CPU was asked for"
        yield f"There is no accelerator here: {why}. PyTorch and ONNX Runtime compare on the CPU."
    if autocast_dtype(torch.device("cpu")) is None:
        yield (
            "Training in bfloat16 on the CPU is left out: this CPU has no matrix units for it "
            "(AMX), without which it is slower than float32."
        )


def _products(n: int, devices: Devices) -> Contenders:
    generator = torch.Generator().manual_seed(n)
    left, right = (torch.randn((n, n), generator=generator) for _ in range(2))

    def contender(device: torch.device) -> Callable[[], torch.Tensor]:
        a, b = left.to(device), right.to(device)
        return partial(torch.mm, a, b, out=torch.empty_like(a))

    return {f"PyTorch, {name}": contender(device) for name, device in devices.items()}


def _readers(
    artifact: bytes, devices: Devices, threads: int
) -> Mapping[str, OnnxBackend | TorchBackend]:
    readers: dict[str, OnnxBackend | TorchBackend] = {}
    for name, device in devices.items():
        # resolve_device gives only the types that Device names.
        kind: Any = device.type
        readers[f"PyTorch, {name}"] = TorchBackend(artifact, kind)
    readers[ONNX_CONTENDER] = OnnxBackend(artifact, threads, int8=False)
    return readers


def _readings(readers: Mapping[str, OnnxBackend | TorchBackend], batch: int) -> Contenders:
    shape, random = (batch, INK_SIZE, INK_SIZE), np.random.default_rng(batch)
    pictures = standardise(random.integers(0, 256, shape, dtype=np.uint8))
    return {name: partial(reader.logits, pictures) for name, reader in readers.items()}


def _training_steps(devices: Devices) -> Contenders:
    """Return forward, backward and AdamW as ``training.fit`` does them, without augmentation."""
    keep_freed_memory()
    contenders: Contenders = {}
    for name, device in devices.items():
        contenders[f"PyTorch, {name}"] = _training_step(device, None)
        reduced = autocast_dtype(device)
        if reduced is not None:
            kind = str(reduced).removeprefix("torch.")
            contenders[f"PyTorch {kind}, {name}"] = _training_step(device, reduced)
    return contenders


def _training_step(device: torch.device, dtype: torch.dtype | None) -> Callable[[], torch.Tensor]:
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
