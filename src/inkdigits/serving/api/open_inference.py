"""The Open Inference Protocol v2 over REST, for two models; ``docs/api.md`` is its contract.

``mnist`` is the network of this process: standardised ink → logits, test-time augmentation
included, and calibrated probabilities. ``inkdigits`` is the whole path: encoded pictures → digit,
confidence and decision. The prediction log keeps nothing of either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from inkdigits.calibration.temperature import probabilities
from inkdigits.decision.prediction import Prediction
from inkdigits.errors import ImageError, UnknownModelError
from inkdigits.reader import DigitReader
from inkdigits.serving.api.load_shedding import ServedReader
from inkdigits.serving.api.open_inference_tensors import (
    Signature,
    Values,
    read_input,
    split,
    wanted_outputs,
    write,
)
from inkdigits.serving.api.requests import current, decode_picture, read_body, require_batch
from inkdigits.serving.monitoring.metrics import Metrics
from inkdigits.settings import Settings
from inkdigits.types import NO_DIGIT

HEADER_LENGTH: Final = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the protocol sees it; ``infer`` returns one value per output."""

    platform: str
    input: Signature
    outputs: tuple[Signature, ...]
    infer: Callable[[Values], tuple[Values, ...]]


def _ink_model(served: ServedReader) -> Model:
    def infer(values: Values) -> tuple[Values, ...]:
        with served.slot() as reader:
            assert isinstance(reader, DigitReader)  # noqa: S101  (see blueprint)
            logits = reader.logits(np.asarray(values, np.float32))
        shares = probabilities(logits, reader.metadata.temperature)
        return logits, shares.astype(np.float32)

    shape = (-1, 10)
    outputs = (Signature("logits", "FP32", shape), Signature("probabilities", "FP32", shape))
    return Model("onnx_onnxv1", Signature("ink", "FP32", (-1, 1, 28, 28)), outputs, infer)


def _picture_model(served: ServedReader, metrics: Metrics) -> Model:
    def infer(values: Values) -> tuple[Values, ...]:
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
        return (
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
        reader.check()
        answer = {"model_name": name, "model_version": reader.model_version}
        return _infer(model, answer, settings.max_batch)

    return protocol


def _named(models: Mapping[str, Model], name: str, version: str | None, served: str) -> Model:
    if name not in models:
        raise UnknownModelError(f"There is no model {name!r}, only {', '.join(models)}.")
    if version not in (None, served):
        raise UnknownModelError(f"There is no version {version!r} of {name!r}, only {served!r}.")
    return models[name]


def _infer(model: Model, answer: dict[str, Any], max_batch: int) -> Response:
    document, binary = split(read_body(request), request.headers.get(HEADER_LENGTH))
    request_id = document.get("id")
    if request_id is not None:
        answer["id"] = request_id
    values = read_input(document, binary, model.input)
    as_binary = wanted_outputs(document, model.outputs)
    require_batch(len(values), max_batch)
    outputs = dict(zip(model.outputs, model.infer(values), strict=True))
    pieces = write(answer, outputs, as_binary)
    if len(pieces) == 1:
        return Response(pieces[0], mimetype="application/json")
    response = Response(b"".join(pieces), mimetype="application/octet-stream")
    response.headers[HEADER_LENGTH] = str(len(pieces[0]))
    return response
