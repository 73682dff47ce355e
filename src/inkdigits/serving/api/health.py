"""Whether a reader can read: shown by reading a picture, not by having been loaded."""

from __future__ import annotations

import logging
import threading

from PIL import Image, ImageDraw

from inkdigits.decision.prediction import Reader
from inkdigits.errors import InkdigitsError, NotReadyError
from inkdigits.ink.png import encode_png
from inkdigits.serving.monitoring.logging import fields

logger = logging.getLogger(__name__)


def warm_up_picture() -> bytes:
    """Draw a one, as an encoded PNG, so that a warm-up goes the whole way of a real picture."""
    image = Image.new("L", (56, 56), 255)
    ImageDraw.Draw(image).line((28, 10, 28, 46), fill=0, width=6)
    return encode_png(image)


class Readiness:
    """Whether the reader has read a picture; once it has, it stays ready."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        self._ready = False

    def require(self) -> None:
        """Make sure that a warm-up prediction has worked, trying again if the last one failed.

        Raises:
            NotReadyError: it failed; the log has the reason.
        """
        with self._lock:
            if self._ready:
                return
            try:
                prediction = self._reader.predict(warm_up_picture())
            except InkdigitsError as error:
                logger.warning("warm-up failed", extra=fields(error=error))
                raise NotReadyError(
                    "The model cannot read pictures yet; the log has the reason."
                ) from error
            if prediction.digit is None:
                logger.warning("warm-up failed", extra=fields(error="no digit was read"))
                raise NotReadyError("The model found no digit in its warm-up picture.")
            self._ready = True
