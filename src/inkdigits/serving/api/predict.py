"""``POST /predict``: from pictures to answers and to the log; ``docs/api.md`` is its contract."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from flask import Blueprint, g, request
from flask.typing import ResponseReturnValue

from inkdigits.decision.prediction import Explanation, Prediction, Reader
from inkdigits.errors import ImageError
from inkdigits.ink.png import encode_png
from inkdigits.log.record import InputKind, Kept, Record, new_id
from inkdigits.serving.api import bodies
from inkdigits.serving.api.error_handlers import error_body, status_and_code
from inkdigits.serving.api.health import Readiness
from inkdigits.serving.api.load_shedding import ServedReader, elapsed_ms
from inkdigits.serving.api.requests import decode_picture, flag, parse_reading
from inkdigits.serving.monitoring.metrics import Metrics
from inkdigits.settings import Settings
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


def prediction_body(
    prediction: Prediction, prediction_id: str, kept: Kept, *, with_ink: bool
) -> bodies.Prediction:
    """Return the JSON of a prediction, as ``docs/api.md`` has it.

    >>> import time
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


def blueprint(
    settings: Settings,
    reader: ServedReader,
    store: Store | None,
    metrics: Metrics,
    readiness: Readiness | None,
) -> Blueprint:
    """Make the route.

    Args:
        settings: the limit on pictures of a request.
        reader: what reads the digits.
        store: the log that keeps the predictions; None keeps none.
        metrics: where the pictures are counted.
        readiness: of a reader in this process. A model service that is unavailable says so itself
            when it is asked to read.
    """
    api = Blueprint("predict", __name__)

    @api.post("/predict")
    def predict() -> ResponseReturnValue:
        if readiness is not None and not readiness.is_ready:
            readiness.require()
        # Through Flask's stand-in each use of the request costs a lookup.
        asked = request._get_current_object()  # type: ignore[attr-defined]
        with_ink = flag(asked, "ink", default=False)
        log = store if flag(asked, "record", default=True) else None
        wish = parse_reading(asked, settings.max_batch)

        def answer(prediction: Prediction, picture: bytes | None) -> bodies.Prediction:
            name = new_id()
            kept = keep(log, prediction, name, kind="api", owner=None, picture=picture)
            return prediction_body(prediction, name, kept, with_ink=with_ink)

        if not isinstance(wish.pictures, bytes):
            decoded = [_decoded(text) for text in wish.pictures]
            with reader.slot() as ready:
                results = _read_batch(ready, decoded, wish.risk)
            _count_batch(metrics, results)
            return {
                "predictions": [
                    error_body(status_and_code(result)[1], str(result))
                    if isinstance(result, ImageError)
                    else answer(result, picture)
                    for picture, result in results
                ]
            }
        if wish.explain:
            with reader.slot() as ready:
                explanation = ready.explain(wish.pictures, risk=wish.risk)
            _count(metrics, explanation.prediction)
            body = answer(explanation.prediction, wish.pictures)
            return {**body, "explanation": explanation_body(explanation)}
        with reader.slot() as ready:
            prediction = ready.predict(wish.pictures, risk=wish.risk)
        _count(metrics, prediction)
        return answer(prediction, wish.pictures)

    return api


def _count(metrics: Metrics, prediction: Prediction) -> None:
    metrics.count_prediction(prediction)
    g.outcome = {"decision": prediction.decision}


def _count_batch(
    metrics: Metrics, results: list[tuple[bytes | None, Prediction | ImageError]]
) -> None:
    failed = 0
    for _, result in results:
        if isinstance(result, ImageError):
            failed += 1
            metrics.count_error(status_and_code(result)[1])
        else:
            metrics.count_prediction(result)
    g.outcome = {"pictures": len(results), "failed": failed}


def _decoded(text: str) -> bytes | ImageError:
    try:
        return decode_picture(text)
    except ImageError as error:
        return error


def _read_batch(
    reader: Reader, decoded: list[bytes | ImageError], risk: float | None
) -> list[tuple[bytes | None, Prediction | ImageError]]:
    """Read a batch in order; an error of a picture comes back in that picture's place."""
    pictures = [picture for picture in decoded if isinstance(picture, bytes)]
    read = iter(reader.predict_batch(pictures, on_error="return", risk=risk) if pictures else ())
    return [
        (picture, next(read)) if isinstance(picture, bytes) else (None, picture)
        for picture in decoded
    ]
