"""Why a digit was read: what hiding parts of the ink does to its odds, and the runner-up.

Occlusion: a patch of background slides over the ink, and the network reads each variant (Zeiler
and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2). It
needs probabilities only, so it works with any backend. NumPy and Pillow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image

from inkdigits.decision.prediction import Explanation, Prediction
from inkdigits.ink.png import encode_png
from inkdigits.types import Floats, Ink, Probabilities

ReadInk: TypeAlias = Callable[[Ink], Probabilities]
"""Ink (N, 28, 28) → calibrated probabilities (N, 10)."""

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


def explain(prediction: Prediction, read: ReadInk) -> Explanation:
    """Find what a reading rests on, asking the calibrated network that read it.

    >>> ink = np.zeros((28, 28), np.uint8)
    >>> blank = Prediction(None, 0.0, (0.1,) * 10, "reject", "blank", None, ink, "v1", 1.0, 0.0)
    >>> explain(blank, read=lambda inks: np.full((len(inks), 10), 0.1)).runner_up is None
    True
    """
    ink, digit = prediction.ink, prediction.digit
    if digit is None:
        saliency = np.zeros(ink.shape, np.float32)
        return Explanation(prediction, saliency, None, 0.0, overlay(ink, saliency))
    saliency = occlusion(read, ink, digit)
    second = int(np.argsort(prediction.probabilities)[-2])
    probability = prediction.probabilities[second]
    return Explanation(prediction, saliency, second, probability, overlay(ink, saliency))


def occlusion(read: ReadInk, ink: Ink, digit: int) -> Floats:
    """Return by how much hiding each part of the ink lowers the odds of a digit.

    The odds are watched, since near certainty the probability of a digit hardly moves.

    Returns:
        (28, 28) float32, in nats: log odds of the digit with the ink as it is, less those with a
        patch over it, averaged over the patches that hide the pixel. 0 where no patch hides any
        ink.

    >>> ink = np.zeros((28, 28), np.uint8)
    >>> ink[4:24, 14] = 255
    >>> even = lambda inks: np.full((len(inks), 10), 0.1)
    >>> float(occlusion(even, ink, digit=1).max())
    0.0
    """
    height, width = ink.shape
    # From outside the edge, so that what is at the edge is hidden as often as the rest.
    starts = range(1 - PATCH, max(height, width), STRIDE)
    places = [
        (slice(max(0, top), top + PATCH), slice(max(0, left), left + PATCH))
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


def overlay(ink: Ink, saliency: Floats) -> bytes:
    """Draw saliency (28, 28), in nats, over ink (28, 28), as a PNG file of 280x280 RGB.

    >>> len(overlay(np.zeros((28, 28), np.uint8), np.zeros((28, 28), np.float32))) > 100
    True
    """
    # Colours are relative to the strongest part, unless all are weak.
    strongest = max(float(np.abs(saliency).max()), _FULL_COLOUR)
    strength = np.clip(saliency / strongest, -1, 1)[..., None]
    tint = np.where(strength > 0, _FOR, _AGAINST)
    background = 255 + (tint - 255) * np.abs(strength) * 0.75
    darkness = ink[..., None].astype(np.float32) / 255 * 0.8
    pixels = np.rint(background * (1 - darkness)).astype(np.uint8)
    size = (ink.shape[1] * SCALE, ink.shape[0] * SCALE)
    return encode_png(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST))
