"""Why a digit was read: what hiding parts of the ink does to its odds, and the runner-up.

Occlusion: a patch of paper slides over the ink, and the network reads each variant (Zeiler and
Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2). It needs
answers only, so it works with any backend. NumPy and Pillow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from inkdigits.ink.png import encode_png
from inkdigits.types import Ink

if TYPE_CHECKING:
    from inkdigits.decision.prediction import Prediction
    from inkdigits.types import Picture


# Pixels. The patch is about as wide as a stroke of MNIST, and each pixel is hidden 4 to 9 times.
PATCH = 5
STRIDE = 2
# Side of a pixel of ink in the overlay, in pixels.
SCALE = 10
# Nats that always get the full colour; where none has as much, the map is pale.
_FULL_COLOUR = 1.0
_FOR = np.array([214, 69, 0], np.float32)
_AGAINST = np.array([0, 92, 190], np.float32)
_LEAST = 1e-12


class ReadsInk(Protocol):
    """What an explanation needs of a reader."""

    def predict(self, picture: Picture, *, risk: float | None = None) -> Prediction:
        """Read one picture."""

    def probabilities(self, inks: Ink) -> npt.NDArray[np.float64]:
        """Calibrated probabilities (N, 10) for ink (N, 28, 28)."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A reading and what it rests on.

    Attributes:
        prediction: the reading.
        saliency: (28, 28) float32, in nats: by how much the logarithm of the digit's odds falls
            when the ink around a pixel is hidden; negative where it rises. Zeros where nothing
            was read.
        runner_up: the second likeliest digit; None where nothing was read.
        runner_up_probability: its calibrated probability, 0 to 1; 0.0 where nothing was read.
        overlay: PNG file, 280x280 RGB: dark ink on white paper, orange where it speaks for the
            digit and blue where against.
    """

    prediction: Prediction
    saliency: npt.NDArray[np.float32]
    runner_up: int | None
    runner_up_probability: float
    overlay: bytes


def explain(reader: ReadsInk, picture: Picture, *, risk: float | None = None) -> Explanation:
    """Read a picture and find what the reading rests on.

    Args:
        reader: a ``DigitReader``.
        picture: see ``preprocessing.preprocess``.
        risk: as for ``DigitReader.predict``.

    Raises:
        ImageError: the picture can't be read or is over a limit.
        ConfigError: a risk outside (0, 1).
    """
    prediction = reader.predict(picture, risk=risk)
    if prediction.digit is None:
        saliency = np.zeros(prediction.ink.shape, np.float32)
        return Explanation(prediction, saliency, None, 0.0, overlay(prediction.ink, saliency))
    saliency = occlusion(reader.probabilities, prediction.ink, prediction.digit)
    second = int(np.argsort(prediction.probabilities)[-2])
    return Explanation(
        prediction,
        saliency,
        second,
        prediction.probabilities[second],
        overlay(prediction.ink, saliency),
    )


def occlusion(
    read: Callable[[Ink], npt.NDArray[np.float64]],
    ink: Ink,
    digit: int,
    *,
    patch: int = PATCH,
    stride: int = STRIDE,
) -> npt.NDArray[np.float32]:
    """What hiding each part of the ink takes from a digit.

    Args:
        read: ink (N, 28, 28) uint8 to probabilities (N, 10).
        ink: (28, 28) uint8.
        digit: 0 to 9, whose odds are watched: near certainty its probability hardly moves.
        patch: side of the square of paper, in pixels.
        stride: from one place of it to the next, in pixels, at most ``patch``.

    Returns:
        (28, 28) float32, in nats: log odds of the digit with the ink as it is, less those with a
        patch over it, averaged over the patches that hide the pixel. 0 where no patch hides any
        ink.
    """
    height, width = ink.shape
    # From outside the edge, so that what is at the edge is hidden as often as the rest.
    starts = range(1 - patch, max(height, width), stride)
    places = [
        (slice(max(0, top), top + patch), slice(max(0, left), left + patch))
        for top in starts
        for left in starts
    ]
    places = [place for place in places if ink[place].any()]
    variants = np.repeat(ink[None], len(places) + 1, axis=0)
    for variant, place in zip(variants[1:], places, strict=True):
        variant[place] = 0
    shares = np.maximum(read(variants), _LEAST)
    # The others' sum rather than 1 less the digit's share, which would round to 0.
    logs = np.log(shares[:, digit]) - np.log(np.delete(shares, digit, axis=1).sum(axis=1))
    total = np.zeros(ink.shape)
    times = np.zeros(ink.shape)
    for place, drop in zip(places, logs[0] - logs[1:], strict=True):
        total[place] += drop
        times[place] += 1
    return (total / np.maximum(times, 1)).astype(np.float32)


def overlay(ink: Ink, saliency: npt.NDArray[np.float32]) -> bytes:
    """Draw saliency over ink.

    Args:
        ink: (28, 28) uint8, 0 is paper and 255 is ink.
        saliency: (28, 28) float32, in nats.

    Returns:
        A PNG file, 280x280 RGB.
    """
    # Colours are relative to the strongest part, unless all are weak.
    strongest = max(float(np.abs(saliency).max()), _FULL_COLOUR)
    strength = np.clip(saliency / strongest, -1, 1)[..., None]
    tint = np.where(strength > 0, _FOR, _AGAINST)
    paper = 255 + (tint - 255) * np.abs(strength) * 0.75
    darkness = ink[..., None].astype(np.float32) / 255 * 0.8
    pixels = np.rint(paper * (1 - darkness)).astype(np.uint8)
    size = (ink.shape[1] * SCALE, ink.shape[0] * SCALE)
    return encode_png(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST))
