import warnings

import numpy as np
import pytest
from support.answers import as_base64
from support.fakes import FakeReader, blank_picture, drawn_digit, empty_png
from support.local_http import served
from support.pictures import encoded, seven

import inkdigits
from inkdigits.errors import UnreadableImageError
from inkdigits.ink.normalize import standardise
from inkdigits.reader import preprocess
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

INFER = "/v2/models/{}/infer"


@pytest.fixture(scope="module")
def reader():
    return inkdigits.load()


@pytest.fixture(scope="module")
def app(reader):
    return create_app(Settings(max_bytes=100_000, max_batch=4, page="off"), reader)


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture(scope="module")
def ink():
    return standardise(np.stack([preprocess(seven())] * 2))


@pytest.fixture(scope="module")
def address(app):
    with served(app) as url:
        yield url.removeprefix("http://")


def of_texts(*texts):
    tensor = {"name": "picture", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    return {"inputs": [tensor]}


def of_pictures(*pictures):
    return of_texts(*map(as_base64, pictures))


def outputs_of(response):
    assert response.status_code == 200
    return {output["name"]: output["data"] for output in response.json["outputs"]}


def refusal(response):
    assert list(response.json) == ["error"]
    return response.status_code, response.json["error"]


def test_server_and_models_describe_themselves(client, reader):
    about = {"name": "inkdigits", "version": inkdigits.__version__}
    assert client.get("/v2").json == {**about, "extensions": ["binary_tensor_data"]}
    assert client.get("/v2/health/live").json == {"live": True}
    assert client.get("/v2/health/ready").json == {"ready": True}
    mnist = client.get("/v2/models/mnist").json
    assert mnist["versions"] == [reader.model_version]
    assert mnist["inputs"] == [{"name": "ink", "datatype": "FP32", "shape": [-1, 1, 28, 28]}]
    assert [output["name"] for output in mnist["outputs"]] == ["logits", "probabilities"]
    versioned = f"/v2/models/inkdigits/versions/{reader.model_version}"
    assert client.get(versioned).json == client.get("/v2/models/inkdigits").json
    assert client.get(versioned + "/ready").json == {"name": "inkdigits", "ready": True}


def test_ink_gives_the_readers_own_probabilities(client, reader, ink):
    tensor = {"name": "ink", "datatype": "FP32", "shape": [2, 1, 28, 28], "data": ink.tolist()}
    response = client.post(INFER.format("mnist"), json={"id": "q1", "inputs": [tensor]})
    outputs = outputs_of(response)
    assert response.json["id"] == "q1"
    expected = reader.predict(seven()).probabilities
    assert outputs["probabilities"][:10] == pytest.approx(expected, abs=1e-6)
    assert len(outputs["logits"]) == 20
    assert int(np.argmax(outputs["logits"][10:])) == 7


def test_pictures_give_digit_confidence_and_decision(client, reader):
    pictures = of_pictures(encoded(seven()), blank_picture())
    outputs = outputs_of(client.post(INFER.format("inkdigits"), json=pictures))
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
        (of_texts("!"), 400),
        (of_pictures(*[blank_picture()] * 5), 413),
        (of_pictures(empty_png(60_000, 60_000)), 413),
    ],
)
def test_refusals_are_one_string(client, document, status):
    assert refusal(client.post(INFER.format("inkdigits"), json=document))[0] == status
    for path in ("/v2/models/x", "/v2/models/mnist/versions/1/ready"):
        unknown, message = refusal(client.get(path))
        assert (unknown, message[:11]) == (404, "There is no")


def test_service_that_is_not_ready_says_so_and_one_without_the_network_has_no_mnist():
    fake = FakeReader(failure=UnreadableImageError("no"))
    client = create_app(Settings(page="off"), fake).test_client()
    assert refusal(client.get("/v2/health/ready"))[0] == 503
    response = client.post(INFER.format("inkdigits"), json=of_pictures(drawn_digit()))
    assert (refusal(response)[0], response.headers["Retry-After"]) == (503, "1")
    assert refusal(client.get("/v2/models/mnist"))[0] == 404


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritons_client(address, ink, compression, binary):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gevent's, which it needs
        triton = pytest.importorskip("tritonclient.http")

    def infer(model, name, values, kind, outputs=()):
        tensor = triton.InferInput(name, list(values.shape), kind)
        tensor.set_data_from_numpy(values, binary_data=binary)
        wanted = [triton.InferRequestedOutput(one, binary_data=binary) for one in outputs]
        sent = {"outputs": wanted or None, "request_compression_algorithm": compression}
        return service.infer(model, [tensor], **sent)

    with triton.InferenceServerClient(address) as service:
        assert service.is_server_live()
        assert service.is_server_ready()
        assert service.is_model_ready("mnist")
        assert service.get_model_metadata("inkdigits")["inputs"][0]["name"] == "picture"
        answer = infer("mnist", "ink", ink, "FP32", ("logits", "probabilities"))
        assert answer.as_numpy("logits").shape == (2, 10)
        assert answer.as_numpy("probabilities").argmax(axis=1).tolist() == [7, 7]
        picture = encoded(seven()) if binary else as_base64(encoded(seven())).encode()
        answer = infer("inkdigits", "picture", np.array([picture], dtype=object), "BYTES")
        assert answer.as_numpy("digit").tolist() == [7]
        assert answer.as_numpy("decision").tolist() == [b"accept"]
        with pytest.raises(triton.InferenceServerException, match="no model 'x'"):
            service.get_model_metadata("x")
