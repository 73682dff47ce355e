"""A reader in another process: the same interface, over HTTP to the model service.

ModelUnavailableError    the model service can't be reached, or can't answer now
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import urlencode

import numpy as np
from PIL import Image

from inkdigits.client import encoded, refusal
from inkdigits.decision.prediction import Explanation, Prediction, Reader
from inkdigits.errors import (
    ImageError,
    ModelUnavailableError,
    UnreadableImageError,
)
from inkdigits.model.artifact import ArtifactMetadata
from inkdigits.types import Picture

CONNECT_TIMEOUT_S: Final = 2.0
"""Seconds for a connection to be made."""

READ_TIMEOUT_S: Final = 15.0
"""Seconds without a byte of the answer."""

CONNECT_RETRIES: Final = 2
"""Further attempts after a connection that wasn't made; an answer that fails isn't asked again."""

UNKNOWN_VERSION: Final = "unknown"
"""The model's version until the model service has said it."""

_OTHER_SHAPE: Final = "The model service's answer is of another shape; is it of the same version?"


traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The trace that a question belongs to (W3C Trace Context), for the service to go on with."""


class RemoteReader(Reader):
    """Reads digits by asking a model service; safe for threads, not across a fork.

    Args:
        url: of the service, ``http://host:port``. Nothing is asked of it yet.
        connections: kept open for reuse, at most; more are made when more threads ask at once.
        key: the API key that the service asks for.
        risk: what ``predict`` goes by where it isn't given one; None is the service's own.
    """

    def __init__(
        self,
        url: str,
        connections: int = 16,
        key: str | None = None,
        risk: float | None = None,
    ) -> None:
        # A service that reads for itself starts without it.
        import urllib3

        self._url = url.rstrip("/")
        self._key = {} if key is None else {"X-API-Key": key}
        self._risk = risk
        self._model_version = UNKNOWN_VERSION
        self._pool = urllib3.PoolManager(
            maxsize=connections,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
            retries=urllib3.Retry(
                total=None,
                connect=CONNECT_RETRIES,
                read=0,
                redirect=0,
                status=0,
                other=0,
                backoff_factor=0.05,
            ),
        )
        self._transport_error: type[Exception] = urllib3.exceptions.HTTPError

    @property
    def model_version(self) -> str:
        """Names the artifact that last answered; UNKNOWN_VERSION before the first answer."""
        return self._model_version

    @property
    def metadata(self) -> ArtifactMetadata:
        """What the service's artifact says of itself.

        Raises:
            ModelUnavailableError: the service can't be reached or can't answer.
            ArtifactError: it answers with what can't be used here.
        """
        answer = self._answer("GET", "/api/model")
        return ArtifactMetadata.from_properties(
            {name: json.dumps(value) for name, value in answer.items()}
        )

    def close(self) -> None:
        """Close the connections that are kept; the next question opens another."""
        self._pool.clear()

    def check(self) -> None:
        """Ask whether the service can read pictures; ModelUnavailableError if it can't."""
        self._note_version(self._answer("GET", "/health"))

    def predict(self, picture: Picture, *, risk: float | None = None) -> Prediction:
        """Read one picture.

        Args:
            picture: encoded bytes go as they are, a path's file likewise; an array or an image
                is sent as PNG.
            risk: tolerated share of wrong readings among the accepted, between 0 and 1; None is
                what this reader was made with, or else the service's own.

        Raises:
            ImageError: the picture can't be read or is over a limit of the service.
            ModelUnavailableError: the service can't be reached or can't answer.
        """
        return self._prediction(self._read(picture, risk))

    def explain(self, picture: Picture, *, risk: float | None = None) -> Explanation:
        """Read one picture and have the service say what the reading rests on.

        Args:
            picture: as for ``predict``.
            risk: as for ``predict``.

        Raises:
            ImageError: the picture can't be read or is over a limit of the service.
            ModelUnavailableError: the service can't be reached or can't answer.
        """
        answer = self._read(picture, risk, explain="true")
        prediction = self._prediction(answer)
        try:
            why = answer["explanation"]
            return Explanation(
                prediction=prediction,
                saliency=np.array(why["saliency"], np.float32).reshape(prediction.ink.shape),
                runner_up=why["runner_up"],
                runner_up_probability=why["runner_up_probability"],
                overlay=base64.b64decode(why["saliency_png"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelUnavailableError(_OTHER_SHAPE) from error

    def _read(self, picture: Picture, risk: float | None, **options: str) -> dict[str, Any]:
        headers = {"Content-Type": "application/octet-stream"}
        return self._answer(
            "POST", "/predict" + self._query(risk, **options), encoded(picture), headers
        )

    def _query(self, risk: float | None, **options: str) -> str:
        stated = self._risk if risk is None else risk
        values = {"ink": "true", "record": "false", **options}
        return "?" + urlencode(values if stated is None else {**values, "risk": repr(stated)})

    def _read_each(
        self, pictures: Sequence[Picture], risk: float | None
    ) -> list[Prediction | ImageError]:
        """Read many pictures in one request."""
        if not pictures:
            return []
        texts = [base64.b64encode(encoded(picture)).decode("ascii") for picture in pictures]
        body = json.dumps({"images": texts}).encode()
        answer = self._answer(
            "POST", "/predict" + self._query(risk), body, {"Content-Type": "application/json"}
        )
        return [
            (refusal(one["error"]) or UnreadableImageError(one["error"]["message"]))
            if "error" in one
            else self._prediction(one)
            for one in answer["predictions"]
        ]

    def _answer(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        sent = {**self._key, **(headers or {})}
        trace = traceparent.get()
        if trace is not None:
            sent["traceparent"] = trace
        try:
            response = self._pool.request(method, self._url + path, body=body, headers=sent)
            answer = json.loads(response.data)
        except self._transport_error as error:
            raise ModelUnavailableError("The model service can't be reached.") from error
        except ValueError as error:
            raise ModelUnavailableError("The model service's answer isn't JSON.") from error
        if response.status == 200 and isinstance(answer, dict):
            return answer
        error_of = answer.get("error") if isinstance(answer, dict) else None
        refused = refusal(error_of) if isinstance(error_of, dict) else None
        if refused is not None and response.status < 500:
            raise refused
        raise ModelUnavailableError(f"The model service can't answer (status {response.status}).")

    def _prediction(self, answer: Mapping[str, Any]) -> Prediction:
        try:
            self._note_version(answer)
            with Image.open(io.BytesIO(base64.b64decode(answer["ink"].partition(",")[2]))) as image:
                ink = np.asarray(image.convert("L"))
            return Prediction(
                digit=answer["prediction"],
                confidence=answer["confidence"],
                probabilities=tuple(answer["probabilities"]),
                decision=answer["decision"],
                reason=answer["reason"],
                novelty=answer["novelty"],
                ink=ink,
                model_version=answer["model_version"],
                preprocessing_ms=answer["preprocessing_time_ms"],
                inference_ms=answer["inference_time_ms"],
                risk=answer.get("risk"),
                coverage=answer.get("coverage"),
            )
        except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
            raise ModelUnavailableError(_OTHER_SHAPE) from error

    def _note_version(self, answer: Mapping[str, Any]) -> None:
        self._model_version = str(answer.get("model_version", UNKNOWN_VERSION))
