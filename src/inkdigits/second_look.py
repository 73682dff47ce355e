"""A second look at what the network doubts: the mean answer for the ink and its four shifts.

Shifting what is sure changes nothing, and costs four times as much again. So only ink whose two
likeliest digits lie close together is looked at again, a pixel up, down, left and right.
Averaging over shifted views is Krizhevsky, Sutskever and Hinton's ("ImageNet Classification with
Deep Convolutional Neural Networks", NIPS 2012, section 4.1); docs/experiments.md has what it
gains here. Temperature, thresholds and novelty are fitted to the answers that it leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]
Answer: TypeAlias = Callable[[FloatArray], tuple[FloatArray, FloatArray]]

MARGIN = 6.0
"""Difference between the two highest logits below which ink is looked at again."""
_SHIFTS = ((1, 0), (-1, 0), (0, 1), (0, -1))


def answer_with_second_look(
    answer: Answer, batch: FloatArray, margin: float
) -> tuple[FloatArray, FloatArray]:
    """What ``answer`` says of a batch, averaged over shifts where it isn't sure.

    Args:
        answer: the network: (N, 1, 28, 28) float32, standardised ink, to logits (N, 10) and
            features (N, D), both float32.
        batch: as ``answer`` takes it.
        margin: difference between the two highest logits below which ink is looked at again;
            0 never does.

    Returns:
        Logits (N, 10) and features (N, D), float32. The last layer is linear, so the mean logits
        are those of the mean features.
    """
    logits, features = answer(batch)
    highest = np.partition(logits, -2, axis=1)
    doubted = np.flatnonzero(highest[:, -1] - highest[:, -2] < margin)
    if not len(doubted):
        return logits, features
    again = batch[doubted]
    # One view at a time: the memory of a batch is what it would be without.
    views = [answer(_shifted(again, down, right)) for down, right in _SHIFTS]
    share = np.float32(1 / (1 + len(views)))
    logits, features = logits.copy(), features.copy()
    logits[doubted] = (logits[doubted] + sum(view[0] for view in views)) * share
    features[doubted] = (features[doubted] + sum(view[1] for view in views)) * share
    return logits, features


def _shifted(batch: FloatArray, down: int, right: int) -> FloatArray:
    """Each picture moved by a pixel; what comes in at the edge is what was at the edge.

    Standardised paper isn't 0, and preprocessing leaves paper along every edge.
    """
    height, width = batch.shape[-2:]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return batch[:, :, rows[:, None], columns]
