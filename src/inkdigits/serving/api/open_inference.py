"""The Open Inference Protocol v2 over REST, for two models; ``docs/api.md`` is its contract.

``mnist`` is the network without preprocessing: standardised ink → logits, second looks included,
and calibrated probabilities. It is there where the model is in this process. ``inkdigits`` is all
of it: encoded pictures → digit, confidence and decision. Nothing of either is kept in the
prediction log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from flask import Blueprint, Response, g, request
from flask.typing import ResponseReturnValue

from inkdigits.calibration.temperature import probabilities
from inkdigits.decision.prediction import Reader
from inkdigits.errors import (
    InvalidTensorError,
    TooManyPicturesError,
    UnknownModelError,
)
from inkdigits.reader import DigitReader
from inkdigits.serving.api import requests as payload
from inkdigits.serving.api.open_inference_tensors import (
    Output,
    Signature,
    Values,
    decompress,
    read_input,
    split,
    wanted_outputs,
    write,
)
from inkdigits.serving.monitoring.metrics import Metrics
from inkdigits.settings import Settings
from inkdigits.types import NO_DIGIT

Check: TypeAlias = Callable[[], None]
Outputs: TypeAlias = dict[str, Output]

PREFIX: Final = "/v2"
EXTENSIONS: Final = ("binary_tensor_data",)
HEADER_LENGTH: Final = "Inference-Header-Content-Length"


class Model(Protocol):
    """A model as the protocol sees it."""

    input: ClassVar[Signature]
    outputs: ClassVar[tuple[Signature, ...]]
    platform: ClassVar[str]

    def infer(self, values: Values) -> Outputs:
        """The outputs of one request's input."""


@dataclass(frozen=True)
class InkModel:
    """Standardised ink → logits and probabilities."""

    reader: DigitReader
    input: ClassVar[Signature] = Signature("ink", "FP32", (-1, 1, 28, 28))
    outputs: ClassVar[tuple[Signature, ...]] = (
        Signature("logits", "FP32", (-1, 10)),
        Signature("probabilities", "FP32", (-1, 10)),
    )
    platform: ClassVar[str] = "onnx_onnxv1"

    def infer(self, values: Values) -> Outputs:
        """Run the network on (N, 1, 28, 28) float32."""
        assert isinstance(values, np.ndarray)  # noqa: S101  (as read_input gives FP32)
        logits = self.reader.logits(values)
        shares = probabilities(logits, self.reader.metadata.temperature).astype(np.float32)
        arrays = zip(self.outputs, (logits, shares), strict=True)
        return {s.name: Output(s, array.shape, array) for s, array in arrays}


@dataclass(frozen=True)
class PictureModel:
    """Encoded pictures → digit, confidence and decision."""

    reader: Reader
    metrics: Metrics
    input: ClassVar[Signature] = Signature("picture", "BYTES", (-1,))
    outputs: ClassVar[tuple[Signature, ...]] = (
        Signature("digit", "INT32", (-1,)),
        Signature("confidence", "FP32", (-1,)),
        Signature("decision", "BYTES", (-1,)),
    )
    platform: ClassVar[str] = "inkdigits"

    def infer(self, values: Values) -> Outputs:
        """Read pictures: bytes as they are, text as base64 or a data URL."""
        assert isinstance(values, list)  # noqa: S101  (as read_input gives BYTES)
        pictures = [v if isinstance(v, bytes) else payload.decode_picture(v) for v in values]
        read = self.reader.predict_batch(pictures)
        for prediction in read:
            self.metrics.count_prediction(prediction)
        g.outcome = {"pictures": len(read)}
        digits = [NO_DIGIT if p.digit is None else p.digit for p in read]
        columns: tuple[npt.NDArray[np.int32] | npt.NDArray[np.float32] | list[str], ...] = (
            np.array(digits, np.int32),
            np.array([p.confidence for p in read], np.float32),
            [str(p.decision) for p in read],
        )
        shape = (len(read),)
        return {
            s.name: Output(s, shape, column)
            for s, column in zip(self.outputs, columns, strict=True)
        }


def blueprint(
    settings: Settings,
    reader: Reader,
    metrics: Metrics,
    check: Check,
    proceed: Check,
    version: str,
) -> Blueprint:
    """The protocol's routes.

    Args:
        settings: limits on bytes, decompressed ones too, and on the first dimension.
        reader: what reads the digits.
        metrics: where the pictures are counted.
        check: raises unless pictures can be read.
        proceed: raises unless a request that is here should still be answered.
        version: of the package.
    """
    protocol = Blueprint("open_inference", __name__, url_prefix=PREFIX)
    models: Mapping[str, Model] = {"inkdigits": PictureModel(reader, metrics)}
    if isinstance(reader, DigitReader):
        models = {**models, "mnist": InkModel(reader)}

    def named(name: str, model_version: str | None) -> Model:
        if name not in models:
            raise UnknownModelError(f"There is no model {name!r}, only {', '.join(models)}.")
        if model_version not in (None, reader.model_version):
            raise UnknownModelError(
                f"There is no version {model_version!r} of {name!r}, only {reader.model_version!r}."
            )
        return models[name]

    @protocol.get("")
    def server() -> ResponseReturnValue:
        return {"name": "inkdigits", "version": version, "extensions": list(EXTENSIONS)}

    @protocol.get("/health/live")
    def live() -> ResponseReturnValue:
        return {"live": True}

    @protocol.get("/health/ready")
    def ready() -> ResponseReturnValue:
        check()
        return {"ready": True}

    @protocol.get("/models/<name>")
    @protocol.get("/models/<name>/versions/<model_version>")
    def model(name: str, model_version: str | None = None) -> ResponseReturnValue:
        found = named(name, model_version)
        return {
            "name": name,
            "versions": [reader.model_version],
            "platform": found.platform,
            "inputs": [found.input.to_json()],
            "outputs": [signature.to_json() for signature in found.outputs],
        }

    @protocol.get("/models/<name>/ready")
    @protocol.get("/models/<name>/versions/<model_version>/ready")
    def model_ready(name: str, model_version: str | None = None) -> ResponseReturnValue:
        named(name, model_version)
        check()
        return {"name": name, "ready": True}

    @protocol.post("/models/<name>/infer")
    @protocol.post("/models/<name>/versions/<model_version>/infer")
    def infer(name: str, model_version: str | None = None) -> ResponseReturnValue:
        found = named(name, model_version)
        check()
        encoding = request.headers.get("Content-Encoding", "")
        body = decompress(payload.body(request), encoding, settings.max_bytes)
        document, binary = split(body, request.headers.get(HEADER_LENGTH))
        request_id = document.get("id")
        if not (request_id is None or isinstance(request_id, str)):
            raise InvalidTensorError('"id" must be a string.')
        as_binary = wanted_outputs(document, found.outputs)
        values = read_input(document, binary, found.input)
        if len(values) > settings.max_batch:
            raise TooManyPicturesError(
                f"The request carries {len(values)} pictures; the limit is {settings.max_batch}."
            )
        proceed()
        answer: dict[str, Any] = {"model_name": name, "model_version": reader.model_version}
        if request_id is not None:
            answer["id"] = request_id
        pieces = write(answer, found.infer(values), as_binary)
        if len(pieces) == 1:
            return Response(pieces[0], mimetype="application/json")
        response = Response(b"".join(pieces), mimetype="application/octet-stream")
        response.headers[HEADER_LENGTH] = str(len(pieces[0]))
        return response

    return protocol
