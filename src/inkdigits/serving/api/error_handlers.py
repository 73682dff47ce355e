"""Which error gets which HTTP status and code, and the answer that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flask import Flask, Response, current_app, jsonify, make_response, render_template, request
from werkzeug.exceptions import (
    ClientDisconnected,
    HTTPException,
    InternalServerError,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
)

from inkdigits import errors
from inkdigits.errors import InkdigitsError
from inkdigits.serving.api import bodies
from inkdigits.serving.api.requests import SEND_LESS, current

MAX_FORM_PARTS: Final = 16
"""Parts that a form may have."""

STATUSES: Final[Mapping[type[InkdigitsError], tuple[int, str]]] = {
    # A defect here, or an error that no request can cause: the log has it, the client does not.
    InkdigitsError: (500, "internal_error"),
    errors.HintError: (422, "invalid_hint"),
    errors.ImageError: (400, "not_an_image"),
    errors.InvalidBase64Error: (400, "invalid_base64"),
    errors.InvalidDataUrlError: (400, "invalid_data_url"),
    errors.UnsupportedImageError: (415, "unsupported_image"),
    errors.ImageTooLargeError: (413, "image_too_large"),
    errors.InvalidRequestError: (400, "bad_request"),
    errors.EmptyBodyError: (400, "empty_body"),
    errors.IncompleteBodyError: (400, "incomplete_body"),
    errors.BodyTooLargeError: (413, "body_too_large"),
    errors.BodyEncodingError: (400, "invalid_encoding"),
    errors.UnsupportedEncodingError: (415, "unsupported_encoding"),
    errors.UnsupportedMediaTypeError: (415, "unsupported_media_type"),
    errors.InvalidJsonError: (400, "invalid_json"),
    errors.MissingFieldError: (400, "missing_field"),
    errors.WrongShapeError: (422, "wrong_shape"),
    errors.InvalidRiskError: (422, "invalid_risk"),
    errors.InvalidTensorError: (400, "invalid_tensor"),
    errors.TooManyPicturesError: (413, "too_many_pictures"),
    errors.NotReadyError: (503, "not_ready"),
    errors.OverloadedError: (429, "too_busy"),
    errors.DeadlineExceededError: (503, "deadline_exceeded"),
    # nginx's status. Nobody gets this answer, but the log and the metrics have it.
    errors.ClientDisconnectedError: (499, "client_gone"),
    errors.UnknownHostError: (403, "forbidden"),
    errors.ForeignOriginError: (403, "forbidden"),
    errors.KeyRequiredError: (401, "key_required"),
    errors.TooManyRequestsError: (429, "too_many_requests"),
    errors.UnknownModelError: (404, "unknown_model"),
    errors.ClientError: (503, "model_unavailable"),
    errors.BackendUnavailableError: (501, "not_installed"),
    errors.StoreError: (503, "history_unavailable"),
    errors.RecordError: (422, "wrong_value"),
    errors.QueryError: (400, "invalid_query"),
    errors.RecordNotFoundError: (404, "not_found"),
}
"""Error → status and code. An error that is not here has those of its nearest base."""

HTTP_CODES: Final = {
    "bad_request": 400,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "requested_range_not_satisfiable": 416,
    "internal_error": 500,
}
"""Codes of the errors that Flask finds, and of ours that no exception stands for."""

_WHERE: Final = "/docs describes all addresses."


def install(app: Flask) -> None:
    """Let the application answer errors as the table says.

    >>> install(Flask("example"))
    """
    app.register_error_handler(InkdigitsError, _answer_error)
    app.register_error_handler(HTTPException, _answer_http_error)


def wants_html() -> bool:
    """Return whether the client prefers a page to JSON, as browsers do.

    >>> with Flask("example").test_request_context(headers={"Accept": "text/html"}):
    ...     wants_html()
    True
    """
    accepted = request.accept_mimetypes
    return accepted.best_match(["application/json", "text/html"]) == "text/html"


def status_and_code(error: InkdigitsError) -> tuple[int, str]:
    """Return the HTTP status and the code of an error.

    >>> status_and_code(errors.ImageTooLargeError("PNG is 48 MP; the limit is 25 MP"))
    (413, 'image_too_large')
    """
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def error_body(code: str, message: str) -> bodies.ErrorBody:
    """Return the JSON of an error.

    >>> error_body("empty_body", "The request has no body.")["error"]["code"]
    'empty_body'
    """
    return {"error": {"code": code, "message": message}}


def error_response(status: int, code: str, message: str) -> Response:
    """Return an error's answer: a page for browsers if there are pages, otherwise JSON.

    >>> with Flask("example").test_request_context("/predict"):
    ...     error_response(404, "not_found", "There is no such picture.").status_code
    404
    """
    asked = current()
    asked.error_code = code
    first = asked.path.partition("/")[2].partition("/")[0]
    is_api = first in {"predict", "read", "predictions", "api", "health", "metrics", "v2"}
    if "web" in current_app.blueprints and not is_api and wants_html():
        return make_response(render_template("error.html", status=status, message=message), status)
    # The Open Inference Protocol has one string.
    response = jsonify({"error": message} if first == "v2" else error_body(code, message))
    response.status_code = status
    return response


def _example() -> str:
    """Return how to send a picture, on the routes that read one."""
    if request.path not in ("/predict", "/read"):
        return ""
    return f" Send a picture, for example: curl -F image=@seven.png {request.base_url}"


def _answer_error(error: InkdigitsError) -> Response:
    status, code = status_and_code(error)
    if status == 500:
        raise error
    unclear = (errors.EmptyBodyError, errors.MissingFieldError, errors.UnsupportedMediaTypeError)
    more = _example() if isinstance(error, unclear) else ""
    response = error_response(status, code, str(error) + more)
    if isinstance(error, errors.TooManyRequestsError):
        response.headers["Retry-After"] = str(error.retry_after)
    elif status in (429, 503):
        response.headers["Retry-After"] = "1"
    elif status == 401:
        # A browser asks its user for the password of Basic; a program has no user to ask.
        scheme = 'Basic realm="inkdigits", charset="UTF-8"' if wants_html() else "Bearer"
        response.headers["WWW-Authenticate"] = scheme
    return response


def _answer_http_error(error: HTTPException) -> Response:
    asked = current()
    code = error.name.lower().replace(" ", "_")
    message = error.description or error.name
    if isinstance(error, RequestEntityTooLarge):
        code = "body_too_large"
        message = (
            f"The request has more than {asked.max_content_length:,} bytes, or its form has more "
            f"than {MAX_FORM_PARTS} parts. {SEND_LESS}"
        )
    elif isinstance(error, ClientDisconnected) and asked.content_length:
        # Without a length it may be malformed chunks too.
        code, message = "incomplete_body", "The body did not arrive in time. Send it again."
    elif isinstance(error, MethodNotAllowed):
        allowed = " and ".join(sorted({*(error.valid_methods or ())} - {"HEAD", "OPTIONS"}))
        message = f"{asked.path} supports {allowed}. {_WHERE}{_example()}"
    elif isinstance(error, NotFound):
        message = f"There is nothing at this address. {_WHERE}"
    elif isinstance(error, InternalServerError):
        code = "internal_error"
        message = f"The service failed. Its log has the reason for request id {asked.request_id}."
    response = error_response(error.code or 500, code, message)
    for name, value in error.get_headers():
        # Allow of a 405 and its like are kept; the type of the body is ours.
        if name.lower() != "content-type":
            response.headers[name] = value
    return response
