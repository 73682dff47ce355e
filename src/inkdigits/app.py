"""The HTTP interface: a Flask application around a reader; the only place that assigns statuses.

``docs/api.md`` is its contract. Nothing here writes a picture anywhere.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import asdict
from importlib.metadata import version
from types import TracebackType

from flask import (
    Flask,
    Response,
    current_app,
    g,
    jsonify,
    make_response,
    render_template,
    request,
)
from flask.json.provider import DefaultJSONProvider
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, InternalServerError, RequestEntityTooLarge

from inkdigits import payload
from inkdigits.answer import elapsed_ms, error_body, explanation_body, keep, prediction_body
from inkdigits.artifact import ArtifactMetadata
from inkdigits.config import Settings
from inkdigits.errors import (
    BackendUnavailableError,
    ImageError,
    ImageTooLargeError,
    InkdigitsError,
    QueryError,
    RecordError,
    RecordNotFoundError,
    StoreUnavailableError,
    UnsupportedImageError,
)
from inkdigits.ids import new_id
from inkdigits.inference import Prediction, Reader
from inkdigits.logs import fields
from inkdigits.readiness import NotReadyError, Readiness
from inkdigits.remote import ModelUnavailableError, RemoteReader
from inkdigits.store import Store
from inkdigits.web import security, session, views

_MAX_FORM_PARTS = 16
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# Error → status and code; the first class that fits, so a subclass comes before its base.
_ANSWERS: tuple[tuple[type[InkdigitsError], int, str], ...] = (
    (NotReadyError, 503, "not_ready"),
    (ModelUnavailableError, 503, "model_unavailable"),
    (StoreUnavailableError, 503, "history_unavailable"),
    (RecordNotFoundError, 404, "not_found"),
    (QueryError, 400, "invalid_query"),
    (RecordError, 422, "wrong_value"),
    (BackendUnavailableError, 501, "not_installed"),
    (payload.EmptyBodyError, 400, "empty_body"),
    (payload.IncompleteBodyError, 400, "incomplete_body"),
    (payload.BodyTooLargeError, 413, "body_too_large"),
    (payload.UnsupportedTypeError, 415, "unsupported_media_type"),
    (payload.InvalidJsonError, 400, "invalid_json"),
    (payload.MissingFieldError, 400, "missing_field"),
    (payload.WrongShapeError, 422, "wrong_shape"),
    (payload.InvalidRiskError, 422, "invalid_risk"),
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


def create_app(settings: Settings, reader: Reader, store: Store | None = None) -> Flask:
    """Build the application and try a warm-up prediction.

    Args:
        settings: limits on bytes and pictures a request, and what the page needs.
        reader: what reads the digits, and limits their pixels; shared by the process's threads.
        store: the log that keeps the predictions; None keeps none, and there is no page then.

    Returns:
        The WSGI application. Logging is configured by whoever runs it.

    Raises:
        ConfigError: the page's cookies have no key, and none can be kept.
    """
    app = _Application(__name__, static_folder=None, template_folder="web/templates")
    app.config["MAX_CONTENT_LENGTH"] = settings.max_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = settings.max_bytes
    app.config["MAX_FORM_PARTS"] = _MAX_FORM_PARTS
    # An answer for the client and a traceback in the log, in tests as in service.
    app.config["PROPAGATE_EXCEPTIONS"] = False
    # A model service may come and go; a model in this process, once it has read, stays.
    is_remote = isinstance(reader, RemoteReader)
    check = reader.check if isinstance(reader, RemoteReader) else Readiness(reader).require
    try:
        check()
    except (NotReadyError, ModelUnavailableError) as error:
        logger.error("starting without being ready", extra=fields(error=error))  # noqa: TRY400
    package_version = version("inkdigits")

    @app.before_request
    def begin() -> ResponseReturnValue | None:
        _begin()
        if security.is_foreign(request, settings):
            return _refuse(403, "forbidden", "This came from a page of another origin.")
        return None

    @app.after_request
    def finish(response: Response) -> Response:
        security.secure(response, request, settings)
        return _finish(response)

    app.register_error_handler(InkdigitsError, _answer_error)
    app.register_error_handler(HTTPException, _answer_http_error)
    if store is not None and settings.page == "on":
        session.configure(app, settings)
        app.register_blueprint(views.blueprint(settings, reader, store))

    @app.get("/api")
    def index() -> ResponseReturnValue:
        return {
            "name": "inkdigits",
            "version": package_version,
            "model_version": reader.model_version,
            "endpoints": {
                "POST /predict": "read a picture of a handwritten digit",
                "GET /api/model": "what the model says of itself",
                "GET /health": "whether pictures can be read, and by which model",
                "GET /health/live": "whether the process answers",
                "GET /health/ready": "whether to send it requests",
            },
        }

    @app.get("/")
    def root() -> ResponseReturnValue:
        # Programs that don't care, such as curl, get the index; browsers ask for HTML.
        is_page = store is not None and settings.page == "on" and _wants_html()
        response = app.make_response(views.draw_page() if is_page else index())
        response.headers.add("Vary", "Accept")
        return response

    @app.get("/api/model")
    def model() -> ResponseReturnValue:
        metadata: ArtifactMetadata | None = getattr(reader, "metadata", None)
        if metadata is None:
            return _refuse(404, "not_found", "This model says nothing of itself.")
        return asdict(metadata)

    @app.get("/health")
    def health() -> ResponseReturnValue:
        try:
            check()
        except (NotReadyError, ModelUnavailableError) as error:
            status, g.error_code = _answer_to(error)
            body = {"status": "unhealthy", "model_loaded": False}
            versions = {"model_version": reader.model_version, "version": package_version}
            return {**body, **versions, **error_body(g.error_code, str(error))}, status
        versions = {"model_version": reader.model_version, "version": package_version}
        return {"status": "healthy", "model_loaded": True, **versions}

    @app.get("/health/live")
    def live() -> ResponseReturnValue:
        return {"status": "alive"}

    @app.get("/health/ready")
    def ready() -> ResponseReturnValue:
        check()
        return {"status": "ready"}

    @app.post("/predict")
    def predict() -> ResponseReturnValue:
        if not is_remote:
            check()
        with_ink = payload.flag(request, "ink", default=False)
        to_keep = payload.flag(request, "record", default=True)
        wish = payload.requested(request, settings.max_batch)
        log = store if to_keep else None
        if isinstance(wish.pictures, bytes):
            why: dict[str, object] = {}
            if wish.explain:
                explanation = reader.explain(wish.pictures, risk=wish.risk)
                prediction = explanation.prediction
                why = {"explanation": explanation_body(explanation)}
            else:
                prediction = reader.predict(wish.pictures, risk=wish.risk)
            g.outcome = {"decision": prediction.decision}
            return {**_answer(log, prediction, wish.pictures, with_ink=with_ink), **why}
        results = _read_batch(reader, wish.pictures, wish.risk)
        failures = sum(isinstance(result, ImageError) for _, result in results)
        g.outcome = {"pictures": len(results), "failed": failures}
        return {
            "predictions": [
                error_body(_answer_to(result)[1], str(result))
                if isinstance(result, ImageError)
                else _answer(log, result, picture, with_ink=with_ink)
                for picture, result in results
            ]
        }

    return app


def _answer(
    log: Store | None, prediction: Prediction, picture: bytes | None, *, with_ink: bool
) -> dict[str, object]:
    prediction_id = new_id()
    if log is not None:
        keep(log, prediction, prediction_id, kind="api", owner=None, picture=picture)
    return prediction_body(prediction, prediction_id, with_ink=with_ink)


def _read_batch(
    reader: Reader, texts: list[str], risk: float | None
) -> list[tuple[bytes | None, Prediction | ImageError]]:
    """Read a batch in order; what is wrong with a picture comes back in that picture's place."""
    decoded: list[bytes | ImageError] = []
    for text in texts:
        try:
            decoded.append(payload.decode_picture(text))
        except ImageError as error:
            decoded.append(error)
    pictures = [picture for picture in decoded if isinstance(picture, bytes)]
    read = iter(reader.predict_batch(pictures, on_error="return", risk=risk) if pictures else ())
    return [
        (picture, next(read)) if isinstance(picture, bytes) else (None, picture)
        for picture in decoded
    ]


def _wants_html() -> bool:
    accepted = request.accept_mimetypes
    return accepted.best_match(["application/json", "text/html"]) == "text/html"


def _begin() -> None:
    g.began = time.perf_counter()
    sent = request.headers.get("X-Request-ID", "")
    g.request_id = sent if _REQUEST_ID.fullmatch(sent) else new_id()


def _finish(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    if request.endpoint != "web.static":
        response.headers["Cache-Control"] = "no-store"
    elif "v" in request.args:
        # The version in the link changes with the file.
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    response.headers["X-Content-Type-Options"] = "nosniff"
    level = logging.ERROR if response.status_code >= 500 else logging.INFO
    is_probe = request.path.startswith("/health") and response.status_code == 200
    if is_probe or request.endpoint == "web.static":
        # A probe every few seconds would drown the requests that people made.
        level = logging.DEBUG
    # The digit stays out: a sequence of pictures may be somebody's account number.
    outcome = fields(
        request_id=g.request_id,
        method=request.method,
        path=request.path,
        status=response.status_code,
        duration_ms=elapsed_ms(),
        bytes_in=request.content_length,
        error=g.get("error_code"),
        **g.get("outcome", {}),
    )
    logger.log(level, "request", extra=outcome)
    return response


def _refuse(status: int, code: str, message: str) -> Response:
    g.error_code = code
    is_api = request.path.startswith(("/predict", "/api", "/health"))
    if "web" in current_app.blueprints and not is_api and _wants_html():
        return make_response(render_template("error.html", status=status, message=message), status)
    response = jsonify(error_body(code, message))
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
