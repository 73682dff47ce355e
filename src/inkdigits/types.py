"""The names of what flows through Inkdigits, each defined once.

Arrays carry their shape in the docstring of whatever takes or returns them: N pictures,
B in a batch, H rows, W columns.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""A picture in memory: (H, W) grey, or (H, W, 3 or 4) with colour; 0 is black, 255 white."""

Picture: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | Pixels"
"""Whatever a reader takes: a path, an encoded picture, a Pillow image or an array."""

Ink: TypeAlias = npt.NDArray[np.uint8]
"""What the model was trained on: (28, 28) or (N, 28, 28); 0 is background, 255 is ink."""

Floats: TypeAlias = npt.NDArray[np.float32]
"""Pictures, logits or features in single precision."""

Doubles: TypeAlias = npt.NDArray[np.float64]
"""Statistics in double precision."""

Grey: TypeAlias = Floats | Pixels
"""Luminance (H, W), 0 to 255, as floats or bytes."""

Mask: TypeAlias = npt.NDArray[np.bool_]
"""Which pixels belong to something: (H, W) or (N, H, W)."""

Labels: TypeAlias = npt.NDArray[np.int64]
"""Digits (N,), 0 to 9, or ``NO_DIGIT``."""

Probabilities: TypeAlias = Doubles
"""Calibrated probabilities of the digits 0 to 9: (N, 10); each row sums to 1."""

Rng: TypeAlias = np.random.Generator
"""The only source of randomness of whatever is given one."""

Json: TypeAlias = dict[str, Any]
"""A JSON object."""

Report: TypeAlias = Callable[[str], None]
"""What is told a line of what was found."""

Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
"""Where a network runs; "auto" is the first present of cuda, mps, cpu."""

NO_DIGIT: Final = -1
"""The label of a picture without a digit."""

NO_DIGIT_LABEL: Final = "none"
"""How people and files write ``NO_DIGIT``."""
