"""The OpenAPI 3.1 document, made from the code.

Routes are the application's, limits the settings', errors those of ``refusals``; what no code says,
such as a route's purpose, is in ``operations``. It follows the OpenAPI Specification
3.1.1 (spec.openapis.org) and JSON Schema 2020-12.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from flask import Flask

from inkdigits.errors import UndescribedRouteError
from inkdigits.serving.api.access import OPEN_PATHS
from inkdigits.serving.api.error_handlers import HTTP_CODES, MAX_FORM_PARTS, STATUSES
from inkdigits.serving.api.load_shedding import SPARED_PATHS
from inkdigits.serving.api.openapi_operations import OPERATIONS, Operation
from inkdigits.serving.api.openapi_schemas import schemas
from inkdigits.settings import Settings
from inkdigits.types import Json

_AUTOMATIC: Final = frozenset({"HEAD", "OPTIONS"})
# What any route may answer.
_EVERYWHERE: Final = ("internal_error", "method_not_allowed")
_ACCESS: Final = ("key_required", "too_many_requests")
_PRESSURE: Final = ("too_busy", "deadline_exceeded")
_KEYS: Final[Json] = {
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "The key is the password."},
}


def document(app: Flask, settings: Settings, version: str) -> Json:
    """Describe the application.

    Args:
        app: with all its routes.
        settings: whose limits are stated.
        version: of the package.

    Returns:
        The document, ready for ``json.dumps``.

    Raises:
        UndescribedRouteError: see there.
    """
    paths: Json = {}
    for method, rule in sorted(routes(app), key=lambda route: (route[1], route[0])):
        operation = OPERATIONS.get((method, rule))
        if operation is None:
            raise UndescribedRouteError(f"{method} {rule} is not described")
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)
        paths.setdefault(path, {})[method.lower()] = _operation(operation, rule, settings)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Inkdigits",
            "version": version,
            "summary": "Reads handwritten digits and says how sure it is",
            "description": (
                f"A request carries at most {settings.max_bytes} bytes and {settings.max_batch} "
                f"pictures; a picture has at most {settings.max_pixels} pixels, a form at most "
                f"{MAX_FORM_PARTS} parts."
            ),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        # Relative to the document's own address, so it holds behind a proxy too.
        "servers": [{"url": "/"}],
        "x-limits": {
            "max_bytes": settings.max_bytes,
            "max_pixels": settings.max_pixels,
            "max_batch": settings.max_batch,
            "max_form_parts": MAX_FORM_PARTS,
        },
        "paths": paths,
        # An empty choice means that no key is needed.
        "security": [{scheme: []} for scheme in _KEYS] if settings.has_keys else [{}],
        "components": {"schemas": schemas(settings), "securitySchemes": _KEYS},
    }


def routes(app: Flask) -> Iterator[tuple[str, str]]:
    """Method and rule of each route, without the methods that Flask answers by itself."""
    for rule in app.url_map.iter_rules():
        for method in (rule.methods or set()) - _AUTOMATIC:
            yield method, rule.rule


def status_of(code: str) -> int:
    """The HTTP status of an error code.

    Raises:
        KeyError: there is no such code.
    """
    statuses = {known: status for status, known in STATUSES.values()}
    return (statuses | HTTP_CODES)[code]


def _operation(operation: Operation, rule: str, settings: Settings) -> Json:
    answers: Json = {
        str(status): _answer(what, settings) for status, what in operation.answers.items()
    }
    access = () if rule in OPEN_PATHS else _ACCESS
    pressure = () if rule in SPARED_PATHS else _PRESSURE
    for status, codes in _by_status((*operation.codes, *access, *pressure, *_EVERYWHERE)).items():
        refusal = _refusal(operation, codes)
        if str(status) in answers:
            # A page that says what went wrong, or a health check that says more than an error.
            answers[str(status)]["description"] += " " + refusal["description"]
            answers[str(status)]["content"] |= {
                kind: body
                for kind, body in refusal["content"].items()
                if kind not in answers[str(status)]["content"]
            }
        else:
            answers[str(status)] = refusal
        if status in (429, 503):
            answers[str(status)].setdefault("headers", {})["Retry-After"] = {
                "schema": {"type": "integer", "minimum": 1},
                "description": "seconds",
            }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"<(?:\w+:)?(\w+)>", rule)
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": meaning}
        for name, (schema, meaning) in operation.query.items()
    ]
    described: Json = {
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": answers,
    }
    if not access:
        described["security"] = [{}]
    if parameters:
        described["parameters"] = parameters
    if operation.body:
        described["requestBody"] = {
            "required": True,
            "description": f"At most {settings.max_bytes} bytes.",
            "content": {kind: {"schema": schema} for kind, schema in operation.body.items()},
        }
    return described


def _answer(what: tuple[str, Json], settings: Settings) -> Json:
    description, content = what
    return {
        "description": description.format(max_batch=settings.max_batch),
        "content": {kind: {"schema": schema} for kind, schema in content.items()},
    }


def _by_status(codes: Iterable[str]) -> dict[int, list[str]]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(status_of(code), []).append(code)
    return by_status


def _refusal(operation: Operation, codes: list[str]) -> Json:
    schema: Json = {"$ref": "#/components/schemas/Error"}
    if not operation.has_plain_errors:
        code: Json = {"properties": {"code": {"enum": codes}}}
        schema = {"allOf": [schema, {"properties": {"error": code}}]}
    else:
        schema = {"$ref": "#/components/schemas/InferenceError"}
    content: Json = {"application/json": {"schema": schema}}
    if operation.tag == "page":
        content["text/html"] = {"schema": {"type": "string"}}
    return {"description": ", ".join(codes), "content": content}
