"""A second look at what the network doubts: the mean answer for the ink and its four shifts.

Shifting what is sure changes nothing, and costs four times as much again. So only ink whose two
likeliest digits lie close together is looked at again, a pixel up, down, left and right.
Averaging over shifted views is Krizhevsky, Sutskever and Hinton's ("ImageNet Classification with
Deep Convolutional Neural Networks", NIPS 2012, section 4.1); docs/experiments/ has what it
gains here. Temperature, thresholds and novelty are fitted to the answers that it leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from inkdigits.types import Floats

Answer: TypeAlias = Callable[[Floats], tuple[Floats, Floats]]

BATCH_SIZE = 128
"""Pictures that go through the network together: more gains nothing on a CPU and takes memory
(about 150 kB of activations a picture)."""
MARGIN = 6.0
"""Difference between the two highest logits below which ink is looked at again."""
_SHIFTS = ((1, 0), (-1, 0), (0, 1), (0, -1))


def doubted(logits: Floats, margin: float) -> npt.NDArray[np.intp]:
    """Which rows of logits (N, 10) have their two highest closer than the margin, as indices."""
    highest = np.partition(logits, -2, axis=1)
    return np.flatnonzero(highest[:, -1] - highest[:, -2] < margin)


def answer_with_second_look(
    answer: Answer, inks: Floats, margin: float, batch_size: int = BATCH_SIZE
) -> tuple[Floats, Floats]:
    """What ``answer`` says of standardised ink, averaged over shifts where it isn't sure.

    Args:
        answer: the network: (N, 1, 28, 28) float32, standardised ink, to logits (N, 10) and
            features (N, D), both float32.
        inks: as ``answer`` takes them.
        margin: difference between the two highest logits below which ink is looked at again;
            0 never does.
        batch_size: pictures that go through the network together.

    Returns:
        Logits (N, 10) and features (N, D), float32. The last layer is linear, so the mean logits
        are those of the mean features.
    """
    parts = [
        _answer_batch(answer, inks[start : start + batch_size], margin)
        for start in range(0, max(1, len(inks)), batch_size)
    ]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _answer_batch(answer: Answer, batch: Floats, margin: float) -> tuple[Floats, Floats]:
    logits, features = answer(batch)
    rows = doubted(logits, margin)
    if not len(rows):
        return logits, features
    again = batch[rows]
    # One view at a time: the memory of a batch is what it would be without.
    views = [answer(_shifted(again, down, right)) for down, right in _SHIFTS]
    share = np.float32(1 / (1 + len(views)))
    logits, features = logits.copy(), features.copy()
    logits[rows] = (logits[rows] + sum(view[0] for view in views)) * share
    features[rows] = (features[rows] + sum(view[1] for view in views)) * share
    return logits, features


def _shifted(batch: Floats, down: int, right: int) -> Floats:
    """Each picture moved by a pixel; what comes in at the edge is what was at the edge.

    Standardised paper isn't 0, and preprocessing leaves paper along every edge.
    """
    height, width = batch.shape[-2:]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return batch[:, :, rows[:, None], columns]
