"""From a prediction to the answer that a client gets and the record that the log keeps."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING

from flask import g

from inkdigits.decision.prediction import Explanation, Prediction
from inkdigits.ink.png import encode_png
from inkdigits.log.record import InputKind, Kept, Record
from inkdigits.serving.api import bodies
from inkdigits.types import Ink

if TYPE_CHECKING:
    # A service that keeps no log does without SQLAlchemy, which takes 12 MB.
    from inkdigits.log.store import Store


def ink_url(ink: Ink) -> str:
    """Return ink (28, 28) as a grey PNG in a data URL.

    >>> import numpy as np
    >>> ink_url(np.zeros((28, 28), np.uint8))[:26]
    'data:image/png;base64,iVBO'
    """
    return "data:image/png;base64," + _base64_png(ink)


def _base64_png(ink: Ink) -> str:
    return base64.b64encode(encode_png(ink)).decode("ascii")


def elapsed_ms() -> float:
    """Return the milliseconds since the request began, to the microsecond.

    >>> from flask import Flask
    >>> with Flask("example").app_context():
    ...     g.began = time.perf_counter()
    ...     elapsed_ms() >= 0
    True
    """
    began: float = g.began
    return round((time.perf_counter() - began) * 1000, 3)


def prediction_body(
    prediction: Prediction, prediction_id: str, kept: Kept, *, with_ink: bool
) -> bodies.Prediction:
    """Return the JSON of a prediction, as ``docs/api.md`` has it.

    >>> import numpy as np
    >>> from flask import Flask
    >>> blank = Prediction(None, 0.0, (0.1,) * 10, "reject", "blank", None,
    ...                    np.zeros((28, 28), np.uint8), "example", 0.2, 0.0)
    >>> with Flask("example").app_context():
    ...     g.began = time.perf_counter()
    ...     prediction_body(blank, "an-id", "off", with_ink=False)["reason"]
    'blank'

    Args:
        prediction: what was read.
        prediction_id: under which the log keeps it, if it does.
        kept: where it is kept.
        with_ink: whether to add the 28x28 picture that the model saw.
    """
    body: bodies.Prediction = {
        "prediction": prediction.digit,
        "confidence": prediction.confidence,
        "probabilities": list(prediction.probabilities),
        "decision": prediction.decision,
        "reason": prediction.reason,
        "novelty": prediction.novelty,
        "model_version": prediction.model_version,
        "id": prediction_id,
        "kept": kept,
        "preprocessing_time_ms": round(prediction.preprocessing_ms, 3),
        "inference_time_ms": round(prediction.inference_ms, 3),
        "total_time_ms": elapsed_ms(),
    }
    if prediction.risk is not None:
        body["risk"], body["coverage"] = prediction.risk, prediction.coverage
    if with_ink:
        body["ink"] = ink_url(prediction.ink)
    return body


def explanation_body(explanation: Explanation) -> bodies.Explanation:
    """Return the JSON of an explanation, as ``docs/api.md`` has it.

    >>> import numpy as np
    >>> blank = np.zeros((28, 28), np.uint8)
    >>> read = Prediction(None, 0.0, (0.1,) * 10, "reject", "blank", None, blank, "example", 0, 0)
    >>> why = Explanation(read, blank.astype(np.float32), None, 0.1, overlay=b"")
    >>> explanation_body(why)["runner_up_probability"]
    0.1
    """
    return {
        "runner_up": explanation.runner_up,
        "runner_up_probability": explanation.runner_up_probability,
        "ink_png": _base64_png(explanation.prediction.ink),
        "saliency_png": base64.b64encode(explanation.overlay).decode("ascii"),
        # float32 has some 7 digits, and nobody needs the last of them.
        "saliency": [[round(value, 6) for value in row] for row in explanation.saliency.tolist()],
    }


def error_body(code: str, message: str) -> bodies.Error:
    """Return the JSON of an error.

    >>> error_body("empty_body", "The request has no body.")["error"]["code"]
    'empty_body'
    """
    return {"error": {"code": code, "message": message}}


def keep(
    store: Store | None,
    prediction: Prediction,
    prediction_id: str,
    *,
    kind: InputKind,
    owner: str | None,
    picture: bytes | None,
) -> Kept:
    """Keep a prediction in the log, if there is one, and return where it is kept.

    >>> keep(None, None, "an-id", kind="api", owner=None, picture=None)
    'off'
    """
    if store is None:
        return "off"
    return store.keep(
        Record.of(
            prediction,
            input_kind=kind,
            owner=owner,
            picture=picture,
            record_id=prediction_id,
        )
    )
