"""What happens around every request: its id, its admission, its answer's JSON, its log line."""

from __future__ import annotations

import contextlib
import logging
import re
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any

import orjson
from flask import Flask, Request, Response, g, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException

from inkdigits.serving.api.access import Gate
from inkdigits.serving.api.load_shedding import ServedReader, elapsed_ms
from inkdigits.serving.api.requests import InMemoryRequest
from inkdigits.serving.monitoring.logging import fields
from inkdigits.serving.monitoring.metrics import Metrics

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Of a body that was not read before an error was found.
_REST_BYTES = 1 << 20
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


class Application(Flask):
    """Flask with requests in memory and answers encoded by orjson."""

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


def install(app: Flask, gate: Gate, reader: ServedReader, metrics: Metrics) -> None:
    """Add the hooks to an application."""

    @app.before_request
    def begin() -> None:
        asked = _current()
        sent = asked.environ.get("HTTP_X_REQUEST_ID", "")
        g.request_id = sent if _REQUEST_ID.fullmatch(sent) else str(uuid.uuid4())
        g.is_counted = True
        metrics.begin_request()
        reader.admit(asked)
        gate.admit(asked)

    @app.after_request
    def finish(response: Response) -> Response:
        asked = _current()
        gate.allow_origins(response, asked)
        _count(metrics, asked, response)
        response.headers["X-Request-ID"] = g.request_id
        if asked.endpoint == "web.static" and "v" in asked.args:
            # The version in the link changes with the file.
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        _log(asked, response)
        if response.status_code >= 400 and asked.content_length:
            # Gunicorn closes a connection on which much of a body is left, without telling.
            with contextlib.suppress(OSError, HTTPException):
                asked.stream.read(_REST_BYTES)
        return response

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        # Teardown may run for a request that never began.
        if g.pop("is_counted", False):
            metrics.end_request()


def _current() -> Request:
    """Return the request itself: through Flask's stand-in each use of it costs a lookup."""
    asked: Request = request._get_current_object()  # type: ignore[attr-defined]
    return asked


def _count(metrics: Metrics, asked: Request, response: Response) -> None:
    rule = asked.url_rule
    # Strangers choose paths and methods; each would be a figure of its own for ever.
    is_known = rule is not None and asked.method in (rule.methods or ())
    metrics.count_request(
        asked.method if is_known else "other",
        "none" if rule is None else rule.rule,
        response.status_code,
        waited=g.waited,
        seconds=elapsed_ms() / 1000,
    )
    if "error_code" in g:
        metrics.count_error(g.error_code)


def _log(asked: Request, response: Response) -> None:
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
