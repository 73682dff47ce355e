"""The HTTP interface: a Flask application around a reader.

``docs/api.md`` is its contract; ``error_handlers`` has the statuses of its errors. Nothing here
writes a picture anywhere.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Any

import orjson
from flask import Flask, Request, Response, g, request
from flask.json.provider import DefaultJSONProvider
from flask.typing import ResponseReturnValue

from inkdigits.client import Client
from inkdigits.decision.prediction import Prediction, Reader
from inkdigits.errors import ClientError, ImageError, NotReadyError
from inkdigits.log.ids import new_id
from inkdigits.model.artifact import ArtifactMetadata
from inkdigits.serving.api import bodies, open_inference
from inkdigits.serving.api.access import Gate, with_headers
from inkdigits.serving.api.error_handlers import (
    MAX_FORM_PARTS,
    error_response,
    install,
    status_and_code,
    wants_html,
)
from inkdigits.serving.api.health import Readiness
from inkdigits.serving.api.load_shedding import Pressure
from inkdigits.serving.api.requests import InMemoryRequest, decode_picture, flag, parse_reading
from inkdigits.serving.api.responses import (
    elapsed_ms,
    error_body,
    explanation_body,
    keep,
    prediction_body,
)
from inkdigits.serving.monitoring.logging import fields
from inkdigits.serving.monitoring.metrics import CONTENT_TYPE, Metrics
from inkdigits.serving.web import docs, session
from inkdigits.settings import Settings

if TYPE_CHECKING:
    # A service that keeps no log does without SQLAlchemy, which takes 12 MB.
    from inkdigits.log.store import Store

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PROBES = ("/health", "/metrics", "/v2/health")

logger = logging.getLogger(__name__)


class _JSONProvider(DefaultJSONProvider):
    # The order of docs/api.md, the digit first.
    sort_keys = False

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """Serialise an answer."""
        answer = self._prepare_response_obj(args, kwargs)
        text = orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE)
        return Response(text, mimetype="application/json")


class _Application(Flask):
    request_class = InMemoryRequest
    json_provider_class = _JSONProvider

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function: none of ours is a coroutine, and asking takes time each time."""
        return func

    def log_exception(
        self,
        exc_info: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> None:
        """Log the traceback of an unhandled exception under the request's id."""
        logger.error("unhandled", exc_info=exc_info, extra=fields(request_id=g.request_id))


def create_app(
    settings: Settings,
    reader: Reader,
    store: Store | None = None,
    metrics: Metrics | None = None,
) -> Flask:
    """Build the application and try a warm-up prediction.

    Args:
        settings: limits on bytes and pictures a request, and what the page needs.
        reader: what reads the digits, and limits their pixels; shared by the process's threads.
        store: the log that keeps the predictions; None keeps none, and there is no page then.
        metrics: the service's figures; None counts those of this process alone.

    Returns:
        The WSGI application. Logging is configured by whoever runs it.

    Raises:
        ConfigError: the page's cookies have no key, and none can be kept; or the API keys can't
            be used.
    """
    app = _Application(__name__, static_folder=None, template_folder="web/templates")
    app.config["MAX_CONTENT_LENGTH"] = settings.max_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = settings.max_bytes
    app.config["MAX_FORM_PARTS"] = MAX_FORM_PARTS
    # An answer for the client and a traceback in the log, in tests as in service.
    app.config["PROPAGATE_EXCEPTIONS"] = False
    # A model service may come and go; a model in this process, once it has read, stays.
    is_remote = isinstance(reader, Client)
    check = reader.check if isinstance(reader, Client) else Readiness(reader).require
    try:
        check()
    except (NotReadyError, ClientError) as error:
        logger.error("starting without being ready", extra=fields(error=error))  # noqa: TRY400
    package_version = version("inkdigits")
    metrics = Metrics() if metrics is None else metrics
    metrics.show_model(reader.model_version)
    if not is_remote:
        metrics.compare_with_reference(getattr(reader, "metadata", None))
    gate = Gate(settings, session.Operator(settings.admin_token).bears_token)
    pressure = Pressure(settings.deadline)

    def proceed() -> None:
        # Once the pictures are here, and before they are read.
        metrics.count_arrival(elapsed_ms() / 1000)
        pressure.proceed(g.began, request.environ.get("gunicorn.socket"))

    if settings.otlp_endpoint is not None:
        # Before the others, so that what they refuse is traced too.
        from inkdigits.serving.monitoring import tracing

        tracing.install(app, settings.otlp_endpoint, metrics, package_version)

    @app.before_request
    def begin() -> None:
        asked = _asked()
        _begin(asked)
        g.is_counted = True
        metrics.begin_request()
        g.waited = pressure.admit(asked.path)
        gate.admit(asked)

    app.wsgi_app = with_headers(app.wsgi_app, settings)  # type: ignore[assignment, method-assign]

    @app.after_request
    def finish(response: Response) -> Response:
        asked = _asked()
        gate.allow_origins(response, asked)
        _count(metrics, asked, response)
        return _finish(asked, response)

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        # Teardown may run for a request that never began.
        if g.pop("is_counted", False):
            metrics.end_request()

    install(app)
    app.register_blueprint(
        open_inference.blueprint(settings, reader, metrics, check, proceed, package_version)
    )
    app.register_blueprint(docs.blueprint(settings, package_version))
    draw_page: Callable[[], ResponseReturnValue] | None = None
    if store is not None and settings.page == "on":
        from inkdigits.serving.web import views

        draw_page = views.draw_page
        session.configure(app, settings)
        app.register_blueprint(views.blueprint(settings, reader, store, metrics, proceed))

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
                "GET /v2": "the same by the Open Inference Protocol",
                "GET /metrics": "what it counts and times, for Prometheus",
                "GET /openapi.json": "all of it, as OpenAPI 3.1",
                "GET /docs": "the same as a page",
            },
        }

    @app.get("/")
    def root() -> ResponseReturnValue:
        # Programs that don't care, such as curl, get the index; browsers ask for HTML.
        wanted = draw_page if draw_page is not None and wants_html() else index
        response = app.make_response(wanted())
        response.headers.add("Vary", "Accept")
        return response

    @app.get("/api/model")
    def model() -> ResponseReturnValue:
        metadata: ArtifactMetadata | None = getattr(reader, "metadata", None)
        if metadata is None:
            return error_response(404, "not_found", "This model says nothing of itself.")
        return asdict(metadata)

    @app.get("/health")
    def health() -> ResponseReturnValue:
        try:
            check()
        except (NotReadyError, ClientError) as error:
            status, g.error_code = status_and_code(error)
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
        if store is None:
            return {"status": "ready", "log": "off"}
        # Predictions are answered all the same while they wait in the outbox.
        return {"status": "ready", "log": "database" if store.available else "outbox"}

    @app.get("/metrics")
    def figures() -> ResponseReturnValue:
        return Response(metrics.render(), content_type=CONTENT_TYPE)

    @app.post("/predict")
    def predict() -> ResponseReturnValue:
        if not is_remote:
            check()
        asked = _asked()
        with_ink = flag(asked, "ink", default=False)
        to_keep = flag(asked, "record", default=True)
        wish = parse_reading(asked, settings.max_batch)
        proceed()
        log = store if to_keep else None
        if isinstance(wish.pictures, bytes):
            why: dict[str, object] = {}
            if wish.explain:
                explanation = reader.explain(wish.pictures, risk=wish.risk)
                prediction = explanation.prediction
                why = {"explanation": explanation_body(explanation)}
            else:
                prediction = reader.predict(wish.pictures, risk=wish.risk)
            metrics.count_prediction(prediction)
            g.outcome = {"decision": prediction.decision}
            return {**_answer(log, prediction, wish.pictures, with_ink=with_ink), **why}
        results = _read_batch(reader, wish.pictures, wish.risk)
        failures = [result for _, result in results if isinstance(result, ImageError)]
        g.outcome = {"pictures": len(results), "failed": len(failures)}
        for failure in failures:
            metrics.count_error(status_and_code(failure)[1])
        for _, result in results:
            if not isinstance(result, ImageError):
                metrics.count_prediction(result)
        return {
            "predictions": [
                error_body(status_and_code(result)[1], str(result))
                if isinstance(result, ImageError)
                else _answer(log, result, picture, with_ink=with_ink)
                for picture, result in results
            ]
        }

    return app


def _answer(
    log: Store | None, prediction: Prediction, picture: bytes | None, *, with_ink: bool
) -> bodies.Prediction:
    prediction_id = new_id()
    kept = keep(log, prediction, prediction_id, kind="api", owner=None, picture=picture)
    return prediction_body(prediction, prediction_id, kept, with_ink=with_ink)


def _read_batch(
    reader: Reader, texts: list[str], risk: float | None
) -> list[tuple[bytes | None, Prediction | ImageError]]:
    """Read a batch in order; what is wrong with a picture comes back in that picture's place."""
    decoded: list[bytes | ImageError] = []
    for text in texts:
        try:
            decoded.append(decode_picture(text))
        except ImageError as error:
            decoded.append(error)
    pictures = [picture for picture in decoded if isinstance(picture, bytes)]
    read = iter(reader.predict_batch(pictures, on_error="return", risk=risk) if pictures else ())
    return [
        (picture, next(read)) if isinstance(picture, bytes) else (None, picture)
        for picture in decoded
    ]


def _asked() -> Request:
    """The request itself: through Flask's stand-in each use of it costs a lookup."""
    asked: Request = request._get_current_object()  # type: ignore[attr-defined]
    return asked


def _begin(asked: Request) -> None:
    g.began = time.perf_counter()
    sent = asked.environ.get("HTTP_X_REQUEST_ID", "")
    g.request_id = sent if _REQUEST_ID.fullmatch(sent) else new_id()


def _count(metrics: Metrics, asked: Request, response: Response) -> None:
    rule = asked.url_rule
    # Strangers choose paths and methods; each would be a figure of its own for ever.
    is_known = rule is not None and asked.method in (rule.methods or ())
    metrics.count_request(
        asked.method if is_known else "other",
        "none" if rule is None else rule.rule,
        response.status_code,
        waited=g.get("waited", 0.0),
        seconds=elapsed_ms() / 1000,
    )
    if "error_code" in g:
        metrics.count_error(g.error_code)


def _finish(asked: Request, response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    if asked.endpoint == "web.static" and "v" in asked.args:
        # The version in the link changes with the file.
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    level = logging.ERROR if response.status_code >= 500 else logging.INFO
    is_probe = asked.path.startswith(_PROBES) and response.status_code == 200
    if is_probe or asked.endpoint == "web.static":
        # A probe every few seconds would drown the requests that people made.
        level = logging.DEBUG
    # The digit stays out: a sequence of pictures may be somebody's account number.
    outcome = fields(
        request_id=g.request_id,
        method=asked.method,
        path=asked.path,
        status=response.status_code,
        duration_ms=elapsed_ms(),
        bytes_in=asked.content_length,
        error=g.get("error_code"),
        trace_id=g.get("trace_id"),
        **g.get("outcome", {}),
    )
    logger.log(level, "request", extra=outcome)
    return response
