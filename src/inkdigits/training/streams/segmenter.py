"""Train the network that finds ink, on pictures that are made meanwhile (``streams.loop``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that PyTorch's own documentation uses
from torch import Tensor
from torch.utils.data import IterableDataset

from inkdigits.data.pictures.foreground import Sources
from inkdigits.data.pictures.pairs import Pair, centre_map, make_pair
from inkdigits.ink.segment import LEAST_DEVIATION, NEARER, Window, near_window, view, whole_window
from inkdigits.model.networks import InkNet
from inkdigits.training.streams.loop import Losses, Stream, StreamConfig, worker_rng
from inkdigits.types import Pixels, Rng

Size: TypeAlias = tuple[int, int]
# Views per step, by their height and width: about the same time per step for each.
BATCHES: dict[Size, int] = {(128, 128): 24, (192, 192): 11, (256, 256): 6, (96, 320): 13}


@dataclass(frozen=True, slots=True)
class SegmentConfig(StreamConfig):
    """How the segmenter is trained."""

    thin: float = 8.0  # how much more a thin stroke's pixels count


class _Views(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches of views: (B, H, W) shades, and (B, 2, H, W) ink and centres, all uint8."""

    def __init__(self, sources: Sources, seed: tuple[int, ...]) -> None:
        self._sources = sources
        self._seed = seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rng = worker_rng(self._seed)
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


def ink_stream(sources: Sources, thin: float) -> Stream:
    """Return what an ``InkNet`` learns from, and how much more thin strokes count.

    >>> ink_stream(Sources(), 8.0).what
    'finding ink'
    """

    def losses_of(output: Tensor, targets: Tensor) -> Losses:
        pixels, overlap, centres = segment_loss(output, targets, thin)
        named = {"pixels": pixels, "overlap": overlap, "centres": centres}
        return 2 * pixels + overlap + 0.5 * centres, named

    def network() -> InkNet:
        return InkNet().to(memory_format=torch.channels_last)

    return Stream("finding ink", network, partial(_Views, sources), prepare, losses_of)
