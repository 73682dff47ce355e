"""The OpenAPI 3.1.1 document (spec.openapis.org) of the application's routes and limits.

msgspec makes its JSON Schema 2020-12 from the types in ``bodies``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import msgspec
from flask import Flask

from inkdigits.errors import UndescribedRouteError
from inkdigits.serving.api import bodies
from inkdigits.serving.api.access import OPEN_PATHS
from inkdigits.serving.api.error_handlers import HTTP_CODES, MAX_FORM_PARTS, STATUSES
from inkdigits.serving.api.load_shedding import SPARED_PATHS
from inkdigits.settings import MIB, Settings
from inkdigits.types import Json

Content: TypeAlias = Mapping[str, tuple[Any, ...]]
"""Media type → types, of which the body is one."""

_KEYS: Final[Json] = {
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "The key is the password."},
}


def _json(*types: Any) -> Content:
    return {"application/json": types or (dict[str, Any],)}


_HTML: Final[Content] = {"text/html": (str,)}
_FILE: Final[Content] = {"*/*": (bodies.Binary,)}
_FORM: Final[Content] = {"application/x-www-form-urlencoded": (dict[str, Any],)}
_OCTETS: Final[Content] = {"application/octet-stream": (bodies.Binary,)}
_EXPORT: Final[Content] = {
    "text/csv": (str,),
    "application/vnd.apache.parquet": (bodies.Binary,),
    "application/zip": (bodies.Binary,),
}
_PICTURE: Final[Content] = {
    **_json(bodies.Picture, bodies.Pictures),
    "image/*": (bodies.Binary,),
    **_OCTETS,
    "multipart/form-data": (bodies.Form,),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one route."""

    summary: str
    answers: Mapping[int, Content] = field(default_factory=lambda: {200: _json()})
    codes: str = ""
    """Of the errors that it may answer, between spaces; see ``error_handlers``."""
    query: Any = None
    """A type whose fields are the parameters in the query."""
    body: Content = field(default_factory=dict)


_BODY: Final = "empty_body incomplete_body body_too_large invalid_encoding unsupported_encoding"
_IMAGE: Final = (
    "invalid_base64 invalid_data_url image_too_large unsupported_image not_an_image not_ready "
    "model_unavailable client_gone too_many_pictures"
)
_READING: Final = (
    f"{_BODY} unsupported_media_type invalid_json missing_field wrong_shape invalid_risk {_IMAGE}"
)
_HISTORY: Final = "history_unavailable invalid_query not_found wrong_value wrong_shape"
_CHANGE: Final = f"{_HISTORY} body_too_large"
_CHANGED: Final[Mapping[int, Content]] = {200: _json(), 303: _HTML}
_LABELLED: Final[Mapping[int, Content]] = {200: _json(bodies.Feedback), 303: _HTML}
_INFER: Final = Operation(
    "Run a model on one input tensor, JSON or binary",
    {200: {**_json(bodies.InferenceAnswer), **_OCTETS}},
    f"{_BODY} invalid_tensor unknown_model {_IMAGE}",
    body={**_json(bodies.InferenceRequest), **_OCTETS},
)
_MODEL: Final = Operation("The inputs and outputs of a model", codes="unknown_model")
_UNAVAILABLE: Final = "not_ready model_unavailable"
_MODEL_READY: Final = Operation("Readiness of a model", codes=f"unknown_model {_UNAVAILABLE}")

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("POST", "/predict"): Operation(
        "Read a picture of a handwritten digit, or a batch of them",
        {200: _json(bodies.Prediction, bodies.Predictions)},
        _READING,
        query=bodies.ReadingOptions,
        body=_PICTURE,
    ),
    ("POST", "/predictions/<record_id>/feedback"): Operation(
        "Label a prediction, or remove its label",
        {200: _json(bodies.Feedback)},
        f"{_BODY} unsupported_media_type invalid_json missing_field wrong_shape wrong_value "
        "not_found history_unavailable",
        body=_json(bodies.FeedbackRequest),
    ),
    ("POST", "/read"): Operation(
        "Read a number: one line of digits in a picture, or in each region of a page",
        {200: _json(bodies.Number, bodies.Numbers)},
        f"{_READING} invalid_hint",
        query=bodies.NumberOptions,
        body={**_PICTURE, **_json(bodies.NumberPicture)},
    ),
    ("GET", "/health"): Operation(
        "Health of the service, and its model",
        {200: _json(bodies.Health), 503: _json(bodies.Health)},
        _UNAVAILABLE,
    ),
    ("GET", "/health/live"): Operation("Liveness of the process", {200: _json(bodies.Status)}),
    ("GET", "/health/ready"): Operation(
        "Readiness for requests", {200: _json(bodies.Status)}, _UNAVAILABLE
    ),
    ("GET", "/v2"): Operation("Metadata of the server"),
    ("GET", "/v2/health/live"): Operation("Liveness of the process"),
    ("GET", "/v2/health/ready"): Operation("Readiness for requests", codes=_UNAVAILABLE),
    ("GET", "/v2/models/<name>"): _MODEL,
    ("GET", "/v2/models/<name>/ready"): _MODEL_READY,
    ("POST", "/v2/models/<name>/infer"): _INFER,
    ("GET", "/v2/models/<name>/versions/<model_version>"): _MODEL,
    ("GET", "/v2/models/<name>/versions/<model_version>/ready"): _MODEL_READY,
    ("POST", "/v2/models/<name>/versions/<model_version>/infer"): _INFER,
    ("GET", "/metrics"): Operation(
        "Metrics of all workers for Prometheus", {200: {"text/plain": (str,)}}
    ),
    ("GET", "/api"): Operation("Name, version and the list of endpoints"),
    ("GET", "/api/model"): Operation("The model's metadata", codes="not_found model_unavailable"),
    ("GET", "/openapi.json"): Operation("The HTTP interface as an OpenAPI document"),
    ("GET", "/docs"): Operation("The HTTP interface as a page", {200: _HTML}),
    ("GET", "/docs/style.css"): Operation("The style of that page", {200: {"text/css": (str,)}}),
    ("GET", "/"): Operation(
        "The page for browsers, or the list of endpoints for programs", {200: {**_json(), **_HTML}}
    ),
    ("POST", "/history"): Operation(
        "Read and keep a finished drawing; needs the page's token",
        {200: _json(bodies.Prediction)},
        f"{_READING} invalid_query",
        query=bodies.KeepingOptions,
        body=_PICTURE,
    ),
    ("GET", "/history"): Operation("The page of the history", {200: _HTML}, _HISTORY),
    ("POST", "/history/<record_id>/feedback"): Operation(
        "Label a reading", _LABELLED, f"{_CHANGE} missing_field", body=_FORM
    ),
    ("POST", "/history/<record_id>/delete"): Operation(
        "Delete a reading", _CHANGED, _CHANGE, body=_FORM
    ),
    ("POST", "/history/delete"): Operation(
        "Delete all readings", _CHANGED, f"{_CHANGE} bad_request", body=_FORM
    ),
    ("GET", "/history/export"): Operation(
        "The readings as a file",
        {200: _EXPORT},
        f"{_HISTORY} not_installed",
        query=bodies.ExportOptions,
    ),
    ("GET", "/review"): Operation(
        "The page for reviewing uncertain readings", {200: _HTML, 303: _HTML}, _HISTORY
    ),
    ("GET", "/review/queue"): Operation(
        "The next pictures to label; for the operator and reviewers",
        codes=_HISTORY,
        query=bodies.QueueOptions,
    ),
    ("POST", "/review/<record_id>"): Operation(
        "Label a reading as a reviewer", codes=f"{_CHANGE} missing_field", body=_FORM
    ),
    ("POST", "/review/<record_id>/undo"): Operation(
        "Remove one's own label", codes=_CHANGE, body=_FORM
    ),
    ("GET", "/review/<record_id>/picture"): Operation(
        "The picture of a reading, if it was kept", {200: _FILE}, _HISTORY
    ),
    ("GET", "/dashboard"): Operation(
        "The page of the dashboard", {200: _HTML}, _HISTORY, query=bodies.DashboardOptions
    ),
    ("GET", "/model"): Operation("The page of the model", {200: _HTML}, "model_unavailable"),
    ("GET", "/sign-in"): Operation(
        "The page for signing in", {200: _HTML}, "not_found history_unavailable"
    ),
    ("POST", "/sign-in"): Operation(
        "Sign in; needs the page's token",
        {303: _HTML},
        "not_found too_many_requests body_too_large history_unavailable",
        body=_FORM,
    ),
    ("POST", "/sign-out"): Operation(
        "Sign out; needs the page's token",
        {303: _HTML},
        "body_too_large history_unavailable",
        body=_FORM,
    ),
    ("GET", "/static/<path:filename>"): Operation(
        "The files of the page",
        {200: _FILE, 206: _FILE, 304: _FILE},
        "not_found requested_range_not_satisfiable",
    ),
}
"""(method, Flask's rule) → what it does."""

# First part of a path → tag; all others are "page".
_TAGS: Final = {
    **dict.fromkeys(("predict", "predictions", "read"), "reading"),
    "v2": "inference",
    **dict.fromkeys(("health", "metrics"), "health"),
    **dict.fromkeys(("api", "openapi.json", "docs"), "about"),
}
_PARAMETER: Final = re.compile(r"<(?:\w+:)?(\w+)>")


def document(app: Flask, settings: Settings, version: str) -> Json:
    """Describe an application that has all its routes; UndescribedRouteError if one is new here.

    >>> app = Flask("example", static_folder=None)
    >>> app.post("/predict")(lambda: "")()
    ''
    >>> list(document(app, Settings(), "1.0")["paths"])
    ['/predict']
    """
    paths: Json = {}
    components: Json = {}
    for method, rule in sorted(routes(app), key=lambda route: (route[1], route[0])):
        if (method, rule) not in OPERATIONS:
            raise UndescribedRouteError(f"{method} {rule} is not described")
        path = paths.setdefault(_PARAMETER.sub(r"{\1}", rule), {})
        path[method.lower()] = _operation(OPERATIONS[method, rule], rule, components)
    for body, name in (("Pictures", "images"), ("Predictions", "predictions")):
        components[body]["properties"][name]["maxItems"] = settings.max_batch
    limits = {name: getattr(settings, name) for name in ("max_bytes", "max_pixels", "max_batch")}
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Inkdigits",
            "version": version,
            "summary": "Inkdigits reads handwritten digits and states its confidence",
            "description": (
                f"A request may have up to {_size(settings.max_bytes)} and {settings.max_batch} "
                f"pictures. A picture may have up to {settings.max_pixels:,} pixels, and a form up "
                f"to {MAX_FORM_PARTS} parts."
            ),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "x-limits": {**limits, "max_form_parts": MAX_FORM_PARTS},
        "paths": paths,
        # An empty choice means that no key is needed.
        "security": [{scheme: []} for scheme in _KEYS] if settings.has_keys else [{}],
        "components": {"schemas": components, "securitySchemes": _KEYS},
    }


def _size(n: int) -> str:
    return f"{n / MIB:.4g} MiB" if n >= MIB else f"{n:,} bytes"


def routes(app: Flask) -> Iterator[tuple[str, str]]:
    """Yield method and rule of each route, without the methods that Flask answers by itself.

    >>> list(routes(Flask("example", static_folder=None)))
    []
    """
    for rule in app.url_map.iter_rules():
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            yield method, rule.rule


def _content(content: Content, components: Json) -> Json:
    """Return the media types of a body; its types that have a name are added to the components."""
    found: Json = {}
    for kind, types in content.items():
        made, named = msgspec.json.schema_components(types, ref_template=bodies.REFERENCE)
        components.update(named)
        found[kind] = {"schema": made[0] if len(made) == 1 else {"anyOf": list(made)}}
    return found


def _operation(operation: Operation, rule: str, components: Json) -> Json:
    tag = _TAGS.get(rule.split("/")[1], "page")
    codes = [*operation.codes.split(), "forbidden", "internal_error", "method_not_allowed"]
    if rule not in OPEN_PATHS:
        codes += ["key_required", "too_many_requests"]
    if rule not in SPARED_PATHS:
        codes += ["too_busy", "deadline_exceeded"]
    described: Json = {
        "summary": operation.summary,
        "tags": [tag],
        "responses": _responses(operation, tag, dict.fromkeys(codes), components),
    }
    if rule in OPEN_PATHS:
        described["security"] = [{}]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(rule)
    ]
    if operation.query is not None:
        _, named = msgspec.json.schema_components([operation.query])
        for name, schema in named[operation.query.__name__]["properties"].items():
            parameter = {"name": name, "in": "query", "required": False, "schema": schema}
            parameters.append(parameter | {"description": schema.pop("description")})
    if parameters:
        described["parameters"] = parameters
    if operation.body:
        described["requestBody"] = {
            "required": True,
            "content": _content(operation.body, components),
        }
    return described


def _responses(operation: Operation, tag: str, codes: Iterable[str], components: Json) -> Json:
    statuses = {code: status for status, code in STATUSES.values()} | HTTP_CODES
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(statuses[code], []).append(code)
    responses: Json = {
        str(status): {
            "description": HTTPStatus(status).phrase,
            "content": _content(content, components),
        }
        for status, content in operation.answers.items()
    }
    for status, together in by_status.items():
        error = bodies.InferenceErrorBody if tag == "inference" else bodies.ErrorBody
        content = _content(_json(error), components)
        if tag != "inference":
            body = content["application/json"]
            narrowed = {"error": {"properties": {"code": {"enum": together}}}}
            body["schema"] = {"allOf": [body["schema"], {"properties": narrowed}]}
        if tag == "page":
            content["text/html"] = {"schema": {"type": "string"}}
        response = responses.setdefault(str(status), {"content": {}})
        response["description"] = ", ".join(together)
        response["content"] = content | response["content"]
        if status in (429, 503):
            seconds = {"schema": {"type": "integer", "minimum": 1}, "description": "seconds"}
            response["headers"] = {"Retry-After": seconds}
    return responses
