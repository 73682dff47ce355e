"""The Open Inference Protocol v2: by hand, and by Triton's own client."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from support.answers import as_base64
from support.fakes import FakeReader, blank_picture, drawn_digit, empty_png
from support.local_http import served
from support.pictures import encoded, seven

import inkdigits
from inkdigits.errors import UnreadableImageError
from inkdigits.ink.normalize import preprocess, standardise
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

INFER = "/v2/models/{}/infer"


@pytest.fixture(scope="module")
def reader() -> inkdigits.DigitReader:
    return inkdigits.load()


@pytest.fixture(scope="module")
def app(reader: inkdigits.DigitReader) -> Flask:
    return create_app(Settings(max_bytes=100_000, max_batch=4, page="off"), reader)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture(scope="module")
def ink() -> np.ndarray:
    return standardise(np.stack([preprocess(seven()), preprocess(seven())]))


@pytest.fixture(scope="module")
def address(app: Flask) -> Iterator[str]:
    with served(app) as url:
        yield url.removeprefix("http://")


def of_pictures(*pictures: bytes) -> dict[str, Any]:
    texts = [as_base64(picture) for picture in pictures]
    tensor = {"name": "picture", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    return {"inputs": [tensor]}


def outputs_of(answer: Any) -> dict[str, list[Any]]:
    return {output["name"]: output["data"] for output in answer["outputs"]}


def refusal(response: Any) -> tuple[int, str]:
    assert list(response.json) == ["error"]
    return response.status_code, response.json["error"]


def test_server_and_models_describe_themselves(
    client: FlaskClient, reader: inkdigits.DigitReader
) -> None:
    server = client.get("/v2").json
    assert (server["name"], server["version"]) == ("inkdigits", inkdigits.__version__)
    assert server["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json == {"live": True}
    assert client.get("/v2/health/ready").json == {"ready": True}
    mnist = client.get("/v2/models/mnist").json
    assert mnist["versions"] == [reader.model_version]
    assert mnist["inputs"] == [{"name": "ink", "datatype": "FP32", "shape": [-1, 1, 28, 28]}]
    assert [output["name"] for output in mnist["outputs"]] == ["logits", "probabilities"]
    versioned = f"/v2/models/inkdigits/versions/{reader.model_version}"
    assert client.get(versioned).json == client.get("/v2/models/inkdigits").json
    assert client.get(versioned + "/ready").json == {"name": "inkdigits", "ready": True}


@pytest.mark.parametrize("path", ["/v2/models/x", "/v2/models/mnist/versions/1/ready"])
def test_unknown_model_or_version_is_named(client: FlaskClient, path: str) -> None:
    status, message = refusal(client.get(path))
    assert (status, message[:11]) == (404, "There is no")


def test_ink_gives_the_readers_own_probabilities(
    client: FlaskClient, reader: inkdigits.DigitReader, ink: np.ndarray
) -> None:
    tensor = {"name": "ink", "datatype": "FP32", "shape": [2, 1, 28, 28], "data": ink.tolist()}
    response = client.post(INFER.format("mnist"), json={"id": "q1", "inputs": [tensor]})
    assert response.status_code == 200
    assert response.json["id"] == "q1"
    outputs = outputs_of(response.json)
    expected = reader.predict(seven()).probabilities
    assert outputs["probabilities"][:10] == pytest.approx(expected, abs=1e-6)
    assert len(outputs["logits"]) == 20
    assert int(np.argmax(outputs["logits"][10:])) == 7


def test_pictures_give_digit_confidence_and_decision(
    client: FlaskClient, reader: inkdigits.DigitReader
) -> None:
    response = client.post(
        INFER.format("inkdigits"), json=of_pictures(encoded(seven()), blank_picture())
    )
    outputs = outputs_of(response.json)
    expected = reader.predict(seven())
    assert outputs["digit"] == [7, -1]
    assert outputs["confidence"] == pytest.approx([expected.confidence, 0.0])
    assert outputs["decision"] == [expected.decision, "reject"]
    assert "inkdigits_decisions_total" in client.get("/metrics").text


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({}, 400),
        ({"id": 5, **of_pictures(b"x")}, 400),
        (of_pictures(b"no picture"), 400),
        (of_pictures(*[blank_picture()] * 5), 413),
        (of_pictures(empty_png(60_000, 60_000)), 413),
        ({"inputs": [{"name": "picture", "datatype": "BYTES", "shape": [1], "data": ["!"]}]}, 400),
    ],
)
def test_refusals_are_one_string(client: FlaskClient, document: Any, status: int) -> None:
    assert refusal(client.post(INFER.format("inkdigits"), json=document))[0] == status


def test_service_that_is_not_ready_says_so_and_one_without_the_network_has_no_mnist() -> None:
    fake = FakeReader(failure=UnreadableImageError("no"))
    client = create_app(Settings(page="off"), fake).test_client()
    assert refusal(client.get("/v2/health/ready"))[0] == 503
    response = client.post(INFER.format("inkdigits"), json=of_pictures(drawn_digit()))
    assert refusal(response)[0] == 503
    assert response.headers["Retry-After"] == "1"
    assert refusal(client.get("/v2/models/mnist"))[0] == 404


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritons_client(address: str, ink: np.ndarray, compression: Any, binary: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gevent's, which it needs
        triton = pytest.importorskip("tritonclient.http")
    with triton.InferenceServerClient(address) as service:
        assert service.is_server_live()
        assert service.is_server_ready()
        assert service.is_model_ready("mnist")
        assert service.get_model_metadata("inkdigits")["inputs"][0]["name"] == "picture"
        tensor = triton.InferInput("ink", list(ink.shape), "FP32")
        tensor.set_data_from_numpy(ink, binary_data=binary)
        names = ["logits", "probabilities"]
        answer = service.infer(
            "mnist",
            [tensor],
            outputs=[triton.InferRequestedOutput(name, binary_data=binary) for name in names],
            request_compression_algorithm=compression,
        )
        assert answer.as_numpy("logits").shape == (2, 10)
        assert answer.as_numpy("probabilities").argmax(axis=1).tolist() == [7, 7]
        picture = encoded(seven())
        sent = picture if binary else as_base64(picture).encode()
        tensor = triton.InferInput("picture", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([sent], dtype=object), binary_data=binary)
        answer = service.infer("inkdigits", [tensor], request_compression_algorithm=compression)
        assert answer.as_numpy("digit").tolist() == [7]
        assert answer.as_numpy("decision").tolist() == [b"accept"]
        with pytest.raises(triton.InferenceServerException, match="no model 'x'"):
            service.get_model_metadata("x")
