"""Pictures that the tests make themselves."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw


def seven(size: int = 200, width: int = 16) -> Image.Image:
    """A black 7 on white, well inside the picture."""
    image = Image.new("L", (size, size), 255)
    stroke = [(0.3 * size, 0.25 * size), (0.7 * size, 0.25 * size), (0.45 * size, 0.8 * size)]
    ImageDraw.Draw(image).line(stroke, fill=0, width=width, joint="curve")
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
