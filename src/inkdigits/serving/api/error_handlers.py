"""Which error gets which HTTP status and code, and the answer that says so; ``app`` installs it."""

from __future__ import annotations

from typing import Final

from flask import Flask, Response, current_app, g, jsonify, make_response, render_template, request
from werkzeug.exceptions import HTTPException, InternalServerError, RequestEntityTooLarge

from inkdigits.errors import (
    BackendUnavailableError,
    BodyEncodingError,
    BodyTooLargeError,
    ClientDisconnectedError,
    DeadlineExceededError,
    DecompressedTooLargeError,
    EmptyBodyError,
    ImageError,
    ImageTooLargeError,
    IncompleteBodyError,
    InkdigitsError,
    InvalidBase64Error,
    InvalidDataUrlError,
    InvalidJsonError,
    InvalidRiskError,
    InvalidTensorError,
    KeyRequiredError,
    MissingFieldError,
    ModelUnavailableError,
    NotReadyError,
    OverloadedError,
    QueryError,
    RecordError,
    RecordNotFoundError,
    StoreUnavailableError,
    TooManyPicturesError,
    TooManyRequestsError,
    UnknownModelError,
    UnsupportedEncodingError,
    UnsupportedImageError,
    UnsupportedMediaTypeError,
    WrongShapeError,
)
from inkdigits.serving.api.responses import error_body

MAX_FORM_PARTS: Final = 16
"""Parts that a form may have."""

ANSWERS: Final[tuple[tuple[type[InkdigitsError], int, str], ...]] = (
    (KeyRequiredError, 401, "key_required"),
    (TooManyRequestsError, 429, "too_many_requests"),
    (OverloadedError, 429, "too_busy"),
    (DeadlineExceededError, 503, "deadline_exceeded"),
    # nginx's status for it; nobody gets the answer, but the log and the figures have it.
    (ClientDisconnectedError, 499, "client_gone"),
    (NotReadyError, 503, "not_ready"),
    (ModelUnavailableError, 503, "model_unavailable"),
    (StoreUnavailableError, 503, "history_unavailable"),
    (RecordNotFoundError, 404, "not_found"),
    (UnknownModelError, 404, "unknown_model"),
    (InvalidTensorError, 400, "invalid_tensor"),
    (BodyEncodingError, 400, "invalid_encoding"),
    (DecompressedTooLargeError, 413, "body_too_large"),
    (UnsupportedEncodingError, 415, "unsupported_encoding"),
    (QueryError, 400, "invalid_query"),
    (RecordError, 422, "wrong_value"),
    (BackendUnavailableError, 501, "not_installed"),
    (EmptyBodyError, 400, "empty_body"),
    (IncompleteBodyError, 400, "incomplete_body"),
    (BodyTooLargeError, 413, "body_too_large"),
    (UnsupportedMediaTypeError, 415, "unsupported_media_type"),
    (InvalidJsonError, 400, "invalid_json"),
    (MissingFieldError, 400, "missing_field"),
    (WrongShapeError, 422, "wrong_shape"),
    (InvalidRiskError, 422, "invalid_risk"),
    (TooManyPicturesError, 413, "too_many_pictures"),
    (InvalidBase64Error, 400, "invalid_base64"),
    (InvalidDataUrlError, 400, "invalid_data_url"),
    (ImageTooLargeError, 413, "image_too_large"),
    (UnsupportedImageError, 415, "unsupported_image"),
    (ImageError, 400, "not_an_image"),
)
"""Error → status and code; the first class that fits, so a subclass comes before its base."""

HTTP_CODES: Final = {
    "bad_request": 400,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "requested_range_not_satisfiable": 416,
    "internal_error": 500,
}
"""Codes of the errors that Flask finds by itself, and of ours that no exception stands for."""


def install(app: Flask) -> None:
    """Answer the application's errors; see the table."""
    app.register_error_handler(InkdigitsError, _answer_error)
    app.register_error_handler(HTTPException, _answer_http_error)


def wants_html() -> bool:
    """Whether the client prefers a page to JSON, as browsers do."""
    accepted = request.accept_mimetypes
    return accepted.best_match(["application/json", "text/html"]) == "text/html"


def answer_to(error: InkdigitsError) -> tuple[int, str]:
    """Status and code of an error.

    Raises:
        InkdigitsError: the error itself, where it isn't the client's doing: it then goes the way
            of any unhandled exception.
    """
    for kind, status, code in ANSWERS:
        if isinstance(error, kind):
            return status, code
    raise error


def refuse(status: int, code: str, message: str) -> Response:
    """An error's answer: a page for browsers where there are pages, else JSON."""
    g.error_code = code
    is_api = request.path.startswith(("/predict", "/api", "/health", "/metrics", "/v2"))
    if "web" in current_app.blueprints and not is_api and wants_html():
        return make_response(render_template("error.html", status=status, message=message), status)
    if request.path.partition("/")[2].partition("/")[0] == "v2":
        # As the Open Inference Protocol has it.
        response = jsonify({"error": message})
    else:
        response = jsonify(error_body(code, message))
    response.status_code = status
    return response


def _answer_error(error: InkdigitsError) -> Response:
    status, code = answer_to(error)
    response = refuse(status, code, str(error))
    if status == 503 or isinstance(error, OverloadedError):
        response.headers["Retry-After"] = "1"
    elif isinstance(error, TooManyRequestsError):
        response.headers["Retry-After"] = str(error.retry_after)
    elif status == 401:
        # A browser asks its user for Basic's password; a program has no user to ask.
        scheme = 'Basic realm="inkdigits", charset="UTF-8"' if wants_html() else "Bearer"
        response.headers["WWW-Authenticate"] = scheme
    return response


def _answer_http_error(error: HTTPException) -> Response:
    code = error.name.lower().replace(" ", "_")
    message = error.description or error.name
    if isinstance(error, RequestEntityTooLarge):
        code = "body_too_large"
        message = (
            f"The request is over the limit of {request.max_content_length} bytes, "
            f"or its form over that of {MAX_FORM_PARTS} parts."
        )
    elif isinstance(error, InternalServerError):
        code = "internal_error"
        message = f"Something went wrong here; the log has it under request id {g.request_id}."
    response = refuse(error.code or 500, code, message)
    for name, value in error.get_headers():
        # Allow of a 405 and its like are kept; the type of the body is ours.
        if name.lower() != "content-type":
            response.headers[name] = value
    return response
