"""The reader over HTTP, against the real application and against servers that misbehave."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.fakes import FakeReader, blank_picture, drawn_digit, empty_png
from werkzeug.serving import make_server

from inkdigits.decision.policy import DecisionPolicy
from inkdigits.errors import (
    ImageTooLargeError,
    ModelUnavailableError,
    UnreadableImageError,
    UnsupportedImageError,
)
from inkdigits.model.artifact import ArtifactMetadata
from inkdigits.serving import model_service as remote
from inkdigits.serving.app import create_app
from inkdigits.serving.model_service import UNKNOWN_VERSION, RemoteReader
from inkdigits.settings import Settings


@contextmanager
def served(reader: FakeReader) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, create_app(Settings(), reader), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def model() -> FakeReader:
    return FakeReader()


@pytest.fixture
def reader(model: FakeReader) -> Iterator[RemoteReader]:
    with served(model) as url:
        remote_reader = RemoteReader(url)
        yield remote_reader
        remote_reader.close()


def test_remote_reading_is_the_local_one(reader: RemoteReader, model: FakeReader) -> None:
    here, there = model.predict(drawn_digit()), reader.predict(drawn_digit())
    for name in ("digit", "confidence", "probabilities", "decision", "reason", "novelty"):
        assert getattr(there, name) == getattr(here, name)
    assert np.array_equal(there.ink, here.ink)
    assert there.ink.dtype == np.uint8
    assert (there.preprocessing_ms, there.inference_ms) == (0.25, 0.5)


def test_risk_goes_along_and_comes_back(reader: RemoteReader, model: FakeReader) -> None:
    assert reader.predict(drawn_digit()).risk is None
    asked = reader.predict(drawn_digit(), risk=1e-4)
    assert (asked.decision, asked.risk, asked.coverage) == ("review", 1e-4, 0.0)
    (in_batch,) = reader.predict_batch([drawn_digit()], risk=0.01)
    assert (in_batch.decision, in_batch.risk, in_batch.coverage) == ("accept", 0.01, 0.99)
    with served(model) as url:
        strict = RemoteReader(url, risk=1e-4)
        assert strict.predict(drawn_digit()).decision == "review"
        assert strict.predict(drawn_digit(), risk=0.01).decision == "accept"
        strict.close()


def test_remote_explanation_is_the_local_one(reader: RemoteReader, model: FakeReader) -> None:
    here, there = model.explain(drawn_digit()), reader.explain(drawn_digit(), risk=0.01)
    assert there.prediction.risk == 0.01
    assert (there.runner_up, there.runner_up_probability) == (8, 0.01)
    assert there.overlay == here.overlay
    assert there.saliency.dtype == np.float32
    assert np.allclose(there.saliency, here.saliency, atol=1e-6)


def test_service_that_explains_nothing_is_of_another_version(
    reader: RemoteReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inkdigits.serving.app.explanation_body", lambda _: {"runner_up": 1})
    with pytest.raises(ModelUnavailableError, match="another shape"):
        reader.explain(drawn_digit())


def test_encoded_picture_goes_as_it_is(reader: RemoteReader, model: FakeReader) -> None:
    picture = drawn_digit("JPEG")
    reader.predict(picture)
    assert model.read[-1] == picture


def test_file_array_and_image_are_taken_too(
    reader: RemoteReader, model: FakeReader, tmp_path: Path
) -> None:
    path = tmp_path / "seven.png"
    path.write_bytes(drawn_digit())
    with Image.open(path) as image:
        for picture in (path, str(path), image, np.asarray(image)):
            assert reader.predict(picture).digit == 7
    with pytest.raises(UnreadableImageError, match="missing"):
        reader.predict(tmp_path / "missing.png")


def test_blank_picture_has_no_digit(reader: RemoteReader) -> None:
    assert reader.predict(blank_picture()).digit is None


def test_refusals_keep_their_kind(reader: RemoteReader, model: FakeReader) -> None:
    with pytest.raises(UnreadableImageError, match="not a picture"):
        reader.predict(b"text")
    with pytest.raises(UnreadableImageError):
        reader.predict(b"")
    with pytest.raises(ImageTooLargeError):
        reader.predict(empty_png(1000, 1001))
    model.failure = UnsupportedImageError("An icon is not taken.")
    with pytest.raises(UnsupportedImageError, match="icon"):
        reader.predict(drawn_digit())


def test_batch_answers_in_order_with_errors_in_their_places(reader: RemoteReader) -> None:
    answers = reader.predict_batch([drawn_digit(), b"text", blank_picture()], on_error="return")
    assert [getattr(answer, "digit", type(answer)) for answer in answers] == [
        7,
        UnreadableImageError,
        None,
    ]
    with pytest.raises(UnreadableImageError):
        reader.predict_batch([drawn_digit(), b"text"])
    assert reader.predict_batch([]) == []


def test_version_is_known_after_the_first_answer(reader: RemoteReader) -> None:
    assert reader.model_version == UNKNOWN_VERSION
    reader.check()
    assert reader.model_version == "fake-1"


def test_metadata_comes_whole(reader: RemoteReader, model: FakeReader) -> None:
    with pytest.raises(ModelUnavailableError, match="404"):
        _ = reader.metadata
    metadata = ArtifactMetadata(
        model_version="v1",
        architecture="MNISTClassifier",
        temperature=1.25,
        policy=DecisionPolicy(0.9, 0.002, 0.95),
        provenance={"test": {"n": 10000}},
    )
    model.metadata = metadata  # type: ignore[attr-defined]
    assert reader.metadata == metadata


def test_model_that_is_not_ready_or_fails_is_unavailable(
    reader: RemoteReader, model: FakeReader
) -> None:
    model.failure = RuntimeError("broken")
    with pytest.raises(ModelUnavailableError, match="500"):
        reader.predict(drawn_digit())


def test_nobody_there_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        reader = RemoteReader(f"http://127.0.0.1:{taken.getsockname()[1]}")
        for ask in (reader.check, lambda: reader.predict(drawn_digit())):
            with pytest.raises(ModelUnavailableError, match="can't be reached"):
                ask()
        reader.close()


@contextmanager
def answering(handle: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[int]]]:
    """A server that does as told with each connection, and counts them."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[int] = []

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(1)
            with connection:
                handle(connection)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", connections
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def reply(body: bytes, status: str = "200 OK") -> Callable[[socket.socket], None]:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"

    def handle(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(head.encode() + body)

    return handle


def test_silence_ends_and_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "READ_TIMEOUT_S", 0.2)
    released = threading.Event()

    def stay_silent(connection: socket.socket) -> None:
        released.wait(30)

    with answering(stay_silent) as (url, connections):
        reader = RemoteReader(url)
        with pytest.raises(ModelUnavailableError):
            reader.predict(drawn_digit())
        released.set()
        reader.close()
    assert len(connections) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"{}",
        json.dumps({"prediction": 7, "ink": "data:image/png;base64,AAAA"}).encode(),
        json.dumps({"ink": None}).encode(),
    ],
)
def test_answer_of_another_shape_is_unavailable_and_not_a_crash(body: bytes) -> None:
    with answering(reply(body)) as (url, _):
        reader = RemoteReader(url)
        with pytest.raises(ModelUnavailableError):
            reader.predict(drawn_digit())
        reader.close()


def test_proxys_own_error_is_unavailable() -> None:
    with answering(reply(b"<html>Bad Gateway</html>", "502 Bad Gateway")) as (url, _):
        reader = RemoteReader(url)
        with pytest.raises(ModelUnavailableError):
            reader.check()
        reader.close()


def test_web_service_starts_without_its_model_and_goes_on_when_it_is_there(
    model: FakeReader,
) -> None:
    with served(model) as url:
        port = int(url.rpartition(":")[2])
    reader = RemoteReader(url)
    client = create_app(Settings(), reader).test_client()
    picture = {"data": drawn_digit(), "content_type": "image/png"}
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").status_code == 503
    refused = client.post("/predict", **picture)
    assert (refused.status_code, refused.json["error"]["code"]) == (503, "model_unavailable")
    assert refused.headers["Retry-After"] == "1"
    server = make_server("127.0.0.1", port, create_app(Settings(), model), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    assert client.get("/health/ready").status_code == 200
    assert client.post("/predict", **picture).json["prediction"] == 7
    assert client.get("/health").json["model_version"] == "fake-1"
    batch = client.post("/predict", data={"image": (io.BytesIO(drawn_digit()), "a.png")})
    assert batch.json["decision"] == "accept"
    server.shutdown()
    thread.join()
    server.server_close()
    reader.close()
    assert client.get("/health/ready").status_code == 503
