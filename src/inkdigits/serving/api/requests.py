"""From what a client sends to the bytes of its pictures, within limits; knows no statuses."""

from __future__ import annotations

import binascii
import io
import math
import re
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final

import orjson
import pybase64
from flask import Request, request

from inkdigits import errors

# RFC 2397: data:[<mediatype>][;<attribute>=<value>]*[;base64],<data>
SEND_LESS: Final = "Send a smaller picture, send several requests, or raise INKDIGITS_MAX_BYTES."
_DATA_URL_HEAD = re.compile(r"data:(?P<type>[^;,]*)(?P<parameters>(?:;[^;,]*)*)", re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/")
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
# Bytes of a body that are read at once, so that its announced length alone takes no memory.
_STEP: Final = 1 << 20


class ServedRequest(Request):
    """A request, and what is known of it; here rather than in ``g``, which is slower."""

    request_id = ""
    began = 0.0
    """When it began to be served, by ``time.perf_counter``."""
    waited = 0.0
    """Seconds that it waited for a thread and a slot."""
    has_arrived = False
    """Whether its pictures are here."""
    key_name: str | None = None
    """The name of the API key that it brings."""
    error_code: str | None = None
    trace_id: str | None = None
    outcome: Mapping[str, Any] = {}
    """What was read and by which model, for the log and the trace."""

    @property
    def owner(self) -> str | None:
        """What owns the predictions that it makes; None without an API key."""
        return None if self.key_name is None else f"key:{self.key_name}"

    @property
    def elapsed_ms(self) -> float:
        """The milliseconds since it began, to the microsecond."""
        return round((time.perf_counter() - self.began) * 1000, 3)

    def _get_file_stream(self, *_args: object, **_kwargs: object) -> IO[bytes]:
        # Werkzeug puts larger uploads in temporary files.
        return io.BytesIO()


def current() -> ServedRequest:
    """Return the request itself: through Flask's stand-in each use of it costs a lookup.

    >>> from flask import Flask
    >>> with Flask("example").test_request_context("/predict"):
    ...     current().path
    '/predict'
    """
    asked: ServedRequest = request._get_current_object()  # type: ignore[attr-defined]
    return asked


@dataclass(frozen=True, slots=True)
class Wish:
    """What every request for a reading brings and asks for."""

    content: bytes | dict[str, Any]
    """One encoded picture, or the object of the JSON."""
    risk: float | None = None
    with_ink: bool = False
    is_recorded: bool = True


def parse_wish(request: Request) -> Wish:
    """Return what a request for a reading brings, of one picture or more.

    >>> environ = {"wsgi.input": io.BytesIO(b"P5..."), "CONTENT_LENGTH": "5",
    ...            "CONTENT_TYPE": "image/png", "QUERY_STRING": "risk=0.01"}
    >>> parse_wish(Request(environ))
    Wish(content=b'P5...', risk=0.01, with_ink=False, is_recorded=True)

    A request is JSON, multipart/form-data, or a picture as its whole body. ``risk`` is in the
    query or in the JSON, which has precedence.

    Raises:
        InvalidRequestError: the request is not as docs/api.md says.
    """
    with_ink = flag(request, "ink", default=False)
    is_recorded = flag(request, "record", default=True)
    risk = None
    if "risk" in request.args:
        # What is no number is beyond the limits too.
        risk = _checked_risk(request.args.get("risk", math.nan, float))
    content = _picture_or_json(request)
    if isinstance(content, dict) and "risk" in content:
        risk = _checked_risk(content["risk"])
    return Wish(content, risk, with_ink, is_recorded)


def parse_pictures(request: Request, wish: Wish, max_batch: int) -> tuple[bytes | list[str], bool]:
    """Return the picture of a request, or the texts of a batch, and whether it is explained.

    >>> parse_pictures(Request({}), Wish({"image": "R0lG"}), max_batch=64)
    (b'GIF', False)

    Raises:
        InvalidRequestError: the request is not as docs/api.md says.
        UnreadableImageError: the one picture is empty or not base64.
    """
    explain, document = flag(request, "explain", default=False), wish.content
    if isinstance(document, bytes):
        return document, explain
    if not document.keys() & {"image", "images"}:
        raise errors.MissingFieldError('The JSON has neither "image" nor "images".')
    if document.keys() >= {"image", "images"}:
        raise errors.WrongShapeError('The JSON must have "image" or "images", not both.')
    require_known(document, ("image", "images", "risk", "explain"), "JSON")
    explain = document.get("explain", explain)
    if not isinstance(explain, bool):
        raise errors.WrongShapeError('"explain" must be true or false.')
    if explain and "images" in document:
        raise errors.WrongShapeError('"explain" is for one "image", not for "images".')
    return _pictures_of_json(document, max_batch), explain


def _picture_or_json(request: Request) -> bytes | dict[str, Any]:
    kind = request.mimetype
    if kind == "application/json" or kind.endswith("+json"):
        return _json_object(read_body(request))
    if kind.startswith("image/") or kind == "application/octet-stream":
        return read_body(request)
    if kind == "multipart/form-data":
        return _picture_of_form(request)
    # One byte is enough to tell an empty request from one of an unsupported type.
    if not request.stream.read(1):
        raise errors.EmptyBodyError("The request has no body.")
    raise errors.UnsupportedMediaTypeError(
        f"Content-Type {kind or '(none)'} is unsupported; send application/json, image/* or "
        "multipart/form-data."
    )


def require_known(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise WrongShapeError if a name of a query, a JSON object or a form is unknown.

    An option that is misspelt would otherwise be ignored, and the answer would be another.

    >>> require_known(["risk"], ["risk", "record"], "query")
    """
    known = list(known)
    if unknown := sorted(set(given).difference(known)):
        more = " Send options in the query." if where == "form" else ""
        said = f'"{unknown[0][:64]}" in the {where} is unknown; known names are {", ".join(known)}.'
        raise errors.WrongShapeError(said + more)


def flag(request: Request, name: str, *, default: bool) -> bool:
    """Return a yes or no from a request's query, or the default; WrongShapeError for others.

    >>> flag(Request({"QUERY_STRING": "ink=true"}), "ink", default=False)
    True
    """
    if name not in request.args:
        return default
    value = request.args[name]
    if value not in {"true", "false"}:
        raise errors.WrongShapeError(f'"{name}" in the query must be true or false.')
    return value == "true"


def read_body(request: Request) -> bytes:
    """Return the whole body of a request, decompressed.

    >>> read_body(Request({"wsgi.input": io.BytesIO(b"{}"), "CONTENT_LENGTH": "2"}))
    b'{}'

    Raises:
        InvalidRequestError: it is empty, incomplete or over the limit, as sent or decompressed;
            or its Content-Encoding is not gzip, deflate or identity.
    """
    announced = request.content_length
    content = request.get_data(cache=False) if announced is None else _read(request, announced)
    if announced is None:
        # Werkzeug cuts a body of unknown length off at the limit, and does not say so.
        limit = request.max_content_length
        if limit is not None and len(content) >= limit:
            raise errors.BodyTooLargeError(_over(limit, "The body"))
    elif len(content) < announced:
        raise errors.IncompleteBodyError(f"The body has {len(content)} of {announced} bytes.")
    if not content:
        raise errors.EmptyBodyError("The request has no body.")
    encoding = request.environ.get("HTTP_CONTENT_ENCODING")
    if encoding is None:
        return content
    return _decompress(content, encoding, request.max_content_length)


def _read(request: Request, announced: int) -> bytes:
    """Return a body of a known length, or what has come of it."""
    content: bytes = request.stream.read(min(announced, _STEP))
    while len(content) < announced:
        part = request.stream.read(min(announced - len(content), _STEP))
        if not part:
            break
        content += part
    return content


def _decompress(body: bytes, encoding: str, limit: int | None) -> bytes:
    """Undo a Content-Encoding; at most one byte more than the limit is made."""
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return body
    if encoding not in {"gzip", "deflate"}:
        raise errors.UnsupportedEncodingError(
            f"Content-Encoding {encoding!r} is unsupported; send gzip, deflate or identity."
        )
    decompressor = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        plain = decompressor.decompress(body, 0 if limit is None else limit + 1)
    except zlib.error as error:
        raise errors.BodyEncodingError(f"The body is not {encoding}: {error}.") from None
    if limit is not None and len(plain) > limit:
        raise errors.DecompressedTooLargeError(_over(limit, "The decompressed body"))
    if not decompressor.eof or decompressor.unused_data:
        raise errors.BodyEncodingError(f"The {encoding} body is truncated or has trailing data.")
    if not plain:
        raise errors.EmptyBodyError("The decompressed body is empty.")
    return plain


def _picture_of_form(request: Request) -> bytes:
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise errors.UnsupportedEncodingError("Send a form without Content-Encoding.")
    uploads = request.files.getlist("image")
    if not uploads:
        is_text = "image" in request.form
        has = 'no file in the field "image", but text' if is_text else 'no field "image"'
        raise errors.MissingFieldError(f"The form has {has}.")
    require_known({**request.files, **request.form}, ["image"], "form")
    if len(uploads) > 1:
        raise errors.WrongShapeError('A form may have one "image". Send several as JSON "images".')
    picture: bytes = uploads[0].read()
    if not picture:
        raise errors.UnreadableImageError("The picture is empty.")
    return picture


def _over(limit: int, what: str) -> str:
    return f"{what} has more than {limit:,} bytes. {SEND_LESS}"


def _checked_risk(risk: object) -> float:
    if isinstance(risk, bool) or not isinstance(risk, int | float) or not 0 < risk < 1:
        raise errors.InvalidRiskError(
            'The "risk" must be a number above 0 and below 1, such as 0.01.'
        )
    return risk


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except ValueError:
        raise errors.InvalidJsonError("The body is not valid JSON.") from None
    if not isinstance(document, dict):
        raise errors.WrongShapeError("The JSON must be an object.")
    return document


def _pictures_of_json(document: dict[str, Any], max_batch: int) -> bytes | list[str]:
    if "image" in document:
        if not isinstance(document["image"], str):
            raise errors.WrongShapeError('"image" must be a base64 string or a data URL.')
        return decode_picture(document["image"])
    texts = document["images"]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise errors.WrongShapeError('"images" must list at least one base64 string or data URL.')
    require_batch(len(texts), max_batch)
    return texts


def require_batch(pictures: int, max_batch: int) -> None:
    """Raise TooManyPicturesError if a request carries more pictures than it may.

    >>> require_batch(64, max_batch=64)
    """
    if pictures > max_batch:
        raise errors.TooManyPicturesError(
            f"The batch has {pictures} pictures; the limit is {max_batch}. Send several requests."
        )


def decode_picture(text: str) -> bytes:
    """Decode a picture from base64 or from ``data:image/…;base64,…`` (RFC 2397).

    Base64 may have white space, either alphabet (RFC 4648 sections 4 and 5) and no padding. Any
    other character is an error, where Python's default would skip it.

    >>> decode_picture("data:image/gif;base64,R0lGODlh")
    b'GIF89a'

    Raises:
        InvalidDataUrlError: it is a data URL of another form.
        InvalidBase64Error: it is not base64.
        UnreadableImageError: it is empty.
    """
    text = text.strip()
    if text[:5].lower() == "data:":
        text = _data_of_url(text)
    try:
        decoded = _decode_base64(text)
    except ValueError as error:
        raise errors.InvalidBase64Error(f"The picture is not valid base64: {error}.") from None
    if not decoded:
        raise errors.UnreadableImageError("The picture is empty.")
    return decoded


def _data_of_url(text: str) -> str:
    head, comma, data = text.partition(",")
    match = _DATA_URL_HEAD.fullmatch(head)
    if match is None or not comma:
        raise errors.InvalidDataUrlError("The data URL has no comma between its type and its data.")
    if not match["type"].strip().lower().startswith("image/"):
        raise errors.InvalidDataUrlError("The media type of the data URL is not image/*.")
    if match["parameters"].rpartition(";")[2].strip().lower() != "base64":
        raise errors.InvalidDataUrlError("The data URL does not end its type with ;base64.")
    return data


def _decode_base64(text: str) -> bytes:
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        # Nearly all texts are tidy already.
        compact = "".join(text.split()).translate(_URL_SAFE)
        return binascii.a2b_base64(compact + "=" * (-len(compact) % 4), strict_mode=True)
