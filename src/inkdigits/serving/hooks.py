"""What happens around every request: its id, its admission, its answer's JSON, its log line."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import orjson
from flask import Flask, Request, Response, current_app
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.routing import MapAdapter

from inkdigits.errors import InvalidRequestError
from inkdigits.serving.api.access import Gate
from inkdigits.serving.api.load_shedding import ServedReader
from inkdigits.serving.api.openapi import OPERATIONS
from inkdigits.serving.api.requests import ServedRequest, current, require_known
from inkdigits.serving.monitoring.logging import fields
from inkdigits.serving.monitoring.metrics import Metrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Of a body that was not read before an error was found.
_REST_BYTES = 1 << 20
_PROBES = ("/health", "/metrics", "/v2/health")

logger = logging.getLogger(__name__)


class _JSONAnswer(Response):
    """An answer whose headers are complete, so that Werkzeug need not look through them again."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(self.status, self.headers.to_wsgi_list())
        return () if environ["REQUEST_METHOD"] == "HEAD" else self.iter_encoded()


class _JSONProvider(DefaultJSONProvider):
    # The order of docs/api.md, the digit first.
    sort_keys = False

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """Serialise an answer."""
        answer = self._prepare_response_obj(args, kwargs)
        text = orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE)
        return _JSONAnswer(text, content_type="application/json")


class Application(Flask):
    """Flask with requests in memory and answers encoded by orjson."""

    request_class = ServedRequest
    json_provider_class = _JSONProvider

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return what finds a request's route: as Flask's, without encoding the host each time."""
        if request is None:
            return super().create_url_adapter(request)
        return MapAdapter(
            self.url_map,
            request.host,
            request.root_path,
            subdomain="",
            url_scheme=request.scheme,
            path_info=request.path,
            default_method=request.method,
            query_args=request.query_string.decode(errors="replace"),
        )

    def log_exception(self, exc_info: Any) -> None:
        """Log the traceback of an unhandled exception under the request's id."""
        logger.error("unhandled", exc_info=exc_info, extra=fields(request_id=current().request_id))


def install(app: Flask, gate: Gate, reader: ServedReader, metrics: Metrics) -> None:
    """Add the hooks to an application."""

    @app.before_request
    def begin() -> None:
        asked = current()
        sent = asked.environ.get("HTTP_X_REQUEST_ID", "")
        asked.request_id = sent if _REQUEST_ID.fullmatch(sent) else os.urandom(16).hex()
        metrics.count("requests_in_flight")
        reader.admit(asked)
        asked.key_name = gate.admit(asked)
        if asked.query_string and asked.url_rule is not None:
            operation = OPERATIONS.get((asked.method, asked.url_rule.rule))
            if operation is not None and operation.query is not None:
                require_known(asked.args, operation.query.__annotations__, "query")

    @app.after_request
    def finish(response: Response) -> Response:
        asked = current()
        has_rest = response.status_code >= 400 and asked.error_code != "incomplete_body"
        if "HTTP_TRANSFER_ENCODING" in asked.environ or (has_rest and asked.content_length):
            response = _after_the_body(asked, response)
        gate.allow_origins(response, asked)
        _count(metrics, asked, response)
        response.headers["X-Request-ID"] = asked.request_id
        if asked.endpoint == "web.static" and "v" in asked.args:
            # The version in the link changes with the file.
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        _log(asked, response)
        return response

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        # Teardown may run for a request that never began.
        if current().request_id:
            metrics.count("requests_in_flight", by=-1)


def _after_the_body(asked: ServedRequest, response: Response) -> Response:
    """Read what is left of a body, and return the answer to it.

    Gunicorn closes a connection on which much of a body is left, without telling, and answers once
    more if it finds malformed chunks there. So those are 400, whatever else is wrong.
    """
    body = asked.environ["wsgi.input"]
    try:
        try:
            # Werkzeug's stream ends with a body of known length; a server's may wait for more.
            (body if "HTTP_TRANSFER_ENCODING" in asked.environ else asked.stream).read(_REST_BYTES)
        except RequestEntityTooLarge:  # nothing of it has been read
            body.read(min(_REST_BYTES, asked.content_length or 0))
    except InvalidRequestError as error:
        return current_app.make_response(current_app.handle_user_exception(error))
    except (OSError, ClientDisconnected):
        logger.debug("the client did not send the rest of its body")
    return response


def _count(metrics: Metrics, asked: ServedRequest, response: Response) -> None:
    rule = asked.url_rule
    # Strangers choose paths and methods; each would be a figure of its own for ever.
    is_known = rule is not None and asked.method in (rule.methods or ())
    metrics.count_request(
        asked.method if is_known else "other",
        "none" if rule is None else rule.rule,
        response.status_code,
        waited=asked.waited,
        seconds=asked.elapsed_ms / 1000,
    )
    if asked.error_code is not None:
        metrics.count("errors", asked.error_code)


def _log(asked: ServedRequest, response: Response) -> None:
    level = logging.ERROR if response.status_code >= 500 else logging.INFO
    is_probe = asked.path.startswith(_PROBES) and response.status_code == 200
    if is_probe or asked.endpoint == "web.static":
        # A probe every few seconds would drown the requests that people made.
        level = logging.DEBUG
    # The digit stays out: a sequence of pictures may be somebody's account number.
    told = fields(
        request_id=asked.request_id,
        method=asked.method,
        path=asked.path,
        status=response.status_code,
        duration_ms=asked.elapsed_ms,
        bytes_in=asked.content_length,
        error=asked.error_code,
        trace_id=asked.trace_id,
        **asked.outcome,
    )
    logger.log(level, "request", extra=told)
