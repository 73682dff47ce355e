"""``POST /predict``: from pictures to answers and to the log; ``docs/api.md`` is its contract."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from flask import Blueprint
from flask.typing import ResponseReturnValue

from inkdigits.decision.prediction import Explanation, NumberDigit, NumberReading, Prediction
from inkdigits.errors import ImageError
from inkdigits.ink.png import encode_png
from inkdigits.log.record import InputKind, Record, new_id
from inkdigits.serving.api import bodies
from inkdigits.serving.api.error_handlers import error_body, status_and_code
from inkdigits.serving.api.load_shedding import ServedReader
from inkdigits.serving.api.requests import current, decode_picture, parse_pictures, parse_wish
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
    return "data:image/png;base64," + _base64(encode_png(ink))


def _base64(png: bytes) -> str:
    return base64.b64encode(png).decode("ascii")


def keep_and_answer(
    store: Store | None,
    prediction: Prediction,
    picture: bytes | None,
    *,
    kind: InputKind,
    owner: str | None,
    with_ink: bool,
) -> bodies.Prediction:
    """Keep a prediction in the log, if there is one, and return the JSON that docs/api.md has.

    >>> import numpy as np
    >>> from inkdigits.serving.hooks import Application
    >>> blank = Prediction(None, 0.0, (0.1,) * 10, "reject", "blank", None,
    ...                    np.zeros((28, 28), np.uint8), "example", 0.2, 0.0)
    >>> with Application("example").test_request_context():
    ...     body = keep_and_answer(None, blank, None, kind="api", owner=None, with_ink=False)
    >>> body["reason"], body["kept"]
    ('blank', 'off')
    """
    name = new_id()
    body: bodies.Prediction = {
        "prediction": prediction.digit,
        "confidence": prediction.confidence,
        "probabilities": list(prediction.probabilities),
        "decision": prediction.decision,
        "reason": prediction.reason,
        "novelty": prediction.novelty,
        "model_version": prediction.model_version,
        "id": name,
        "kept": "off",
        "preprocessing_time_ms": round(prediction.preprocessing_ms, 3),
        "inference_time_ms": round(prediction.inference_ms, 3),
        "total_time_ms": 0.0,
    }
    if store is not None:
        record = Record.of(
            prediction, input_kind=kind, owner=owner, picture=picture, record_id=name
        )
        body["kept"] = store.keep(record)
    body["total_time_ms"] = current().elapsed_ms
    if prediction.risk is not None:
        body["risk"], body["coverage"] = prediction.risk, prediction.coverage
    if prediction.reason == "several_digits":
        body["hint"] = "POST /read reads a number of several digits."
    if prediction.number is not None:
        number = number_body(prediction.number, name, with_ink=with_ink)
        body["number"] = {**number, "kept": body["kept"]}
    if with_ink:
        body["ink"] = ink_url(prediction.ink)
    return body


def number_body(reading: NumberReading, name: str, *, with_ink: bool) -> bodies.Number:
    """Return the JSON of a number; ``kept`` says that the log does not have it.

    >>> nothing = NumberReading("", (), 0.0, "reject", "no_ink")
    >>> number_body(nothing, "id", with_ink=False)["reason"]
    'no_ink'
    """
    return {
        "text": reading.text,
        "confidence": reading.confidence,
        "decision": reading.decision,
        "reason": reading.reason,
        "digits": [_digit_body(digit, with_ink=with_ink) for digit in reading.digits],
        "alternatives": [{"text": t, "confidence": share} for t, share in reading.alternatives],
        "checks": [{"name": check.name, "ok": check.ok} for check in reading.checks],
        "model_version": reading.model_version,
        "id": name,
        "kept": "off",
        "total_time_ms": round(reading.total_ms, 3),
    }


def _digit_body(digit: NumberDigit, *, with_ink: bool) -> bodies.NumberDigit:
    body: bodies.NumberDigit = {
        "digit": digit.digit,
        "confidence": digit.confidence,
        "box": list(digit.box),
        "decision": digit.decision,
        "alternatives": [{"digit": d, "confidence": share} for d, share in digit.alternatives],
    }
    if with_ink:
        body["ink"] = ink_url(digit.ink)
    return body


def _explanation_body(explanation: Explanation) -> bodies.Explanation:
    return {
        "runner_up": explanation.runner_up,
        "runner_up_probability": explanation.runner_up_probability,
        "ink_png": _base64(encode_png(explanation.prediction.ink)),
        "saliency_png": _base64(explanation.overlay),
        # float32 has some 7 digits, and nobody needs the last of them.
        "saliency": [[round(value, 6) for value in row] for row in explanation.saliency.tolist()],
    }


def blueprint(
    settings: Settings, reader: ServedReader, store: Store | None, metrics: Metrics
) -> Blueprint:
    """Make the route."""
    api = Blueprint("predict", __name__)

    @api.post("/predict")
    def predict() -> ResponseReturnValue:
        asked = current()
        wish = parse_wish(asked)
        pictures, explain = parse_pictures(asked, wish, settings.max_batch)
        log = store if wish.is_recorded else None

        def answer(prediction: Prediction, picture: bytes | None) -> bodies.Prediction:
            body = keep_and_answer(
                log, prediction, picture, kind="api", owner=asked.owner, with_ink=wish.with_ink
            )
            reader.offer(body["id"], picture, prediction)
            return body

        if not isinstance(pictures, bytes):
            results = _read_batch(reader, pictures, wish.risk)
            _count_batch(metrics, results)
            return {
                "predictions": [
                    error_body(status_and_code(result)[1], str(result))
                    if isinstance(result, ImageError)
                    else answer(result, picture)
                    for picture, result in results
                ]
            }
        with reader.slot() as ready:
            explanation = ready.explain(pictures, risk=wish.risk) if explain else None
            prediction = (
                ready.predict(pictures, risk=wish.risk)
                if explanation is None
                else explanation.prediction
            )
        metrics.count_prediction(prediction)
        asked.outcome = {
            "decision": prediction.decision,
            "model_version": prediction.model_version,
        }
        body = answer(prediction, pictures)
        if explanation is not None:
            body["explanation"] = _explanation_body(explanation)
        return body

    return api


def _count_batch(
    metrics: Metrics, results: list[tuple[bytes | None, Prediction | ImageError]]
) -> None:
    failed, versions = 0, set()
    for _, result in results:
        if isinstance(result, ImageError):
            failed += 1
            metrics.count("errors", status_and_code(result)[1])
        else:
            versions.add(result.model_version)
            metrics.count_prediction(result)
    read_by = {"model_version": " ".join(sorted(versions))} if versions else {}
    current().outcome = {"pictures": len(results), "failed": failed, **read_by}


def _decoded(text: str) -> bytes | ImageError:
    try:
        return decode_picture(text)
    except ImageError as error:
        return error


def _read_batch(
    reader: ServedReader, texts: list[str], risk: float | None
) -> list[tuple[bytes | None, Prediction | ImageError]]:
    """Read a batch in order; an error of a picture comes back in that picture's place."""
    decoded = [_decoded(text) for text in texts]
    read = iter(reader.predict_each([one for one in decoded if isinstance(one, bytes)], risk))
    return [
        (picture, next(read)) if isinstance(picture, bytes) else (None, picture)
        for picture in decoded
    ]
