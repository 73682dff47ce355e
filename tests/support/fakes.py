"""Stand-ins for what is slow or heavy in the real thing."""

import io
import os
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from flask.testing import FlaskClient
from PIL import Image
from support.hostile_pictures import chunk
from support.pictures import encoded

from inkdigits.decision.prediction import (
    Explanation,
    NumberDigit,
    NumberReading,
    Prediction,
    Reader,
)
from inkdigits.errors import ImageError, ImageTooLargeError, UnreadableImageError
from inkdigits.explain import overlay
from inkdigits.ink.png import encode_png
from inkdigits.types import Picture

STRICTEST_RISK = 0.002
"""A FakeReader accepts nothing at a risk below it."""


class FakeReader(Reader):
    """Reads any picture as one digit, and a picture of one colour as blank.

    Args:
        digit: what it reads.
        delay: seconds that a prediction takes.
        failure: raised by every prediction while it is set.
        max_pixels: a larger picture is rejected.
    """

    model_version = "fake-1"

    def __init__(self, digit=7, delay=0.0, failure=None, max_pixels=1_000_000) -> None:
        self.digit, self.delay = digit, delay
        self.failure, self.max_pixels = failure, max_pixels
        self.received: list[bytes] = []
        self._lock = threading.Lock()

    def predict(self, picture: Picture, *, risk: float | None = None) -> Prediction:
        if self.failure is not None:
            raise self.failure
        time.sleep(self.delay)
        content = _encoded(picture)
        with self._lock:
            self.received.append(content)
        try:
            with Image.open(io.BytesIO(content)) as image:
                if image.width * image.height > self.max_pixels:
                    raise ImageTooLargeError(f"The picture is over {self.max_pixels} pixels.")
                levels = np.asarray(image.convert("L"))
        except OSError as error:
            raise UnreadableImageError("This is not a picture that can be decoded.") from error
        blank = bool(levels.min() == levels.max())
        strict = risk is not None and risk < STRICTEST_RISK
        probabilities = [0.1] * 10 if blank else [0.01] * 10
        if not blank:
            probabilities[self.digit] = 0.91
        return Prediction(
            digit=None if blank else self.digit,
            confidence=0.0 if blank else 0.91,
            probabilities=tuple(probabilities),
            decision="reject" if blank else "review" if strict else "accept",
            reason="blank" if blank else None,
            novelty=None if blank else -3.1,
            ink=np.zeros((28, 28), np.uint8),
            model_version=self.model_version,
            preprocessing_ms=0.25,
            inference_ms=0.5,
            risk=risk,
            coverage=None if risk is None else 0.0 if strict else 0.99,
        )

    def explain(self, picture: Picture, *, risk: float | None = None) -> Explanation:
        prediction = self.predict(picture, risk=risk)
        saliency = np.linspace(-1, 1, 784, dtype=np.float32).reshape(28, 28)
        picture = overlay(prediction.ink, saliency)
        if prediction.digit is None:
            return Explanation(prediction, saliency * 0, None, 0.0, picture)
        return Explanation(prediction, saliency, (self.digit + 1) % 10, 0.01, picture)

    def _read_fields(self, picture, regions, hints, risk) -> list[NumberReading]:
        """Read the picture's digit twice, such as 77, in each region."""
        found = self.predict(picture, risk=risk)
        if found.digit is None:
            reading = NumberReading(
                "", (), 0.0, "reject", "no_ink", (), (), self.model_version, 1.0
            )
            return [reading] * len(regions or [0])
        digit = NumberDigit(self.digit, 0.9, (1, 2, 3, 4), "accept", ((1, 0.1),), found.ink)
        text = str(self.digit) * 2
        reading = NumberReading(
            *(text, (digit, digit), 0.8, found.decision, None, (("70", 0.1),), hints.check(text)),
            *(self.model_version, 1.0),
        )
        return [reading] * len(regions or [0])

    def _read_each(self, pictures: Any, risk: float | None) -> Iterator[Prediction | ImageError]:
        for picture in pictures:
            try:
                yield self.predict(picture, risk=risk)
            except ImageError as error:
                yield error


class SeesSeveral(FakeReader):
    """Rejects each picture for having several digits, which read as its digit twice."""

    def predict(self, picture, *, risk=None) -> Prediction:
        found = super().predict(picture, risk=risk)
        number = FakeReader(self.digit).read(picture, risk=risk)
        return replace(found, decision="reject", reason="several_digits", number=number)


def _encoded(picture: Picture) -> bytes:
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, (str, os.PathLike)):
        return Path(picture).read_bytes()
    return encode_png(picture)


def drawn_digit(format: str = "PNG", size: tuple[int, int] = (56, 56)) -> bytes:  # noqa: A002
    """An encoded picture with some ink on it."""
    levels = np.full((size[1], size[0]), 255, np.uint8)
    levels[size[1] // 4 : -size[1] // 4, size[0] // 2 - 2 : size[0] // 2 + 2] = 0
    return encoded(Image.fromarray(levels), format)


def send_digit(client: FlaskClient, path: str = "/predict", **headers: str) -> Any:
    """Send a drawn digit, with headers named in Python's way, such as ``X_API_Key``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, data=drawn_digit(), content_type="image/png", headers=named)


def blank_picture() -> bytes:
    """An encoded picture without any ink."""
    return encode_png(np.full((28, 28), 255, np.uint8))


def empty_png(width: int, height: int) -> bytes:
    """A PNG that says it is of a size, and holds next to nothing."""
    content = encode_png(np.zeros((1, 63), np.uint8))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return content[:8] + header + content[8 + len(header) :]
