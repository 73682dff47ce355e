"""Test-time augmentation: the mean of the network's outputs for uncertain ink and its four shifts.

Only ink whose two highest logits lie close together is read again, shifted by a pixel up, down,
left and right: shifting the rest changes nothing and costs four times as much again. Averaging
over shifted views is Krizhevsky, Sutskever and Hinton's ("ImageNet Classification with Deep
Convolutional Neural Networks", NIPS 2012, section 4.1); docs/experiments/ has what it gains here.
Temperature and thresholds are fitted to the averaged logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from inkdigits.types import Floats

Forward: TypeAlias = Callable[[Floats], tuple[Floats, Floats]]
"""A network: (N, 1, 28, 28) standardised ink → logits (N, 10) and features (N, D), all float32."""

BATCH_SIZE = 128
"""Pictures per pass: more gains nothing on a CPU and takes about 150 kB of memory per picture."""
MARGIN = 6.0
"""Difference between the two highest logits below which ink is read again, shifted."""
_SHIFTS = ((1, 0), (-1, 0), (0, 1), (0, -1))


def uncertain_rows(logits: Floats, margin: float) -> npt.NDArray[np.intp]:
    """Return the indices of the rows of logits (N, 10) whose two highest are within the margin.

    >>> uncertain_rows(np.float32([[0, 1, 9], [0, 8, 9]]), margin=6.0).tolist()
    [1]
    """
    highest = np.partition(logits, -2, axis=1)
    return np.flatnonzero(highest[:, -1] - highest[:, -2] < margin)


def forward_with_tta(
    forward: Forward, inks: Floats, margin: float, batch_size: int = BATCH_SIZE
) -> tuple[Floats, Floats]:
    """Run a network on standardised ink, and average over shifts where it is uncertain.

    Args:
        forward: the network.
        inks: (N, 1, 28, 28) float32, standardised ink, N at least 1.
        margin: difference between the two highest logits below which ink is read again; 0 reads
            each ink once.
        batch_size: pictures per pass.

    Returns:
        Logits (N, 10) and features (N, D), float32. The last layer is linear, so the mean logits
        are those of the mean features.

    >>> sure = lambda batch: (np.eye(10, dtype=np.float32)[:1] * 9, np.float32([[1, 2]]))
    >>> forward_with_tta(sure, np.zeros((1, 1, 28, 28), np.float32), margin=6.0)[0].max()
    np.float32(9.0)
    """
    parts = [
        _forward_batch(forward, inks[start : start + batch_size], margin)
        for start in range(0, max(1, len(inks)), batch_size)
    ]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _forward_batch(forward: Forward, batch: Floats, margin: float) -> tuple[Floats, Floats]:
    logits, features = forward(batch)
    rows = uncertain_rows(logits, margin)
    if not len(rows):
        return logits, features
    again = batch[rows]
    # One view per pass keeps the memory of a batch what it is without augmentation.
    views = [forward(_shifted(again, down, right)) for down, right in _SHIFTS]
    share = np.float32(1 / (1 + len(views)))
    logits, features = logits.copy(), features.copy()
    logits[rows] = (logits[rows] + sum(view[0] for view in views)) * share
    features[rows] = (features[rows] + sum(view[1] for view in views)) * share
    return logits, features


def _shifted(batch: Floats, down: int, right: int) -> Floats:
    """Shift each picture by a pixel and repeat its edge, for standardised background is not 0."""
    height, width = batch.shape[-2:]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return batch[:, :, rows[:, None], columns]
