"""A picture as the network takes it, as people write it: Pillow and NumPy, nothing clever."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def prepare(content: bytes) -> np.ndarray:
    """(28, 28) float32: on white, grey, light on dark, cropped, 20x20 in the middle, standardised.

    Raises:
        OSError: not a picture.
    """
    image = Image.open(io.BytesIO(content))
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    grey = np.asarray(image.convert("L"))
    if grey.mean() > 127:
        grey = 255 - grey
    ink = Image.fromarray(grey)
    box = ink.point(lambda value: 255 if value > 40 else 0).getbbox()
    if box is not None:
        ink = ink.crop(box)
    scale = 20 / max(ink.size)
    ink = ink.resize(
        (max(1, round(ink.width * scale)), max(1, round(ink.height * scale))),
        Image.Resampling.LANCZOS,
    )
    canvas = Image.new("L", (28, 28), 0)
    canvas.paste(ink, ((28 - ink.width) // 2, (28 - ink.height) // 2))
    return (np.asarray(canvas, dtype=np.float32) / 255 - np.float32(0.1307)) / np.float32(0.3081)
