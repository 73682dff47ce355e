"""Train the network that reads lines of digits, on numbers that are written while it learns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that PyTorch's own documentation uses
from torch import Tensor
from torch.utils.data import IterableDataset

from inkdigits.data.pictures.foreground import Sources
from inkdigits.data.pictures.lines import Writers, write_line
from inkdigits.data.pictures.numbers import WrittenDigits
from inkdigits.decision.ctc import NOTHING, SYMBOLS
from inkdigits.model.backends import onnx_function
from inkdigits.model.networks import LineNet
from inkdigits.training.streams.loop import Batch, Losses, Stream, StreamConfig, worker_rng
from inkdigits.types import Pixels

# Strips per step, by the width that they are padded to. Longer ones are not learned from.
BATCHES = {64: 96, 128: 64, 192: 64, 288: 48}
_MOST_DIGITS = 10


@dataclass(frozen=True, slots=True)
class LineConfig(StreamConfig):
    """How the reader of lines is trained."""

    steps: int = 20_000
    warm_up: int = 300
    reuse: int = 8
    kept: int = 500


class _Lines(IterableDataset[Batch]):
    """Batches of lines: (B, STRIP_HEIGHT, W) uint8 ink, and (B, 10) digits, or -1."""

    def __init__(
        self, given: WrittenDigits, sources: Sources, segmenter: bytes, seed: tuple[int, ...]
    ) -> None:
        self._given = given
        self._sources = sources
        self._segmenter = segmenter
        self._seed = seed

    def __iter__(self) -> Iterator[Batch]:
        rng = worker_rng(self._seed)
        writers = Writers.of(self._given, self._sources, rng)
        find = onnx_function(self._segmenter, threads=1)
        waiting: dict[int, list[tuple[Pixels, list[int]]]] = {width: [] for width in BATCHES}
        while True:
            made = write_line(writers, find, rng)
            if made is None or made[0].shape[1] > max(BATCHES):
                continue
            strip, text = made
            width = min(width for width in BATCHES if width >= strip.shape[1])
            padded = np.pad(strip, ((0, 0), (0, width - strip.shape[1])))
            digits = [SYMBOLS.index(one) for one in text]
            waiting[width].append((padded, digits + [-1] * (_MOST_DIGITS - len(digits))))
            if len(waiting[width]) == BATCHES[width]:
                strips, known = zip(*waiting[width], strict=True)
                waiting[width].clear()
                yield torch.from_numpy(np.stack(strips)), torch.tensor(known)


def prepare(strips: Tensor, digits: Tensor) -> Batch:
    """Return strips (B, 1, H, W) float32, changed at random, and their digits as they are.

    Each is sheared, scaled and moved; some strokes become thicker or thinner, fainter, noisy, or
    are crossed by what is left of a printed line.

    >>> prepare(torch.zeros(2, 32, 64, dtype=torch.uint8), torch.zeros(2, 10))[0].shape
    torch.Size([2, 1, 32, 64])
    """
    x = strips.unsqueeze(1).float() / 255
    n, _, height, width = x.shape
    x = F.grid_sample(x, _grids(n, height, width), align_corners=False)
    each = (n, 1, 1, 1)
    look = torch.rand(each)
    amount = torch.rand(each) * 0.8
    thick, thin = F.max_pool2d(x, 3, 1, 1), -F.max_pool2d(-x, 3, 1, 1)
    x = torch.where(look < 0.15, x + amount * (thick - x), x)
    x = torch.where(look > 0.87, x + 0.7 * amount * (thin - x), x)
    x = torch.where(torch.rand(each) < 0.3, x * torch.empty(each).uniform_(0.5, 1.3), x)
    x = torch.where(torch.rand(each) < 0.2, x + 0.08 * torch.randn_like(x), x)
    row = torch.randint(0, height, each)
    is_line = (torch.arange(height).view(1, 1, -1, 1) - row).abs() < 1
    x = torch.where(is_line & (torch.rand(each) < 0.06), torch.maximum(x, torch.rand(each)), x)
    return x.clamp(0, 1), digits


def _grids(n: int, height: int, width: int) -> Tensor:
    """Return where each pixel of n strips comes from, as ``grid_sample`` takes it."""
    along, across = torch.empty(n).uniform_(0.85, 1.3), torch.empty(n).uniform_(0.92, 1.3)
    shear = torch.empty(n).normal_(0, 0.22).clamp(-0.5, 0.5)
    turn = torch.empty(n).normal_(0, 0.015)
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1] = along, across
    matrix[:, 0, 1], matrix[:, 1, 0] = shear * height / width, turn * width / height
    # The strip begins where it began: what is beyond its end is background.
    matrix[:, 0, 2] = along - 1 + torch.empty(n).uniform_(-6, 4) * 2 / width
    matrix[:, 1, 2] = torch.empty(n).uniform_(-3, 3) * 2 / height
    return F.affine_grid(matrix, [n, 1, height, width], align_corners=False)


def line_loss(output: Tensor, digits: Tensor) -> Losses:
    """Return the loss of connectionist temporal classification (Graves et al., ICML 2006).

    ``output`` is (B, T, 12) logits, ``digits`` (B, 10) with -1 after the last one.

    >>> loss, _ = line_loss(torch.zeros(1, 3, 12), torch.tensor([[7] + [-1] * 9]))
    >>> round(float(loss), 2)  # six of 1,728 paths are a 7
    5.66
    """
    log_p = output.log_softmax(2).transpose(0, 1)
    lengths = (digits >= 0).sum(1)
    all_columns = torch.full_like(lengths, len(log_p))
    loss = F.ctc_loss(log_p, digits.clamp_min(0), all_columns, lengths, NOTHING, zero_infinity=True)
    return loss, {"loss": loss}


def line_stream(given: WrittenDigits, sources: Sources, segmenter: bytes) -> Stream:
    """Return what a ``LineNet`` learns from.

    ``given`` are MNIST's digits, ``sources`` the other hands and letters, and ``segmenter`` an
    ONNX model that finds the ink.

    >>> none = WrittenDigits(np.zeros((0, 28, 28), np.uint8), np.zeros(0, np.int64))
    >>> line_stream(none, Sources(), b"").what
    'reading lines'
    """
    examples = partial(_Lines, given, sources, segmenter)
    return Stream("reading lines", LineNet, examples, prepare, line_loss)
