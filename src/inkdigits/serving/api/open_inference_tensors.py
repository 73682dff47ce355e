"""Tensors of the Open Inference Protocol v2 (github.com/kserve/open-inference-protocol).

With Triton's binary extension (triton-inference-server/server, extension_binary_data.md) the JSON,
whose length a header announces, is followed by the bytes of the tensors in their order.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from inkdigits.errors import InvalidTensorError
from inkdigits.serving.api import bodies
from inkdigits.types import Floats, Json

Datatype: TypeAlias = Literal["FP32", "INT32", "BYTES"]
Values: TypeAlias = "Floats | npt.NDArray[np.int32] | list[bytes] | list[str]"

_NUMPY: Final = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4")}


@dataclass(frozen=True, slots=True)
class Signature:
    """Name, type and shape of a tensor; -1 in the shape is any number, 1 or more."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]

    def to_json(self) -> Json:
        """Return the signature as the protocol's model metadata has it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


def split(body: bytes, header_length: str | None) -> tuple[Json, bytes]:
    """Return a request's JSON, and the bytes of its tensors.

    >>> split(b'{"id": "1"}abc', "11")
    ({'id': '1'}, b'abc')
    """
    length = len(body)
    if header_length is not None:
        is_number = header_length.isascii() and header_length.isdigit() and len(header_length) < 12
        if not is_number or int(header_length) > length:
            raise InvalidTensorError(
                f"Inference-Header-Content-Length must be from 0 to the body's {length}; "
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
    """Return the one input of a model: float32; of BYTES, ``bytes`` or, from JSON, ``str``.

    >>> tensor = {"name": "ink", "datatype": "FP32", "shape": [2], "data": [0, 1.5]}
    >>> read_input({"inputs": [tensor]}, b"", Signature("ink", "FP32", (-1,)))
    array([0. , 1.5], dtype=float32)

    ``binary`` is what follows the JSON. An InvalidTensorError says what is not as the protocol or
    the signature wants it.
    """
    (tensor,) = _checked(document, bodies.InferenceRequest)["inputs"]
    if (tensor["name"], tensor["datatype"]) != (wanted.name, wanted.datatype):
        raise InvalidTensorError(f"The input must be {wanted.name!r} of {wanted.datatype}.")
    shape = tuple(tensor["shape"])
    if len(shape) != len(wanted.shape) or any(
        want not in (-1, have) for have, want in zip(shape, wanted.shape, strict=False)
    ):
        raise InvalidTensorError(
            f"The shape of {wanted.name!r} must be {list(wanted.shape)}, with 1 or more for -1."
        )
    size = _parameters(tensor).get("binary_data_size")
    if size is None:
        if binary:
            raise InvalidTensorError(
                f'Bytes follow the JSON, but {wanted.name!r} has no "binary_data_size".'
            )
        values = _of_json(tensor.get("data"), wanted, shape)
    elif type(size) is not int or size != len(binary):
        raise InvalidTensorError(
            f'"binary_data_size" of {wanted.name!r} must be the {len(binary)} bytes that follow '
            "the JSON."
        )
    elif "data" in tensor:
        raise InvalidTensorError(f'{wanted.name!r} has "data" and binary data; send one of them.')
    else:
        values = _of_bytes(binary, wanted, shape)
    if isinstance(values, np.ndarray) and not np.isfinite(values).all():
        raise InvalidTensorError(f"{wanted.name!r} has numbers that are not finite.")
    return values


def wanted_outputs(document: Json, signatures: Sequence[Signature]) -> dict[str, bool]:
    """Return which outputs a request asks for, and whether as binary; or an InvalidTensorError.

    >>> wanted_outputs({"outputs": [{"name": "digit"}]}, [Signature("digit", "INT32", (-1,))])
    {'digit': False}
    """
    default = _parameters(document).get("binary_data_output", False)
    names = [signature.name for signature in signatures]
    asked = document.get("outputs")
    wanted: dict[str, bool] = {}
    for output in [] if asked is None else _checked(asked, list[bodies.WantedOutput]):
        name = output["name"]
        if name not in names or name in wanted:
            raise InvalidTensorError(
                f"The name of an output must be one of {', '.join(names)}, each once."
            )
        parameters = _parameters(output)
        if parameters.get("classification"):
            raise InvalidTensorError("The classification extension is unsupported.")
        wanted[name] = parameters.get("binary_data", default) is True
    return wanted or dict.fromkeys(names, default is True)


def write(
    answer: Json, outputs: Mapping[Signature, Values], as_binary: Mapping[str, bool]
) -> list[bytes]:
    """Return an answer's JSON, and after it the bytes of its binary tensors if there are any.

    >>> digit = Signature("digit", "INT32", (-1,))
    >>> write({}, {digit: np.array([7], np.int32)}, {"digit": False})
    [b'{"outputs":[{"name":"digit","datatype":"INT32","shape":[1],"data":[7]}]}']
    """
    by_name = {signature.name: (signature, values) for signature, values in outputs.items()}
    tensors: list[Json] = []
    pieces: list[bytes] = []
    for name, binary in as_binary.items():
        signature, values = by_name[name]
        shape = values.shape if isinstance(values, np.ndarray) else (len(values),)
        tensor = {**signature.to_json(), "shape": list(shape)}
        if binary:
            pieces.append(_to_bytes(values, signature))
            tensor["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            tensor["data"] = values.ravel().tolist() if isinstance(values, np.ndarray) else values
        tensors.append(tensor)
    return [orjson.dumps({**answer, "outputs": tensors}), *pieces]


def _checked(value: object, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidTensorError(f"The request is not as the protocol has it: {error}.") from None


def _parameters(of: Mapping[str, Any]) -> Json:
    parameters = _checked(of.get("parameters", {}), dict[str, Any])
    if any(name.startswith("shared_memory") for name in parameters):
        raise InvalidTensorError("Shared memory is unsupported; tensors come in the body.")
    found: Json = parameters
    return found


def _of_json(data: object, wanted: Signature, shape: tuple[int, ...]) -> Values:
    flat = _flattened(data, wanted.name, shape)
    if len(flat) != math.prod(shape):
        raise InvalidTensorError(
            f"{wanted.name!r} of shape {list(shape)} has {math.prod(shape)} elements; "
            f"{len(flat)} came."
        )
    if wanted.datatype == "BYTES":
        if not all(isinstance(element, str) for element in flat):
            raise InvalidTensorError(f"The data of {wanted.name!r} must be strings.")
        return flat
    if not all(type(element) in (int, float) for element in flat):
        raise InvalidTensorError(f"The data of {wanted.name!r} must be numbers.")
    # A double beyond float32 becomes infinite, which is invalid like the others.
    with np.errstate(over="ignore"):
        return np.array(flat, np.float64).astype(np.float32).reshape(shape)


def _flattened(data: object, name: str, shape: tuple[int, ...]) -> list[Any]:
    """Return the elements, in row-major order, of a list that is flat or nested like the shape."""
    if not isinstance(data, list):
        raise InvalidTensorError(f'{name!r} needs "data", a list, or binary data.')
    is_nested = bool(data) and isinstance(data[0], list)
    flat: list[Any] = data
    for length in shape[1:] if is_nested else ():
        if not all(isinstance(row, list) and len(row) == length for row in flat):
            raise InvalidTensorError(f"The data of {name!r} is not nested like its shape.")
        flat = [element for row in flat for element in row]
    return flat


def _of_bytes(binary: bytes, wanted: Signature, shape: tuple[int, ...]) -> Values:
    if wanted.datatype == "BYTES":
        return _elements(binary, math.prod(shape), wanted.name)
    numpy_type = _NUMPY[wanted.datatype]
    size = math.prod(shape) * numpy_type.itemsize
    if len(binary) != size:
        raise InvalidTensorError(
            f"{wanted.name!r} of shape {list(shape)} needs {size} bytes; {len(binary)} came."
        )
    return np.frombuffer(binary, numpy_type).reshape(shape).astype(np.float32)


def _elements(binary: bytes, count: int, name: str) -> list[bytes]:
    elements: list[bytes] = []
    at = 0
    while at + 4 <= len(binary) and len(elements) < count:
        (length,) = struct.unpack_from("<I", binary, at)
        elements.append(binary[at + 4 : at + 4 + length])
        at += 4 + length
    if at != len(binary) or len(elements) != count:
        raise InvalidTensorError(
            f"{name!r} must be {count} elements of BYTES, each after its length in 4 bytes."
        )
    return elements


def _to_bytes(values: Values, signature: Signature) -> bytes:
    if isinstance(values, np.ndarray):
        return values.astype(_NUMPY[signature.datatype]).tobytes()
    encoded = [v.encode() if isinstance(v, str) else v for v in values]
    return b"".join(struct.pack("<I", len(value)) + value for value in encoded)
