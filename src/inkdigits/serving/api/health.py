"""``/health`` and ``/metrics``: whether the service can read, shown by reading a picture."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from flask import Blueprint, Response
from flask.typing import ResponseReturnValue
from PIL import Image, ImageDraw

from inkdigits.decision.prediction import Reader
from inkdigits.errors import ClientError, InkdigitsError, NotReadyError
from inkdigits.ink.png import encode_png
from inkdigits.serving.api.error_handlers import error_body, status_and_code
from inkdigits.serving.api.load_shedding import ServedReader
from inkdigits.serving.api.rate_limits import RateLimits
from inkdigits.serving.api.requests import current
from inkdigits.serving.monitoring.logging import fields
from inkdigits.serving.monitoring.metrics import CONTENT_TYPE, Metrics
from inkdigits.types import Json

if TYPE_CHECKING:
    from inkdigits.log.store import Store

logger = logging.getLogger(__name__)


def _warm_up_picture() -> bytes:
    """Return a drawn one as PNG, so that a warm-up takes the whole path of a real picture."""
    image = Image.new("L", (56, 56), 255)
    ImageDraw.Draw(image).line((28, 10, 28, 46), fill=0, width=6)
    return encode_png(image)


class Readiness:
    """Whether a reader has read a picture; once it has, it stays ready."""

    def __init__(self, reader: Reader) -> None:
        self.is_ready = False
        self._reader = reader
        self._lock = threading.Lock()

    def require(self) -> None:
        """Make sure that a warm-up prediction has worked, or try it; NotReadyError if it fails."""
        with self._lock:
            if self.is_ready:
                return
            try:
                prediction = self._reader.predict(_warm_up_picture())
            except InkdigitsError as error:
                logger.warning("warm-up failed", extra=fields(error=error))
                raise NotReadyError(
                    "The model cannot read pictures yet; the log has the reason."
                ) from error
            if prediction.digit is None:
                raise NotReadyError("The model found no digit in its warm-up picture.")
            self.is_ready = True


def blueprint(
    reader: ServedReader, store: Store | None, metrics: Metrics, rates: RateLimits, version: str
) -> Blueprint:
    """Make the routes that say whether the service can read, and what it counts."""
    service = Blueprint("service", __name__)

    @service.get("/health")
    def health() -> ResponseReturnValue:
        body: Json = {"status": "healthy", "model_loaded": True}
        status = 200
        try:
            reader.check()
        except (NotReadyError, ClientError) as error:
            status, code = status_and_code(error)
            current().error_code = code
            body = {"status": "unhealthy", "model_loaded": False}
            body |= error_body(code, str(error))
        return {**body, "model_version": reader.model_version, "version": version}, status

    @service.get("/health/live")
    def live() -> ResponseReturnValue:
        return {"status": "alive"}

    @service.get("/health/ready")
    def ready() -> ResponseReturnValue:
        reader.check()
        # Predictions are answered all the same while they wait in the outbox.
        log = "off" if store is None else "database" if store.available else "outbox"
        return {"status": "ready", "log": log, "rates": rates.counter()}

    @service.get("/metrics")
    def figures() -> ResponseReturnValue:
        return Response(metrics.render(), content_type=CONTENT_TYPE)

    return service
