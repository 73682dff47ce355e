"""Tensors of the Open Inference Protocol v2, as JSON and as bytes; knows no HTTP and no model.

The protocol is KServe's "Open Inference Protocol" v2 over REST (github.com/kserve/open-inference-
protocol), with Triton's extension for binary tensors (triton-inference-server/server,
docs/protocol/extension_binary_data.md): the JSON, whose length a header announces, is followed by
the tensors' bytes in the order of the tensors.

InvalidTensorError              an inference request isn't as the protocol or the model wants it
BodyEncodingError        a compressed body that can't be decompressed
UnsupportedEncodingError     a body of an encoding that isn't taken
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from inkdigits.errors import (
    BodyEncodingError,
    DecompressedTooLargeError,
    InvalidTensorError,
    UnsupportedEncodingError,
)
from inkdigits.types import Json

Datatype: TypeAlias = Literal["FP32", "INT32", "BYTES"]
Values: TypeAlias = "npt.NDArray[np.float32] | list[bytes] | list[str]"

_NUMPY: Final = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4")}
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Signature:
    """Name, type and shape of a tensor; -1 in the shape is any number, 1 or more."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]

    def to_json(self) -> Json:
        """As the protocol's model metadata has it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class Output:
    """One tensor of an answer.

    Attributes:
        signature: its name and type.
        shape: without -1.
        values: as many as the shape has places, in row-major order.
    """

    signature: Signature
    shape: tuple[int, ...]
    values: Values | npt.NDArray[np.int32]


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo a body's Content-Encoding.

    Args:
        body: as it came.
        encoding: "", "identity", "gzip" (RFC 1952) or "deflate" (RFC 1950).
        limit: most bytes that may come out; no more than one above it are made.

    Raises:
        UnsupportedEncodingError: another encoding.
        BodyEncodingError: it can't be decompressed.
        DecompressedTooLargeError: it is over the limit.
    """
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return body
    if encoding not in {"gzip", "deflate"}:
        raise UnsupportedEncodingError(
            f"Content-Encoding {encoding!r} isn't taken; send gzip, deflate or identity."
        )
    decompressor = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        plain = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise BodyEncodingError(f"The body is not {encoding}: {error}.") from None
    if len(plain) > limit:
        raise DecompressedTooLargeError(
            f"The body is over the limit of {limit} bytes once it is decompressed."
        )
    if not decompressor.eof or decompressor.unused_data:
        raise BodyEncodingError(f"The {encoding} body is truncated, or something follows it.")
    return plain


def split(body: bytes, header_length: str | None) -> tuple[Json, bytes]:
    """A request's JSON, and the bytes of its tensors.

    Args:
        body: decompressed.
        header_length: Inference-Header-Content-Length, bytes of the JSON; None is all of it.

    Raises:
        InvalidTensorError: the length can't be, or the JSON isn't an object.
    """
    length = len(body)
    if header_length is not None:
        is_number = header_length.isascii() and header_length.isdigit() and len(header_length) < 12
        if not is_number or int(header_length) > len(body):
            raise InvalidTensorError(
                f"Inference-Header-Content-Length must be from 0 to the body's {len(body)}; "
                f"not {header_length[:20]!r}."
            )
        length = int(header_length)
    try:
        document = orjson.loads(body[:length])
    except ValueError:
        raise InvalidTensorError("The request's JSON is not valid.") from None
    if not isinstance(document, dict):
        raise InvalidTensorError("The request's JSON must be an object.")
    return document, body[length:]


def read_input(document: Json, binary: bytes, wanted: Signature) -> Values:
    """The one input of a model, whose shape has -1 first.

    Args:
        document: the request's JSON.
        binary: what follows it.
        wanted: the model's input.

    Returns:
        float32 of the request's shape; or the elements of BYTES, ``bytes`` where they came as
        binary and ``str`` where they came in the JSON.

    Raises:
        InvalidTensorError: the request isn't as the protocol or the signature wants it.
    """
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise InvalidTensorError(f'"inputs" must be a list of one tensor, {wanted.name!r}.')
    tensor = inputs[0]
    if tensor.get("name") != wanted.name:
        raise InvalidTensorError(f"The input's name must be {wanted.name!r}.")
    if tensor.get("datatype") != wanted.datatype:
        raise InvalidTensorError(f"The datatype of {wanted.name!r} must be {wanted.datatype}.")
    shape = _shape(tensor.get("shape"), wanted)
    count = math.prod(shape)
    parameters = _parameters(tensor)
    if any(name.startswith("shared_memory") for name in parameters):
        raise InvalidTensorError("Shared memory isn't taken; send the tensor's data.")
    size = parameters.get("binary_data_size")
    if size is None:
        if binary:
            raise InvalidTensorError(
                f"Bytes follow the JSON, but {wanted.name!r} has no size of them."
            )
        return _of_json(tensor.get("data"), wanted, shape)
    if not isinstance(size, int) or isinstance(size, bool) or size != len(binary):
        raise InvalidTensorError(
            f'"binary_data_size" of {wanted.name!r} must be the {len(binary)} bytes that follow '
            "the JSON."
        )
    if "data" in tensor:
        raise InvalidTensorError(f'{wanted.name!r} has "data" and binary data; one is enough.')
    if wanted.datatype == "BYTES":
        return _elements(binary, count, wanted.name)
    numpy_type = _NUMPY[wanted.datatype]
    if len(binary) != count * numpy_type.itemsize:
        raise InvalidTensorError(
            f"{wanted.name!r} of shape {list(shape)} takes {count * numpy_type.itemsize} bytes; "
            f"{len(binary)} came."
        )
    array = np.frombuffer(binary, numpy_type).reshape(shape).astype(np.float32)
    return _finite(array, wanted.name)


def wanted_outputs(document: Json, there_are: Sequence[Signature]) -> dict[str, bool]:
    """Which outputs a request asks for, and which of them as binary; all unless it says.

    Raises:
        InvalidTensorError: the request names others, or one twice, or isn't as the protocol has it.
    """
    default = _parameters(document).get("binary_data_output", False)
    asked = document.get("outputs")
    if asked is None or asked == []:
        return {signature.name: default is True for signature in there_are}
    names = [signature.name for signature in there_are]
    if not isinstance(asked, list) or not all(isinstance(output, dict) for output in asked):
        raise InvalidTensorError('"outputs" must be a list of objects.')
    wanted: dict[str, bool] = {}
    for output in asked:
        name = output.get("name")
        if name not in names or name in wanted:
            raise InvalidTensorError(
                f"An output's name must be one of {', '.join(names)}, each once."
            )
        parameters = _parameters(output)
        if any(key.startswith("shared_memory") for key in parameters):
            raise InvalidTensorError("Shared memory isn't given; outputs come in the answer.")
        if parameters.get("classification"):
            raise InvalidTensorError("The classification extension isn't there.")
        wanted[name] = parameters.get("binary_data", default) is True
    return wanted


def write(
    answer: Json, outputs: Mapping[str, Output], as_binary: Mapping[str, bool]
) -> list[bytes]:
    """An answer's JSON, and after it the bytes of its binary tensors if there are any.

    Args:
        answer: all of the JSON but the outputs.
        outputs: by name.
        as_binary: names of those that are wanted, in order, and whether as bytes.

    Returns:
        One piece, or the JSON and one piece for each binary tensor.
    """
    tensors: list[Json] = []
    pieces: list[bytes] = []
    for name, binary in as_binary.items():
        output = outputs[name]
        tensor = {**output.signature.to_json(), "shape": list(output.shape)}
        if binary:
            pieces.append(_to_bytes(output))
            tensor["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            tensor["data"] = _to_list(output)
        tensors.append(tensor)
    return [orjson.dumps({**answer, "outputs": tensors}), *pieces]


def _parameters(of: Json) -> Json:
    parameters = of.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidTensorError('"parameters" must be an object.')
    return parameters


def _shape(shape: object, wanted: Signature) -> tuple[int, ...]:
    is_list = isinstance(shape, list) and all(type(n) is int and 1 <= n < 2**31 for n in shape)
    if (
        not isinstance(shape, list)
        or not is_list
        or len(shape) != len(wanted.shape)
        or any(want not in (-1, have) for have, want in zip(shape, wanted.shape, strict=True))
    ):
        raise InvalidTensorError(
            f"The shape of {wanted.name!r} must be {list(wanted.shape)}, with 1 or more for -1."
        )
    return tuple(shape)


def _of_json(data: object, wanted: Signature, shape: tuple[int, ...]) -> Values:
    count = math.prod(shape)
    flat = _flattened(data, wanted.name, shape)
    if len(flat) != count:
        raise InvalidTensorError(
            f"{wanted.name!r} of shape {list(shape)} has {count} elements; {len(flat)} came."
        )
    if wanted.datatype == "BYTES":
        texts = [element for element in flat if isinstance(element, str)]
        if len(texts) != len(flat):
            raise InvalidTensorError(f"The data of {wanted.name!r} must be strings.")
        return texts
    if not all(type(element) in (int, float) for element in flat):
        raise InvalidTensorError(f"The data of {wanted.name!r} must be numbers.")
    # A double beyond float32 becomes infinite, which is refused with the others.
    with np.errstate(over="ignore"):
        array = np.array(flat, np.float64).astype(np.float32)
    return _finite(array.reshape(shape), wanted.name)


def _flattened(data: object, name: str, shape: tuple[int, ...]) -> list[object]:
    """Row-major elements of a list that is flat, or nested as the shape says."""
    if not isinstance(data, list):
        raise InvalidTensorError(f'{name!r} needs "data", a list, or binary data.')
    if not data or not isinstance(data[0], list):
        return data
    flat: list[object] = data
    for length in shape[1:]:
        rows = [row for row in flat if isinstance(row, list) and len(row) == length]
        if len(rows) != len(flat):
            raise InvalidTensorError(f"The data of {name!r} is not nested as its shape says.")
        flat = [element for row in rows for element in row]
    return flat


def _elements(binary: bytes, count: int, name: str) -> list[bytes]:
    elements: list[bytes] = []
    at = 0
    while at < len(binary):
        end = at + 4
        if end <= len(binary):
            (length,) = struct.unpack_from("<I", binary, at)
            end += length
        if end > len(binary) or len(elements) == count:
            break
        elements.append(binary[at + 4 : end])
        at = end
    if at != len(binary) or len(elements) != count:
        raise InvalidTensorError(
            f"{name!r} must be {count} elements of BYTES, each after its length in 4 bytes."
        )
    return elements


def _finite(array: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
    if not np.isfinite(array).all():
        raise InvalidTensorError(f"{name!r} has numbers that are not finite.")
    return array


def _to_bytes(output: Output) -> bytes:
    if isinstance(output.values, list):
        encoded = [v.encode() if isinstance(v, str) else v for v in output.values]
        return b"".join(struct.pack("<I", len(value)) + value for value in encoded)
    return output.values.astype(_NUMPY[output.signature.datatype]).tobytes()


def _to_list(output: Output) -> list[Any]:
    if isinstance(output.values, list):
        return [v if isinstance(v, str) else v.decode() for v in output.values]
    flat: list[Any] = output.values.ravel().tolist()
    return flat
