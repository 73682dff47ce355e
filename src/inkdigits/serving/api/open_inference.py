"""The Open Inference Protocol v2 over REST, for two models; ``docs/api.md`` is its contract.

``mnist`` is the network of this process: standardised ink → logits, test-time augmentation
included, and calibrated probabilities. ``inkdigits`` is the whole path: encoded pictures → digit,
confidence and decision. The prediction log keeps nothing of either.

The protocol is github.com/kserve/open-inference-protocol. With Triton's binary extension
(triton-inference-server/server, extension_binary_data.md) the JSON, whose length a header
announces, is followed by the bytes of the tensors in their order.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import orjson
from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from inkdigits.calibration.temperature import probabilities
from inkdigits.decision.prediction import Prediction
from inkdigits.errors import ImageError, InvalidTensorError, UnknownModelError
from inkdigits.reader import DigitReader
from inkdigits.serving.api import bodies
from inkdigits.serving.api.load_shedding import ServedReader
from inkdigits.serving.api.requests import current, decode_picture, read_body, require_batch
from inkdigits.serving.monitoring.metrics import Metrics
from inkdigits.settings import Settings
from inkdigits.types import NO_DIGIT, Floats, Json

HEADER_LENGTH: Final = "Inference-Header-Content-Length"

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


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the protocol sees it; ``infer`` returns its version, and a value per output."""

    platform: str
    input: Signature
    outputs: tuple[Signature, ...]
    infer: Callable[[Values], tuple[str, Sequence[Values]]]


def _ink_model(served: ServedReader) -> Model:
    def infer(values: Values) -> tuple[str, Sequence[Values]]:
        with served.slot() as reader:
            assert isinstance(reader, DigitReader)  # noqa: S101  (see blueprint)
            logits = reader.logits(np.asarray(values, np.float32))
        shares = probabilities(logits, reader.metadata.temperature)
        return reader.model_version, (logits, shares.astype(np.float32))

    shape = (-1, 10)
    outputs = (Signature("logits", "FP32", shape), Signature("probabilities", "FP32", shape))
    return Model("onnx_onnxv1", Signature("ink", "FP32", (-1, 1, 28, 28)), outputs, infer)


def _picture_model(served: ServedReader, metrics: Metrics) -> Model:
    def infer(values: Values) -> tuple[str, Sequence[Values]]:
        # Bytes are pictures as they are; texts are base64 or data URLs.
        pictures = [v if isinstance(v, bytes) else decode_picture(str(v)) for v in values]
        read: list[Prediction] = []
        for result in served.predict_each(pictures):
            if isinstance(result, ImageError):
                raise result
            read.append(result)
        for prediction in read:
            metrics.count_prediction(prediction)
        current().outcome = {"pictures": len(read), "model_version": read[-1].model_version}
        return read[-1].model_version, (
            np.array([NO_DIGIT if p.digit is None else p.digit for p in read], np.int32),
            np.array([p.confidence for p in read], np.float32),
            [str(p.decision) for p in read],
        )

    outputs = (
        Signature("digit", "INT32", (-1,)),
        Signature("confidence", "FP32", (-1,)),
        Signature("decision", "BYTES", (-1,)),
    )
    return Model("inkdigits", Signature("picture", "BYTES", (-1,)), outputs, infer)


def blueprint(
    settings: Settings, reader: ServedReader, metrics: Metrics, version: str
) -> Blueprint:
    """Make the routes."""
    protocol = Blueprint("open_inference", __name__, url_prefix="/v2")
    models = {"inkdigits": _picture_model(reader, metrics)}
    if isinstance(reader.current, DigitReader):
        models["mnist"] = _ink_model(reader)

    @protocol.get("")
    def server() -> ResponseReturnValue:
        return {"name": "inkdigits", "version": version, "extensions": ["binary_tensor_data"]}

    @protocol.get("/health/live")
    def live() -> ResponseReturnValue:
        return {"live": True}

    @protocol.get("/health/ready")
    def ready() -> ResponseReturnValue:
        reader.check()
        return {"ready": True}

    @protocol.get("/models/<name>")
    @protocol.get("/models/<name>/versions/<model_version>")
    def metadata(name: str, model_version: str | None = None) -> ResponseReturnValue:
        model = _named(models, name, model_version, reader.model_version)
        return {
            "name": name,
            "versions": [reader.model_version],
            "platform": model.platform,
            "inputs": [model.input.to_json()],
            "outputs": [signature.to_json() for signature in model.outputs],
        }

    @protocol.get("/models/<name>/ready")
    @protocol.get("/models/<name>/versions/<model_version>/ready")
    def model_ready(name: str, model_version: str | None = None) -> ResponseReturnValue:
        _named(models, name, model_version, reader.model_version)
        reader.check()
        return {"name": name, "ready": True}

    @protocol.post("/models/<name>/infer")
    @protocol.post("/models/<name>/versions/<model_version>/infer")
    def infer(name: str, model_version: str | None = None) -> ResponseReturnValue:
        model = _named(models, name, model_version, reader.model_version)
        return _infer(name, model, settings.max_batch)

    return protocol


def _named(models: Mapping[str, Model], name: str, version: str | None, served: str) -> Model:
    if name not in models:
        raise UnknownModelError(f"There is no model {name!r}, only {', '.join(models)}.")
    if version not in (None, served):
        raise UnknownModelError(f"There is no version {version!r} of {name!r}, only {served!r}.")
    return models[name]


def _infer(name: str, model: Model, max_batch: int) -> Response:
    document, binary = _split(read_body(request), request.headers.get(HEADER_LENGTH))
    values = _read_input(document, binary, model.input)
    as_binary = _wanted_outputs(document, model.outputs)
    require_batch(len(values), max_batch)
    # Another model may have taken the place of the one that was there when the request came.
    version, found = model.infer(values)
    answer = {"model_name": name, "model_version": version}
    if "id" in document:
        answer["id"] = document["id"]
    outputs = dict(zip(model.outputs, found, strict=True))
    pieces = _write(answer, outputs, as_binary)
    if len(pieces) == 1:
        return Response(pieces[0], mimetype="application/json")
    response = Response(b"".join(pieces), mimetype="application/octet-stream")
    response.headers[HEADER_LENGTH] = str(len(pieces[0]))
    return response


def _split(body: bytes, header_length: str | None) -> tuple[Json, bytes]:
    """Return a request's JSON, and the bytes of its tensors."""
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


def _read_input(document: Json, binary: bytes, wanted: Signature) -> Values:
    """Return the one input of a model: float32; of BYTES, ``bytes`` or, from JSON, ``str``."""
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


def _wanted_outputs(document: Json, signatures: Sequence[Signature]) -> dict[str, bool]:
    """Return which outputs a request asks for, and whether as binary; or an InvalidTensorError."""
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


def _write(
    answer: Json, outputs: Mapping[Signature, Values], as_binary: Mapping[str, bool]
) -> list[bytes]:
    """Return an answer's JSON, and after it the bytes of its binary tensors if there are any."""
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
        raise InvalidTensorError(f"The request does not follow the protocol: {error}.") from None


def _parameters(of: Mapping[str, Any]) -> Json:
    parameters = _checked(of.get("parameters", {}), dict[str, Any])
    if any(name.startswith("shared_memory") for name in parameters):
        raise InvalidTensorError("Shared memory is unsupported; tensors come in the body.")
    found: Json = parameters
    return found


def _of_json(data: object, wanted: Signature, shape: tuple[int, ...]) -> Values:
    if not isinstance(data, list):
        raise InvalidTensorError(f'{wanted.name!r} needs "data", a list, or binary data.')
    # In row-major order, flat or nested like the shape; rows of different lengths stay lists.
    try:
        elements = np.array(data, object)
    except ValueError:
        elements = np.array([])
    if elements.shape not in (shape, (math.prod(shape),)):
        raise InvalidTensorError(
            f"The data of {wanted.name!r} must have the {math.prod(shape)} elements of its shape "
            f"{list(shape)}, as a flat list or nested like it."
        )
    flat = elements.ravel().tolist()
    if wanted.datatype == "BYTES":
        if not all(isinstance(element, str) for element in flat):
            raise InvalidTensorError(f"The data of {wanted.name!r} must be strings.")
        return list(flat)
    if not all(type(element) in (int, float) for element in flat):
        raise InvalidTensorError(f"The data of {wanted.name!r} must be numbers.")
    # A double beyond float32 becomes infinite, which is invalid like the others.
    with np.errstate(over="ignore"):
        return np.array(flat, np.float64).astype(np.float32).reshape(shape)


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
