import contextlib
import json
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.answers import as_base64
from support.fakes import FakeReader, blank_picture, drawn_digit, empty_png
from support.local_http import served
from support.pictures import encoded, seven

import inkdigits
from inkdigits.errors import InvalidTensorError, UnreadableImageError
from inkdigits.ink.normalize import standardise
from inkdigits.reader import preprocess
from inkdigits.serving.api.open_inference import (
    Signature,
    _read_input,
    _split,
    _wanted_outputs,
    _write,
)
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


def test_answer_names_the_model_that_has_read_though_another_was_there_first(monkeypatch):
    app, newer = create_app(Settings(page="off"), FakeReader()), FakeReader()
    newer.model_version = "fake-2"
    served = app.extensions["inkdigits.reader"]
    read = served.predict_each

    def replaced(pictures):
        served.use(newer)
        return read(pictures)

    monkeypatch.setattr(served, "predict_each", replaced)
    found = app.test_client().post(INFER.format("inkdigits"), json=of_pictures(drawn_digit()))
    assert found.json["model_version"] == "fake-2"


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


INK = Signature("ink", "FP32", (-1, 2, 2))
PICTURE = Signature("picture", "BYTES", (-1,))
LONG_NUMBER = b'{"a": 1' + b"0" * 400 + b"}"
OUTPUTS = (Signature("a", "FP32", (-1,)), Signature("b", "BYTES", (-1,)))


def document_of(**changes):
    tensor = {"name": "ink", "datatype": "FP32", "shape": [1, 2, 2], "data": [0, 1, 2.5, -3]}
    tensor |= changes
    return {"inputs": [{key: value for key, value in tensor.items() if value is not None}]}


def pictures(shape, **changes):
    return {"inputs": [{"name": "picture", "datatype": "BYTES", "shape": [shape], **changes}]}


@pytest.mark.parametrize(
    ("length", "body", "named"),
    [
        *(
            (length, b'{"a": 1}', "Inference-Header-Content-Length")
            for length in ("-1", "9", "x", "", "٣", "9" * 5000)
        ),
        *(
            (None, body, "JSON")
            for body in (b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"a": NaN}', LONG_NUMBER)
        ),
    ],
)
def test_request_without_a_header_or_a_json_object_is_refused(length, body, named):
    with pytest.raises(InvalidTensorError, match=named):
        _split(body, length)


def test_json_data_may_be_flat_or_nested_and_nothing_follows_it():
    for data in ([0, 1, 2.5, -3], [[[0, 1], [2.5, -3]]]):
        values = _read_input(document_of(data=data), b"", INK)
        np.testing.assert_array_equal(values, np.array([[[0, 1], [2.5, -3]]], np.float32))
        assert values.dtype == np.float32
    with pytest.raises(InvalidTensorError, match="follow the JSON"):
        _read_input(document_of(), b"more", INK)


def test_binary_data_is_little_endian_and_row_major_after_the_json():
    assert _split(b'{"a": 1}\0\1', "8") == ({"a": 1}, b"\0\1")
    assert _split(b'{"a": 1}', None) == ({"a": 1}, b"")
    document = document_of(shape=[2, 2, 2], data=None, parameters={"binary_data_size": 32})
    values = _read_input(document, struct.pack("<8f", *range(8)), INK)
    np.testing.assert_array_equal(values, np.arange(8, dtype=np.float32).reshape(2, 2, 2))


def test_elements_of_bytes_come_after_their_lengths():
    binary = struct.pack("<I", 3) + b"one" + struct.pack("<I", 0)
    document = pictures(2, parameters={"binary_data_size": len(binary)})
    assert _read_input(document, binary, PICTURE) == [b"one", b""]
    assert _read_input(pictures(1, data=["b25l"]), b"", PICTURE) == ["b25l"]


SHAPES = [[1, 4], [2, 2, 2], [1, 2, 3], [0, 2, 2], [-1, 2, 2], [True, 2, 2], [1.0, 2, 2]]
DATA = [None, {}, [], [0, 1, 2], [[[0, 1], [2]]], [[0, 1], [2, 3]]]


@pytest.mark.parametrize(
    "document",
    [
        *({}, {"inputs": {}}, {"inputs": []}, {"inputs": ["ink"]}),
        {"inputs": document_of()["inputs"] * 2},
        *(document_of(name="other"), document_of(datatype="FP64"), document_of(parameters=[])),
        *(document_of(shape=shape) for shape in (*SHAPES, [2**40, 2, 2], None)),
        *(document_of(data=data) for data in DATA),
        *(document_of(data=[0, 1, 2, odd]) for odd in ("3", True, None, 1e39, float("nan"))),
        document_of(parameters={"binary_data_size": 0}),
        *(document_of(data=None, parameters={"binary_data_size": size}) for size in (16, True)),
        document_of(data=None, parameters={"shared_memory_region": "x"}),
    ],
)
def test_request_of_another_shape_is_refused(document):
    with pytest.raises(InvalidTensorError):
        _read_input(document, b"", INK)


@pytest.mark.parametrize(
    "binary", [b"", b"\0\0", b"\4\0\0\0abc", b"\1\0\0\0a\1\0\0\0b", b"\xff\xff\xff\xffabc"]
)
def test_binary_elements_that_do_not_add_up_are_refused(binary):
    with pytest.raises(InvalidTensorError, match="1 elements of BYTES"):
        _read_input(pictures(1, parameters={"binary_data_size": len(binary)}), binary, PICTURE)


def test_outputs_are_all_unless_some_are_named():
    assert _wanted_outputs({}, OUTPUTS) == {"a": False, "b": False}
    everything = {"parameters": {"binary_data_output": True}}
    assert _wanted_outputs(everything, OUTPUTS) == {"a": True, "b": True}
    some = [{"name": "b", "parameters": {"binary_data": False}}]
    assert _wanted_outputs({**everything, "outputs": some}, OUTPUTS) == {"b": False}


@pytest.mark.parametrize(
    "outputs",
    [
        *({}, ["a"], [{"name": "c"}], [{"name": ["a"]}], [{}], [{"name": "a"}] * 2),
        [{"name": "a", "parameters": {"classification": 3}}],
        [{"name": "a", "parameters": {"shared_memory_region": 3}}],
    ],
)
def test_outputs_that_are_not_there_are_refused(outputs):
    with pytest.raises(InvalidTensorError):
        _wanted_outputs({"outputs": outputs}, OUTPUTS)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1), st.booleans())
def test_numbers_survive_the_way_out_and_in(numbers, binary):
    signature = Signature("a", "FP32", (-1,))
    values = np.array(numbers, np.float32)
    head, *rest = _write({"model_name": "m"}, {signature: values}, {"a": binary})
    tensors = json.loads(head)["outputs"]
    assert [tensor["shape"] for tensor in tensors] == [[len(numbers)]]
    if np.isfinite(values).all():
        read = _read_input({"inputs": tensors}, b"".join(rest), signature)
        np.testing.assert_array_equal(read, values)


@given(st.lists(st.text(), min_size=1))
def test_texts_survive_as_bytes(texts):
    head, binary = _write({}, {PICTURE: texts}, {"picture": True})
    read = _read_input({"inputs": json.loads(head)["outputs"]}, binary, PICTURE)
    assert read == [text.encode() for text in texts]


@given(st.binary(max_size=40), st.one_of(st.none(), st.text("0123456789", max_size=3)))
def test_any_bytes_are_read_or_refused(body, length):
    with contextlib.suppress(InvalidTensorError):
        document, binary = _split(b'{"inputs": [{"name":' + body, length)
        assert isinstance(_read_input(document, binary, PICTURE), list)
