"""The client against the real application, without a network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from support.fakes import FakeReader, blank_picture, drawn_digit, empty_png

from inkdigits import Client
from inkdigits.client import Health
from inkdigits.errors import (
    ArtifactCorruptError,
    ImageTooLargeError,
    RequestDeniedError,
    ServiceUnavailableError,
    UnreadableImageError,
)
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings


class Flaky(httpx.BaseTransport):
    """Gives some answers, or raises them, before it lets the application answer."""

    def __init__(self, app: Any, *first: httpx.Response | Exception) -> None:
        self._transport = httpx.WSGITransport(app)
        self._first = list(first)
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if not self._first:
            return self._transport.handle_request(request)
        answer = self._first.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def reader() -> FakeReader:
    return FakeReader()


def asking(reader: FakeReader, *first: httpx.Response | Exception, **how: Any) -> Any:
    waits: list[float] = []
    transport = Flaky(create_app(Settings(max_batch=3), reader), *first)
    client = Client("http://service", transport=transport, sleep=waits.append, **how)
    return client, waits, transport


def levels() -> np.ndarray:
    array = np.full((40, 40), 255, np.uint8)
    array[10:30, 18:22] = 0
    return array


def as_path(folder: Path) -> Path:
    (folder / "a.png").write_bytes(drawn_digit())
    return folder / "a.png"


@pytest.mark.parametrize(
    "make",
    [
        as_path,
        lambda folder: str(as_path(folder)),
        lambda folder: drawn_digit(),
        lambda folder: Image.fromarray(levels()),
        lambda folder: levels(),
    ],
)
def test_every_kind_of_picture_is_read(
    reader: FakeReader, tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    client, waits, _ = asking(reader)
    with client:
        prediction = client.predict(make(tmp_path))
    assert (prediction.digit, prediction.confidence, prediction.decision) == (7, 0.91, "accept")
    assert len(prediction.probabilities) == 10
    assert (prediction.model_version, prediction.novelty) == ("fake-1", -3.1)
    assert (prediction.preprocessing_ms, prediction.inference_ms) == (0.25, 0.5)
    assert waits == []


def test_batch_is_in_order_with_errors_in_place(reader: FakeReader) -> None:
    client, _, _ = asking(reader)
    first, second, third = client.predict_batch([drawn_digit(), b"text", blank_picture()])
    assert first.digit == 7
    assert isinstance(second, UnreadableImageError)
    assert (third.digit, third.reason) == (None, "blank")
    assert client.predict_batch([]) == []


def test_refusals_are_the_errors_that_a_local_reader_raises(reader: FakeReader) -> None:
    client, waits, _ = asking(reader)
    with pytest.raises(UnreadableImageError):
        client.predict(b"text")
    with pytest.raises(ImageTooLargeError, match="1000000 pixels"):
        client.predict(empty_png(2000, 2000))
    with pytest.raises(RequestDeniedError, match="limit is 3") as caught:
        client.predict_batch([drawn_digit()] * 4)
    assert (caught.value.status, caught.value.code) == (413, "too_many_pictures")
    assert waits == []


def test_retry_after_is_honoured(reader: FakeReader) -> None:
    busy = [httpx.Response(429, headers={"Retry-After": "7"}), httpx.Response(503)]
    client, waits, transport = asking(reader, *busy)
    assert client.predict(drawn_digit()).digit == 7
    assert waits[0] == 7
    assert 0.2 <= waits[1] <= 0.4
    assert len(transport.requests) == 3
    assert len({request.content for request in transport.requests}) == 1


def test_lost_connections_and_timeouts_are_tried_again(reader: FakeReader) -> None:
    client, waits, _ = asking(reader, httpx.ConnectError("gone"), httpx.ReadTimeout("slow"))
    assert client.predict(drawn_digit()).digit == 7
    assert len(waits) == 2


def test_attempts_end(reader: FakeReader) -> None:
    client, waits, transport = asking(reader, *[httpx.ConnectError("gone")] * 9, retries=2)
    with pytest.raises(ServiceUnavailableError, match="gone"):
        client.predict(drawn_digit())
    assert (len(transport.requests), len(waits)) == (3, 2)


def test_long_retry_after_is_not_waited_for(reader: FakeReader) -> None:
    client, waits, _ = asking(reader, httpx.Response(503, headers={"Retry-After": "3600"}))
    with pytest.raises(ServiceUnavailableError):
        client.predict(drawn_digit())
    assert waits == []


def test_answer_of_something_else_is_refused(reader: FakeReader) -> None:
    client, _, _ = asking(reader, httpx.Response(404, text="<h1>nginx</h1>"))
    with pytest.raises(RequestDeniedError) as caught:
        client.predict(drawn_digit())
    assert (caught.value.status, caught.value.code) == (404, "unknown")


def test_health_tells_ready_from_not(reader: FakeReader) -> None:
    client, _, _ = asking(reader)
    health = client.health()
    assert (health.is_ready, health.model_version) == (True, "fake-1")
    broken, _, _ = asking(FakeReader(failure=ArtifactCorruptError("x")))
    assert broken.health() == Health(False, "fake-1", health.version)
    gone, _, _ = asking(reader, httpx.ConnectError("gone"))
    with pytest.raises(ServiceUnavailableError):
        gone.health()


def test_key_and_wish_not_to_be_recorded_are_sent(reader: FakeReader) -> None:
    client, _, transport = asking(reader, api_key="a-key")
    client.predict(drawn_digit(), record=False)
    (request,) = transport.requests
    assert request.headers["Authorization"] == "Bearer a-key"
    assert request.url.params["record"] == "false"


def test_without_httpx_the_extra_is_named() -> None:
    code = (
        "import sys\nsys.modules['httpx'] = None\nimport inkdigits\n"
        "try:\n    inkdigits.Client()\n"
        "except inkdigits.errors.BackendUnavailableError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert "inkdigits[client]" in done.stdout
