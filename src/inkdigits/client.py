"""Ask an Inkdigits service over HTTP: the methods of ``DigitReader``, one class for everyone.

Programs read pictures with it; the web service reaches its model service (``MODEL_URL``) with it.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from math import inf
from pathlib import Path
from time import sleep
from typing import Any, Final
from urllib.parse import quote, urlencode

import numpy as np
from PIL import Image

from inkdigits.decision.hints import Check, Hints
from inkdigits.decision.prediction import (
    Box,
    Explanation,
    NumberDigit,
    NumberReading,
    Prediction,
    Reader,
    ServedNumber,
    ServedPrediction,
)
from inkdigits.errors import (
    HintError,
    ImageError,
    ImageTooLargeError,
    InkdigitsError,
    RequestDeniedError,
    ServiceUnavailableError,
    UnreadableImageError,
    UnsupportedImageError,
)
from inkdigits.ink.png import encode_png
from inkdigits.model.artifact import ArtifactMetadata
from inkdigits.types import Ink, Json, Picture

UNKNOWN_VERSION: Final = "unknown"
"""The model's version until the service has answered for the first time."""

traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The trace that the next requests belong to (W3C Trace Context); it is sent with them."""

_CONNECTIONS: Final = 16
_CONNECT_TIMEOUT_S: Final = 2.0
# Before the second attempt; twice as long before each further one; always less a random half.
_FIRST_WAIT_S: Final = 0.2
_PASSING: Final = frozenset({429, 502, 503, 504})
# Below the default limits of the service, 64 pictures and 10 MiB; a 413 halves a batch further.
_BATCH_PICTURES: Final = 64
_BATCH_BYTES: Final = 8 * 1024 * 1024
_READ_APART: Final = {"ink", "number", "probabilities"}
_SAME: Final = {field.name for field in fields(ServedPrediction)} - _READ_APART
_BINARY: Final = "application/octet-stream"
_IMAGE_ERRORS: Final[Mapping[str, type[ImageError]]] = {
    "not_an_image": UnreadableImageError,
    "empty_body": UnreadableImageError,
    "invalid_base64": UnreadableImageError,
    "invalid_data_url": UnreadableImageError,
    "unsupported_image": UnsupportedImageError,
    "image_too_large": ImageTooLargeError,
}


class Client(Reader):
    """Asks a service. It is safe for threads, but not across a fork: make one in each process.

    Requests are repeated when the connection fails or the answer is 429, 502, 503 or 504: after
    its ``Retry-After``, or else after a random wait that doubles. A silent service is not.

    Args:
        url: of the service, ``http://host:port``, with a path prefix where it has one.
        api_key: a key that the service knows; None where it asks for none.
        risk: tolerated share of wrong readings among the accepted, where a call states none;
            None is the service's own.
        record: whether the service may keep the pictures in its prediction log.
        timeout: seconds without a byte of the answer.
        retries: further attempts after a failure that may pass.
        max_wait: seconds; a longer Retry-After is not waited for.

    >>> with Client("http://127.0.0.1:5000", retries=0) as client:
    ...     client.model_version
    'unknown'
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:5000",
        *,
        api_key: str | None = None,
        risk: float | None = None,
        record: bool = True,
        timeout: float = 15.0,
        retries: int = 3,
        max_wait: float = 30.0,
    ) -> None:
        # A service that reads by itself starts without urllib3.
        import urllib3

        self._url = url.rstrip("/")
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._risk = risk
        self._options = {"ink": "true"} if record else {"ink": "true", "record": "false"}
        self._retries = retries
        self._max_wait = max_wait
        self._model_version = UNKNOWN_VERSION
        self._batch_pictures = _BATCH_PICTURES
        self._pool = urllib3.PoolManager(
            maxsize=_CONNECTIONS,
            timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=timeout),
            retries=False,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next request opens another."""
        self._pool.clear()

    @property
    def model_version(self) -> str:
        """Names the artifact that answered last; UNKNOWN_VERSION before the first answer."""
        return self._model_version

    @property
    def metadata(self) -> ArtifactMetadata:
        """What the service's artifact says of itself; raises a ClientError or an ArtifactError."""
        answer = self._ask("GET", "/api/model")
        return ArtifactMetadata.from_properties({k: json.dumps(v) for k, v in answer.items()})

    def check(self) -> None:
        """Ask once whether the service can read pictures; raise a ClientError if it cannot."""
        answer = self._once("GET", "/health")
        with _known_shape():
            self._model_version = answer["model_version"]

    def predict(self, picture: Picture, *, risk: float | None = None) -> ServedPrediction:
        """Read one picture.

        Args:
            picture: a path, an encoded picture, a Pillow image, or an array (H, W[, C]) uint8.
                Files and encoded pictures are sent as they are, the others as PNG.
            risk: tolerated share of wrong readings among the accepted, between 0 and 1; None is
                the client's, or else the service's own.

        Raises:
            ImageError: the picture cannot be read or is over a limit of the service.
            RequestDeniedError: the service denies the request for another reason.
            ServiceUnavailableError: there was no answer, after all attempts.
        """
        answer = self._predict(_encoded(picture), _BINARY, risk)
        with _known_shape():
            return self._prediction(answer)

    def explain(self, picture: Picture, *, risk: float | None = None) -> Explanation:
        """Read one picture and say what the reading rests on; see ``predict``."""
        answer = self._predict(_encoded(picture), _BINARY, risk, explain="true")
        with _known_shape():
            why = answer["explanation"]
            return Explanation(
                prediction=self._prediction(answer),
                saliency=np.array(why["saliency"], np.float32),
                runner_up=why["runner_up"],
                runner_up_probability=why["runner_up_probability"],
                overlay=base64.b64decode(why["saliency_png"]),
            )

    def feedback(self, prediction_id: str, label: int | str | None) -> Json:
        """Say what the picture of a prediction of this client's key shows; None removes that.

        Args:
            prediction_id: the ``id`` of the prediction.
            label: a digit, the digits of a number as text, or "none" for no digit.

        Returns:
            ``id``, ``label`` as text and ``was_right``, as docs/api.md has them.
        """
        path = f"/predictions/{quote(prediction_id, safe='')}/feedback"
        return self._ask("POST", path, json.dumps({"label": label}).encode(), "application/json")

    def _read_fields(
        self, picture: Picture, regions: Sequence[Box] | None, hints: Hints, risk: float | None
    ) -> list[NumberReading]:
        document: Json = {"image": base64.b64encode(_encoded(picture)).decode("ascii")}
        named = (hints.lengths, hints.smallest, hints.largest, hints.check_name, regions)
        for name, value in zip(("length", "min", "max", "check", "regions"), named, strict=True):
            if value is not None:
                document[name] = value
        risk = self._risk if risk is None else risk
        if risk is not None:
            document["risk"] = risk
        path = f"/read?{urlencode(self._options)}"
        answer = self._ask("POST", path, json.dumps(document).encode(), "application/json")
        with _known_shape():
            answers = [answer] if regions is None else answer["fields"]
            return [self._number(one) for one in answers]

    def _number(self, answer: Json) -> ServedNumber:
        self._model_version = str(answer["model_version"])
        return ServedNumber(
            answer["text"],
            tuple(_number_digit(one) for one in answer["digits"]),
            answer["confidence"],
            answer["decision"],
            answer["reason"],
            tuple((other["text"], other["confidence"]) for other in answer["alternatives"]),
            tuple(Check(check["name"], check["ok"]) for check in answer["checks"]),
            self._model_version,
            answer["total_time_ms"],
            answer["id"],
            answer.get("kept"),
        )

    def _read_each(
        self, pictures: Sequence[Picture], risk: float | None
    ) -> Iterator[Prediction | ImageError]:
        """Yield what is read, by as many requests as it takes, for ``predict_batch``."""
        texts: list[str] = []
        for picture in pictures:
            try:
                text = base64.b64encode(_encoded(picture)).decode("ascii")
            except UnreadableImageError as error:
                yield from self._read(texts, risk)
                yield error
                texts = []
                continue
            is_full = len(texts) >= self._batch_pictures
            if is_full or sum(map(len, texts)) + len(text) > _BATCH_BYTES:
                yield from self._read(texts, risk)
                texts = []
            texts.append(text)
        yield from self._read(texts, risk)

    def _read(self, texts: list[str], risk: float | None) -> list[Prediction | ImageError]:
        """Read pictures in base64 by one request, or by two halves where that is too large."""
        if not texts:
            return []
        try:
            body = json.dumps({"images": texts}).encode()
            answer = self._predict(body, "application/json", risk)
        except ImageTooLargeError as error:
            if len(texts) == 1:
                return [error]
            self._batch_pictures = middle = len(texts) // 2
            return self._read(texts[:middle], risk) + self._read(texts[middle:], risk)
        with _known_shape():
            pairs = zip(texts, answer["predictions"], strict=True)
            return [self._prediction_or_error(one) for _, one in pairs]

    def _predict(self, body: bytes, content_type: str, risk: float | None, **more: str) -> Json:
        query = self._options | more
        risk = self._risk if risk is None else risk
        if risk is not None:
            query["risk"] = repr(risk)
        return self._ask("POST", f"/predict?{urlencode(query)}", body, content_type)

    def _ask(self, *request: Any) -> Json:
        """Send a request until it is answered or the attempts end."""
        for attempt in range(self._retries):
            try:
                return self._once(*request)
            except ServiceUnavailableError as error:
                wait = error.retry_after
                if wait is None:
                    wait = _FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311
                if wait > self._max_wait:
                    raise
            sleep(wait)
        return self._once(*request)

    def _once(
        self, method: str, path: str, body: bytes | None = None, content_type: str = _BINARY
    ) -> Json:
        """Send a request once and return the JSON that answers it."""
        from urllib3.exceptions import HTTPError, ReadTimeoutError

        headers = {**self._headers, "Content-Type": content_type}
        trace = traceparent.get()
        if trace is not None:
            headers["traceparent"] = trace
        try:
            response = self._pool.request(method, self._url + path, body=body, headers=headers)
        except ReadTimeoutError as error:
            raise ServiceUnavailableError("The service did not answer in time.", inf) from error
        except HTTPError as error:
            raise ServiceUnavailableError(
                f"The service cannot be reached ({type(error).__name__}). "
                "Check its address and whether it runs."
            ) from error
        try:
            found = json.loads(response.data)
        except ValueError:
            found = None
        answer = found if isinstance(found, dict) else {}
        if response.status == 200:
            return answer
        raise _error(response.status, answer, response.headers.get("Retry-After", ""))

    def _prediction(self, answer: Json) -> ServedPrediction:
        self._model_version = str(answer["model_version"])
        values = {name: answer[name] for name in _SAME if name in answer}
        return ServedPrediction(
            **values,
            digit=answer["prediction"],
            probabilities=tuple(answer["probabilities"]),
            ink=_ink(answer["ink"]),
            number=self._number(answer["number"]) if "number" in answer else None,
            preprocessing_ms=answer["preprocessing_time_ms"],
            inference_ms=answer["inference_time_ms"],
        )

    def _prediction_or_error(self, answer: Json) -> ServedPrediction | ImageError:
        if "error" not in answer:
            return self._prediction(answer)
        code, message = _problem(answer)
        return _IMAGE_ERRORS.get(code, UnreadableImageError)(message)


def _ink(url: str) -> Ink:
    content = base64.b64decode(url.partition(",")[2])
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        return np.asarray(image.convert("L"))


def _number_digit(answer: Json) -> NumberDigit:
    return NumberDigit(
        answer["digit"],
        answer["confidence"],
        tuple(answer["box"]),
        answer["decision"],
        tuple((other["digit"], other["confidence"]) for other in answer["alternatives"]),
        _ink(answer["ink"]),
    )


def _error(status: int, answer: Json, retry_after: str) -> InkdigitsError:
    """Return the error that an answer of another status than 200 stands for."""
    code, message = _problem(answer)
    if status == 429 or status >= 500:
        wait = float(retry_after) if retry_after.isdecimal() else None
        message = f"The service cannot answer now (status {status}, {code}): {message}"
        return ServiceUnavailableError(message, wait if status in _PASSING else inf)
    if code == "invalid_hint":
        return HintError(message)
    kind = ImageTooLargeError if status == 413 else _IMAGE_ERRORS.get(code)
    return RequestDeniedError(status, code, message) if kind is None else kind(message)


def _problem(answer: Json) -> tuple[str, str]:
    error = answer.get("error")
    error = error if isinstance(error, dict) else {}
    return str(error.get("code", "unknown")), str(error.get("message", "no message"))


@contextmanager
def _known_shape() -> Iterator[None]:
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, OSError, SyntaxError) as error:
        raise ServiceUnavailableError(
            "The answer has an unknown shape. Check that the service is of the same version.", inf
        ) from error


def _encoded(picture: Picture) -> bytes:
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | os.PathLike):
        try:
            return Path(picture).read_bytes()
        except OSError as error:
            raise UnreadableImageError(f"{picture} cannot be read: {error.strerror}") from error
    return encode_png(picture)
