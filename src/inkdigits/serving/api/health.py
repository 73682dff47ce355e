"""``/health`` and ``/metrics``: whether the service can read, shown by reading a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response
from flask.typing import ResponseReturnValue

from inkdigits.errors import ClientError, NotReadyError
from inkdigits.serving.api.error_handlers import error_body, status_and_code
from inkdigits.serving.api.load_shedding import ServedReader
from inkdigits.serving.api.rate_limits import RateLimits
from inkdigits.serving.api.requests import current
from inkdigits.serving.monitoring.metrics import CONTENT_TYPE, Metrics
from inkdigits.types import Json

if TYPE_CHECKING:
    from inkdigits.log.store import Store


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
