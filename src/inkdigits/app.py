"""The HTTP interface: a Flask application around a reader; the only place that assigns statuses.

``docs/api.md`` is its contract. Nothing here writes a picture anywhere.
"""

from __future__ import annotations

import logging
import re
import time
from importlib.metadata import version
from types import TracebackType
from typing import Any

from flask import Flask, Response, g, jsonify, request
from flask.json.provider import DefaultJSONProvider
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, InternalServerError, RequestEntityTooLarge

from inkdigits import payload
from inkdigits.config import Settings
from inkdigits.errors import (
    ImageError,
    ImageTooLargeError,
    InkdigitsError,
    UnsupportedImageError,
)
from inkdigits.ids import new_id
from inkdigits.inference import Prediction, Reader
from inkdigits.logs import fields
from inkdigits.readiness import NotReadyError, Readiness

_MAX_FORM_PARTS = 16
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# Error → status and code; the first class that fits, so a subclass comes before its base.
_ANSWERS: tuple[tuple[type[InkdigitsError], int, str], ...] = (
    (NotReadyError, 503, "not_ready"),
    (payload.EmptyBodyError, 400, "empty_body"),
    (payload.IncompleteBodyError, 400, "incomplete_body"),
    (payload.BodyTooLargeError, 413, "body_too_large"),
    (payload.UnsupportedTypeError, 415, "unsupported_media_type"),
    (payload.InvalidJsonError, 400, "invalid_json"),
    (payload.MissingFieldError, 400, "missing_field"),
    (payload.WrongShapeError, 422, "wrong_shape"),
    (payload.TooManyPicturesError, 413, "too_many_pictures"),
    (payload.InvalidBase64Error, 400, "invalid_base64"),
    (payload.InvalidDataUrlError, 400, "invalid_data_url"),
    (ImageTooLargeError, 413, "image_too_large"),
    (UnsupportedImageError, 415, "unsupported_image"),
    (ImageError, 400, "not_an_image"),
)

logger = logging.getLogger(__name__)


class _JSONProvider(DefaultJSONProvider):
    # The order of docs/api.md, the digit first.
    sort_keys = False


class _Application(Flask):
    request_class = payload.InMemoryRequest
    json_provider_class = _JSONProvider

    def log_exception(
        self,
        exc_info: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> None:
        """Log the traceback of an unhandled exception under the request's id."""
        logger.error("unhandled", exc_info=exc_info, extra=fields(request_id=g.request_id))


def create_app(settings: Settings, reader: Reader) -> Flask:
    """Build the application and try a warm-up prediction.

    Args:
        settings: limits on bytes and pictures a request.
        reader: what reads the digits, and limits their pixels; shared by the process's threads.

    Returns:
        The WSGI application. Logging is configured by whoever runs it.
    """
    app = _Application(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = settings.max_bytes
    app.config["MAX_FORM_PARTS"] = _MAX_FORM_PARTS
    # An answer for the client and a traceback in the log, in tests as in service.
    app.config["PROPAGATE_EXCEPTIONS"] = False
    readiness = Readiness(reader)
    try:
        readiness.require()
    except NotReadyError as error:
        logger.error("starting without being ready", extra=fields(error=error))  # noqa: TRY400
    package_version = version("inkdigits")

    app.before_request(_begin)
    app.after_request(_finish)
    app.register_error_handler(InkdigitsError, _answer_error)
    app.register_error_handler(HTTPException, _answer_http_error)

    @app.get("/")
    def index() -> ResponseReturnValue:
        return {
            "name": "inkdigits",
            "version": package_version,
            "model_version": reader.model_version,
            "endpoints": {
                "POST /predict": "read a picture of a handwritten digit",
                "GET /health": "whether pictures can be read, and by which model",
                "GET /health/live": "whether the process answers",
                "GET /health/ready": "whether to send it requests",
            },
        }

    @app.get("/health")
    def health() -> ResponseReturnValue:
        versions = {"model_version": reader.model_version, "version": package_version}
        try:
            readiness.require()
        except NotReadyError as error:
            status, g.error_code = _answer_to(error)
            body = {"status": "unhealthy", "model_loaded": False, **versions}
            return {**body, **_error_body(g.error_code, str(error))}, status
        return {"status": "healthy", "model_loaded": True, **versions}

    @app.get("/health/live")
    def live() -> ResponseReturnValue:
        return {"status": "alive"}

    @app.get("/health/ready")
    def ready() -> ResponseReturnValue:
        readiness.require()
        return {"status": "ready"}

    @app.post("/predict")
    def predict() -> ResponseReturnValue:
        readiness.require()
        pictures = payload.requested_pictures(request, settings.max_batch)
        if isinstance(pictures, bytes):
            prediction = reader.predict(pictures)
            g.outcome = {"decision": prediction.decision}
            return _prediction_body(prediction)
        results = _read_batch(reader, pictures)
        failures = sum(isinstance(result, ImageError) for result in results)
        g.outcome = {"pictures": len(results), "failed": failures}
        return {
            "predictions": [
                _error_body(_answer_to(result)[1], str(result))
                if isinstance(result, ImageError)
                else _prediction_body(result)
                for result in results
            ]
        }

    return app


def _read_batch(reader: Reader, texts: list[str]) -> list[Prediction | ImageError]:
    """Read a batch in order; what is wrong with a picture comes back in that picture's place."""
    results: list[Prediction | ImageError | None] = []
    pictures = []
    for text in texts:
        try:
            picture = payload.decode_picture(text)
        except ImageError as error:
            results.append(error)
        else:
            results.append(None)
            pictures.append(picture)
    read = iter(reader.predict_batch(pictures, on_error="return") if pictures else ())
    return [next(read) if result is None else result for result in results]


def _prediction_body(prediction: Prediction) -> dict[str, Any]:
    return {
        "prediction": prediction.digit,
        "confidence": prediction.confidence,
        "probabilities": list(prediction.probabilities),
        "decision": prediction.decision,
        "reason": prediction.reason,
        "novelty": prediction.novelty,
        "model_version": prediction.model_version,
        "id": new_id(),
        "preprocessing_time_ms": round(prediction.preprocessing_ms, 3),
        "inference_time_ms": round(prediction.inference_ms, 3),
        "total_time_ms": _elapsed_ms(),
    }


def _elapsed_ms() -> float:
    began: float = g.began
    return round((time.perf_counter() - began) * 1000, 3)


def _begin() -> None:
    g.began = time.perf_counter()
    sent = request.headers.get("X-Request-ID", "")
    g.request_id = sent if _REQUEST_ID.fullmatch(sent) else new_id()


def _finish(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    level = logging.ERROR if response.status_code >= 500 else logging.INFO
    if request.path.startswith("/health") and response.status_code == 200:
        # A probe every few seconds would drown the requests that people made.
        level = logging.DEBUG
    # The digit stays out: a sequence of pictures may be somebody's account number.
    outcome = fields(
        request_id=g.request_id,
        method=request.method,
        path=request.path,
        status=response.status_code,
        duration_ms=_elapsed_ms(),
        bytes_in=request.content_length,
        error=g.get("error_code"),
        **g.get("outcome", {}),
    )
    logger.log(level, "request", extra=outcome)
    return response


def _error_body(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _refuse(status: int, code: str, message: str) -> Response:
    g.error_code = code
    response = jsonify(_error_body(code, message))
    response.status_code = status
    return response


def _answer_to(error: InkdigitsError) -> tuple[int, str]:
    for kind, status, code in _ANSWERS:
        if isinstance(error, kind):
            return status, code
    # Not the client's doing: it goes the way of any unhandled exception.
    raise error


def _answer_error(error: InkdigitsError) -> Response:
    status, code = _answer_to(error)
    response = _refuse(status, code, str(error))
    if status == 503:
        response.headers["Retry-After"] = "1"
    return response


def _answer_http_error(error: HTTPException) -> Response:
    code = error.name.lower().replace(" ", "_")
    message = error.description or error.name
    if isinstance(error, RequestEntityTooLarge):
        code = "body_too_large"
        message = (
            f"The request is over the limit of {request.max_content_length} bytes, "
            f"or its form over that of {_MAX_FORM_PARTS} parts."
        )
    elif isinstance(error, InternalServerError):
        code = "internal_error"
        message = f"Something went wrong here; the log has it under request id {g.request_id}."
    response = _refuse(error.code or 500, code, message)
    for name, value in error.get_headers():
        # Allow of a 405 and its like are kept; the type of the body is ours.
        if name.lower() != "content-type":
            response.headers[name] = value
    return response
