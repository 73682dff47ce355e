"""A client of the service, on httpx, which ``pip install 'inkdigits[client]'`` brings.

RequestDeniedError      the service refuses the request; asking again won't help
ServiceUnavailableError  it can't be reached, is too busy or can't answer; later it may
"""

from __future__ import annotations

import base64
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from inkdigits.decision.policy import Decision, Reason
from inkdigits.errors import (
    BackendUnavailableError,
    ImageError,
    ImageTooLargeError,
    InkdigitsError,
    RequestDeniedError,
    ServiceUnavailableError,
    UnreadableImageError,
    UnsupportedImageError,
)
from inkdigits.ink.png import encode_png
from inkdigits.types import Picture

if TYPE_CHECKING:
    import httpx

TIMEOUT_S: Final = 15.0
"""Seconds for a connection, and seconds without a byte of the answer."""

RETRIES: Final = 3
"""Further attempts after a failure that may pass."""

MAX_WAIT_S: Final = 30.0
"""A Retry-After of more seconds than these isn't waited for."""

# Reading a picture twice does no harm, so a lost answer is asked for again.
_PASSING: Final = frozenset({429, 502, 503, 504})
_FIRST_WAIT_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class RemotePrediction:
    """What the service read in one picture; ``inference.Prediction`` without the ink.

    Attributes:
        digit: 0 to 9, or None when there is no ink to read.
        confidence: calibrated probability of ``digit``, 0 to 1; 0.0 when ``digit`` is None.
        probabilities: calibrated probabilities of the digits 0 to 9.
        decision: what to do with it: "accept", "review" or "reject".
        reason: why it was rejected; None unless ``decision`` is "reject".
        novelty: how unlike any digit the ink is, higher is stranger; None where not computed.
        model_version: which artifact answered.
        id: under which the service keeps it, if it does.
        preprocessing_ms: milliseconds from the encoded picture to the ink.
        inference_ms: milliseconds from the ink to the probabilities (a batch's mean).
    """

    digit: int | None
    confidence: float
    probabilities: tuple[float, ...]
    decision: Decision
    reason: Reason | None
    novelty: float | None
    model_version: str
    id: str
    preprocessing_ms: float
    inference_ms: float


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the service can read pictures, and by which model and version of Inkdigits."""

    is_ready: bool
    model_version: str
    version: str


class Client:
    """Asks a service. Safe for threads; use it in a ``with``, or close it.

    Args:
        url: of the service.
        api_key: one that it knows; None where it asks for none.
        timeout: seconds for a connection, and without a byte of the answer.
        retries: further attempts when the service can't be reached, is too busy (429) or can't
            answer now (502, 503, 504). It waits as long as ``Retry-After`` says, or else twice as
            long each time, from 0.2 seconds, less a random half of it.
        transport: how requests are sent, for tests; None is by HTTP.
        sleep: waits between attempts.

    Raises:
        BackendUnavailableError: httpx isn't installed.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:5000",
        *,
        api_key: str | None = None,
        timeout: float = TIMEOUT_S,
        retries: int = RETRIES,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        try:
            import httpx
        except ModuleNotFoundError as error:
            raise BackendUnavailableError(
                "inkdigits.Client needs httpx: pip install 'inkdigits[client]'"
            ) from error
        self._http = httpx.Client(
            base_url=url,
            timeout=timeout,
            transport=transport,
            headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
        )
        self._transport_error = httpx.TransportError
        self._retries = retries
        self._sleep = sleep

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(self, picture: Picture, *, record: bool = True) -> RemotePrediction:
        """Read one picture.

        Args:
            picture: a path, an encoded picture, a Pillow image, or an array (H, W[, C]) uint8.
            record: whether the service may keep it in its prediction log.

        Raises:
            ImageError: the picture can't be read or is over a limit of the service.
            RequestDeniedError: the request is refused for something else.
            ServiceUnavailableError: there was no answer, after all attempts.
        """
        answer = self._ask(
            "POST",
            "/predict",
            params=_flags(record),
            content=encoded(picture),
            headers={"Content-Type": "application/octet-stream"},
        )
        return _prediction(answer)

    def predict_batch(
        self, pictures: Sequence[Picture], *, record: bool = True
    ) -> list[RemotePrediction | ImageError]:
        """Read many pictures in one request; answers are in the same order.

        Args:
            pictures: as for ``predict``; at most as many as the service takes.
            record: whether the service may keep them.

        Returns:
            What was read, or in its place what is wrong with a picture.

        Raises:
            RequestDeniedError: the request is refused as a whole.
            ServiceUnavailableError: there was no answer, after all attempts.
        """
        if not pictures:
            return []
        texts = [base64.b64encode(encoded(picture)).decode("ascii") for picture in pictures]
        answer = self._ask("POST", "/predict", params=_flags(record), json={"images": texts})
        return [
            (refusal(one["error"]) or ImageError(one["error"]["message"]))
            if "error" in one
            else _prediction(one)
            for one in answer["predictions"]
        ]

    def health(self) -> Health:
        """Ask once whether the service can read pictures.

        Raises:
            RequestDeniedError: something else answered.
            ServiceUnavailableError: nobody answered.
        """
        try:
            response = self._http.get("/health")
        except self._transport_error as error:
            raise ServiceUnavailableError(f"the service can't be reached: {error}") from error
        answer = _json_of(response)
        if "model_loaded" not in answer:
            raise _refused(response.status_code, answer)
        return Health(
            is_ready=response.status_code == 200,
            model_version=answer["model_version"],
            version=answer["version"],
        )

    def _ask(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        for attempt in range(self._retries + 1):
            wait = _FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311
            try:
                response = self._http.request(method, path, **how)
            except self._transport_error as error:
                failure = ServiceUnavailableError(f"the service can't be reached: {error}")
            else:
                answer = _json_of(response)
                if response.status_code == 200:
                    return answer
                refused = _refused(response.status_code, answer)
                if response.status_code not in _PASSING or isinstance(refused, ImageError):
                    raise refused
                failure = ServiceUnavailableError(f"the service can't answer now: {refused}")
                wait = _seconds(response.headers.get("Retry-After"), wait)
            if attempt == self._retries or wait > MAX_WAIT_S:
                break
            self._sleep(wait)
        raise failure


def _flags(record: bool) -> dict[str, str]:
    return {} if record else {"record": "false"}


def _seconds(header: str | None, otherwise: float) -> float:
    # A date is allowed too (RFC 9110 section 10.2.3), but the service sends seconds.
    return float(header) if header is not None and header.isdecimal() else otherwise


def _json_of(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _refused(status: int, answer: Mapping[str, Any]) -> InkdigitsError:
    error = answer.get("error")
    if not isinstance(error, dict):
        return RequestDeniedError(status, "unknown", f"status {status}, which says no more")
    return refusal(error) or RequestDeniedError(
        status, str(error.get("code")), str(error.get("message"))
    )


def _prediction(answer: Mapping[str, Any]) -> RemotePrediction:
    return RemotePrediction(
        digit=answer["prediction"],
        confidence=answer["confidence"],
        probabilities=tuple(answer["probabilities"]),
        decision=answer["decision"],
        reason=answer["reason"],
        novelty=answer["novelty"],
        model_version=answer["model_version"],
        id=answer["id"],
        preprocessing_ms=answer["preprocessing_time_ms"],
        inference_ms=answer["inference_time_ms"],
    )


_REFUSALS: Final[Mapping[str, type[ImageError]]] = {
    "not_an_image": UnreadableImageError,
    "empty_body": UnreadableImageError,
    "invalid_base64": UnreadableImageError,
    "unsupported_image": UnsupportedImageError,
    "image_too_large": ImageTooLargeError,
    "body_too_large": ImageTooLargeError,
}


def refusal(error: Mapping[str, Any]) -> ImageError | None:
    """The error that a service's error stands for, if it is about the picture."""
    kind = _REFUSALS.get(str(error.get("code")))
    return None if kind is None else kind(str(error.get("message")))


def encoded(picture: Picture) -> bytes:
    """A picture as it is sent: bytes and files as they are, images and arrays as PNG.

    Raises:
        UnreadableImageError: the file can't be read.
    """
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | os.PathLike):
        try:
            with open(picture, "rb") as file:  # noqa: PTH123
                return file.read()
        except OSError as error:
            raise UnreadableImageError(f"{picture} can't be read: {error.strerror}") from error
    return encode_png(picture)
