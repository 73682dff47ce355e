"""From what a client sends to the bytes of its pictures, within limits; knows no statuses.

InvalidRequestError             the request doesn't carry pictures as docs/api.md says
├── EmptyBodyError           there is no body
├── IncompleteBodyError      the body ends before its announced length
├── BodyTooLargeError        the body is over the limit in bytes
├── UnsupportedMediaTypeError     a Content-Type that isn't taken
├── InvalidJsonError         the body isn't JSON
├── MissingFieldError        the picture's field isn't there
├── WrongShapeError          JSON or a form of another shape
├── InvalidRiskError         a risk that can't be
└── TooManyPicturesError     more pictures than one request may carry
UnreadableImageError
├── InvalidBase64Error       the text isn't base64
└── InvalidDataUrlError      a data URL, but not of a base64 picture
"""

from __future__ import annotations

import binascii
import io
import re
from dataclasses import dataclass, replace
from typing import IO, Any

import orjson
import pybase64
from flask import Request

from inkdigits.errors import (
    BodyTooLargeError,
    EmptyBodyError,
    IncompleteBodyError,
    InvalidBase64Error,
    InvalidDataUrlError,
    InvalidJsonError,
    InvalidRiskError,
    MissingFieldError,
    TooManyPicturesError,
    UnreadableImageError,
    UnsupportedMediaTypeError,
    WrongShapeError,
)

# RFC 2397: data:[<mediatype>][;<attribute>=<value>]*[;base64],<data>
_DATA_URL_HEAD = re.compile(r"data:(?P<type>[^;,]*)(?P<parameters>(?:;[^;,]*)*)", re.IGNORECASE)
_RISK_LIMITS = 'The "risk" must be a number above 0 and below 1, such as 0.01.'
_URL_SAFE = str.maketrans("-_", "+/")


class InMemoryRequest(Request):
    """A request whose uploads stay in memory; Werkzeug puts larger ones in temporary files."""

    def _get_file_stream(self, *_args: object, **_kwargs: object) -> IO[bytes]:
        return io.BytesIO()


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for.

    Attributes:
        pictures: one encoded picture, not empty; or a batch's texts, at least one, to be decoded
            with ``decode_picture``.
        risk: tolerated share of wrong readings among the accepted, between 0 and 1; None where
            none is stated.
        explain: whether to say what the reading of one picture rests on.
    """

    pictures: bytes | list[str]
    risk: float | None = None
    explain: bool = False


def requested(request: Request, max_batch: int) -> Wish:
    """Take the pictures out of a request, and what it wants of them.

    Args:
        request: JSON, multipart/form-data, or a picture as its whole body. ``risk`` and
            ``explain`` are in the query, or in the JSON, which goes first.
        max_batch: most pictures in one request.

    Raises:
        InvalidRequestError: one of its subclasses, which the module's docstring lists.
        UnreadableImageError: the one picture is empty, or isn't base64.
    """
    kind = request.mimetype
    wish = Wish(b"", _risk_of_query(request), flag(request, "explain", default=False))
    if kind == "multipart/form-data":
        return replace(wish, pictures=_picture_of_form(request))
    if kind.startswith("image/") or kind == "application/octet-stream":
        return replace(wish, pictures=body(request))
    if kind == "application/json" or kind.endswith("+json"):
        return _wish_of_json(body(request), max_batch, wish)
    # One byte is enough to tell an empty request from one of the wrong type.
    if not request.stream.read(1):
        raise EmptyBodyError("The request has no body.")
    raise UnsupportedMediaTypeError(
        f"Content-Type {kind or '(none)'} isn't taken; send application/json, image/* or "
        "multipart/form-data."
    )


def flag(request: Request, name: str, *, default: bool) -> bool:
    """Take a yes or no from a request's query.

    Args:
        request: with ``?name=true`` or ``?name=false``, or without.
        name: of the parameter.
        default: if it isn't there.

    Raises:
        WrongShapeError: it is anything else.
    """
    value = request.args.get(name)
    if value is None:
        return default
    if value not in {"true", "false"}:
        raise WrongShapeError(f'"{name}" in the query must be true or false.')
    return value == "true"


def body(request: Request) -> bytes:
    """The request's whole body.

    Raises:
        EmptyBodyError: there is none.
        IncompleteBodyError: it ends before its announced length.
        BodyTooLargeError: it is over the limit.
    """
    content: bytes = request.get_data(cache=False)
    announced, limit = request.content_length, request.max_content_length
    if announced is not None and len(content) < announced:
        raise IncompleteBodyError(f"{announced} bytes were announced and {len(content)} came.")
    # Werkzeug cuts a body of unknown length off at the limit, and doesn't say so.
    if announced is None and limit is not None and len(content) >= limit:
        raise BodyTooLargeError(f"The body is over the limit of {limit} bytes.")
    if not content:
        raise EmptyBodyError("The request has no body.")
    return content


def _picture_of_form(request: Request) -> bytes:
    uploads = request.files.getlist("image")
    if not uploads:
        raise MissingFieldError('The form has no file in its field "image".')
    if len(uploads) > 1:
        raise WrongShapeError('A form carries one "image"; send several as JSON "images".')
    picture: bytes = uploads[0].read()
    if not picture:
        raise UnreadableImageError("The picture is empty.")
    return picture


def _risk_of_query(request: Request) -> float | None:
    text = request.args.get("risk")
    if text is None:
        return None
    try:
        return _checked_risk(float(text))
    except ValueError:
        raise InvalidRiskError(_RISK_LIMITS) from None


def _checked_risk(risk: float) -> float:
    if not 0 < risk < 1:
        raise InvalidRiskError(_RISK_LIMITS)
    return risk


def _wish_of_json(body: bytes, max_batch: int, default: Wish) -> Wish:
    try:
        document = orjson.loads(body)
    except ValueError:
        raise InvalidJsonError("The body is not valid JSON.") from None
    if not isinstance(document, dict):
        raise WrongShapeError("The JSON must be an object.")
    if "image" not in document and "images" not in document:
        raise MissingFieldError('The JSON has neither "image" nor "images".')
    if "image" in document and "images" in document:
        raise WrongShapeError('The JSON must have "image" or "images", not both.')
    risk, explain = document.get("risk", default.risk), document.get("explain", default.explain)
    if "risk" in document:
        if isinstance(risk, bool) or not isinstance(risk, int | float):
            raise InvalidRiskError(_RISK_LIMITS)
        risk = _checked_risk(risk)
    if not isinstance(explain, bool):
        raise WrongShapeError('"explain" must be true or false.')
    if explain and "images" in document:
        raise WrongShapeError('"explain" is for one "image", not for "images".')
    return Wish(_pictures_of_json(document, max_batch), risk, explain)


def _pictures_of_json(document: dict[str, Any], max_batch: int) -> bytes | list[str]:
    if "image" in document:
        if not isinstance(document["image"], str):
            raise WrongShapeError('"image" must be a base64 string or a data URL.')
        return decode_picture(document["image"])
    texts = document["images"]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise WrongShapeError('"images" must be a list of base64 strings or data URLs, not empty.')
    if len(texts) > max_batch:
        raise TooManyPicturesError(
            f"The request carries {len(texts)} pictures; the limit is {max_batch}."
        )
    return texts


def decode_base64(text: str) -> bytes:
    """Decode base64 strictly (RFC 4648 sections 4 and 5).

    White space and missing padding are taken, and either alphabet; any other character is an
    error, where Python's default would skip it and decode something else.

    Args:
        text: the base64 text.

    Returns:
        The decoded bytes, at least one.

    Raises:
        InvalidBase64Error: it isn't base64.
        UnreadableImageError: it is empty.
    """
    try:
        decoded = _decoded(text)
    except ValueError as error:
        raise InvalidBase64Error(f"The picture is not valid base64: {error}.") from None
    if not decoded:
        raise UnreadableImageError("The picture is empty.")
    return decoded


def _decoded(text: str) -> bytes:
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        # Tidied only where it must be: nearly all that comes is as it should be.
        compact = "".join(text.split()).translate(_URL_SAFE)
        return binascii.a2b_base64(compact + "=" * (-len(compact) % 4), strict_mode=True)


def decode_picture(text: str) -> bytes:
    """Decode a picture from base64 text or from a ``data:`` URL (RFC 2397).

    Args:
        text: base64, or ``data:image/…;base64,…``.

    Returns:
        The encoded picture's bytes, at least one; not yet known to be a picture.

    Raises:
        InvalidDataUrlError: a data URL without ``;base64``, without a comma, or whose media type
            isn't ``image/*``.
        InvalidBase64Error: it isn't base64.
        UnreadableImageError: it is empty.
    """
    text = text.strip()
    if text[:5].lower() != "data:":
        return decode_base64(text)
    head, comma, data = text.partition(",")
    match = _DATA_URL_HEAD.fullmatch(head)
    if match is None or not comma:
        raise InvalidDataUrlError("The data URL has no comma between its type and its data.")
    if not match["type"].strip().lower().startswith("image/"):
        raise InvalidDataUrlError("The data URL's media type is not image/*.")
    if match["parameters"].rpartition(";")[2].strip().lower() != "base64":
        raise InvalidDataUrlError("The data URL is not ;base64.")
    return decode_base64(data)
