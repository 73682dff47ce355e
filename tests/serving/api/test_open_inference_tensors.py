import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkdigits.errors import InvalidTensorError
from inkdigits.serving.api.open_inference_tensors import (
    Signature,
    read_input,
    split,
    wanted_outputs,
    write,
)

INK = Signature("ink", "FP32", (-1, 2, 2))
PICTURE = Signature("picture", "BYTES", (-1,))
LONG_NUMBER = b'{"a": 1' + b"0" * 400 + b"}"
OUTPUTS = (Signature("a", "FP32", (-1,)), Signature("b", "BYTES", (-1,)))


def request(**changes):
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
        split(body, length)


def test_json_data_may_be_flat_or_nested_and_nothing_follows_it():
    for data in ([0, 1, 2.5, -3], [[[0, 1], [2.5, -3]]]):
        values = read_input(request(data=data), b"", INK)
        np.testing.assert_array_equal(values, np.array([[[0, 1], [2.5, -3]]], np.float32))
        assert values.dtype == np.float32
    with pytest.raises(InvalidTensorError, match="follow the JSON"):
        read_input(request(), b"more", INK)


def test_binary_data_is_little_endian_and_row_major_after_the_json():
    assert split(b'{"a": 1}\0\1', "8") == ({"a": 1}, b"\0\1")
    assert split(b'{"a": 1}', None) == ({"a": 1}, b"")
    document = request(shape=[2, 2, 2], data=None, parameters={"binary_data_size": 32})
    values = read_input(document, struct.pack("<8f", *range(8)), INK)
    np.testing.assert_array_equal(values, np.arange(8, dtype=np.float32).reshape(2, 2, 2))


def test_elements_of_bytes_come_after_their_lengths():
    binary = struct.pack("<I", 3) + b"one" + struct.pack("<I", 0)
    document = pictures(2, parameters={"binary_data_size": len(binary)})
    assert read_input(document, binary, PICTURE) == [b"one", b""]
    assert read_input(pictures(1, data=["b25l"]), b"", PICTURE) == ["b25l"]


SHAPES = [[1, 4], [2, 2, 2], [1, 2, 3], [0, 2, 2], [-1, 2, 2], [True, 2, 2], [1.0, 2, 2]]
DATA = [None, {}, [], [0, 1, 2], [[[0, 1], [2]]], [[0, 1], [2, 3]]]


@pytest.mark.parametrize(
    "document",
    [
        *({}, {"inputs": {}}, {"inputs": []}, {"inputs": ["ink"]}),
        {"inputs": request()["inputs"] * 2},
        *(request(name="other"), request(datatype="FP64"), request(parameters=[])),
        *(request(shape=shape) for shape in (*SHAPES, [2**40, 2, 2], None)),
        *(request(data=data) for data in DATA),
        *(request(data=[0, 1, 2, odd]) for odd in ("3", True, None, 1e39, float("nan"))),
        request(parameters={"binary_data_size": 0}),
        *(request(data=None, parameters={"binary_data_size": size}) for size in (16, True)),
        request(data=None, parameters={"shared_memory_region": "x"}),
    ],
)
def test_request_of_another_shape_is_refused(document):
    with pytest.raises(InvalidTensorError):
        read_input(document, b"", INK)


@pytest.mark.parametrize(
    "binary", [b"", b"\0\0", b"\4\0\0\0abc", b"\1\0\0\0a\1\0\0\0b", b"\xff\xff\xff\xffabc"]
)
def test_binary_elements_that_do_not_add_up_are_refused(binary):
    with pytest.raises(InvalidTensorError, match="1 elements of BYTES"):
        read_input(pictures(1, parameters={"binary_data_size": len(binary)}), binary, PICTURE)


def test_outputs_are_all_unless_some_are_named():
    assert wanted_outputs({}, OUTPUTS) == {"a": False, "b": False}
    everything = {"parameters": {"binary_data_output": True}}
    assert wanted_outputs(everything, OUTPUTS) == {"a": True, "b": True}
    some = [{"name": "b", "parameters": {"binary_data": False}}]
    assert wanted_outputs({**everything, "outputs": some}, OUTPUTS) == {"b": False}


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
        wanted_outputs({"outputs": outputs}, OUTPUTS)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1), st.booleans())
def test_numbers_survive_the_way_out_and_in(numbers, binary):
    signature = Signature("a", "FP32", (-1,))
    values = np.array(numbers, np.float32)
    head, *rest = write({"model_name": "m"}, {signature: values}, {"a": binary})
    tensors = json.loads(head)["outputs"]
    assert [tensor["shape"] for tensor in tensors] == [[len(numbers)]]
    if np.isfinite(values).all():
        read = read_input({"inputs": tensors}, b"".join(rest), signature)
        np.testing.assert_array_equal(read, values)


@given(st.lists(st.text(), min_size=1))
def test_texts_survive_as_bytes(texts):
    head, binary = write({}, {PICTURE: texts}, {"picture": True})
    read = read_input({"inputs": json.loads(head)["outputs"]}, binary, PICTURE)
    assert read == [text.encode() for text in texts]


@given(st.binary(max_size=40), st.one_of(st.none(), st.text("0123456789", max_size=3)))
def test_any_bytes_are_read_or_refused(body, length):
    with contextlib.suppress(InvalidTensorError):
        document, binary = split(b'{"inputs": [{"name":' + body, length)
        assert isinstance(read_input(document, binary, PICTURE), list)
