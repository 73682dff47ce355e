"""``POST /predict``: a picture, or several, to what was read; ``docs/api.md`` is its contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Blueprint, g, request
from flask.typing import ResponseReturnValue

from inkdigits.decision.prediction import Prediction, Reader
from inkdigits.errors import ImageError
from inkdigits.log.ids import new_id
from inkdigits.serving.api import bodies
from inkdigits.serving.api.error_handlers import status_and_code
from inkdigits.serving.api.load_shedding import ServedReader
from inkdigits.serving.api.requests import decode_picture, flag, parse_reading
from inkdigits.serving.api.responses import error_body, explanation_body, keep, prediction_body
from inkdigits.serving.monitoring.metrics import Metrics
from inkdigits.settings import Settings

if TYPE_CHECKING:
    # A service that keeps no log does without SQLAlchemy, which takes 12 MB.
    from inkdigits.log.store import Store


def blueprint(
    settings: Settings,
    reader: ServedReader,
    store: Store | None,
    metrics: Metrics,
    check: Callable[[], None],
) -> Blueprint:
    """The route.

    Args:
        settings: the limit on pictures of a request.
        reader: what reads the digits.
        store: the log that keeps the predictions; None keeps none.
        metrics: where the pictures are counted.
        check: raises unless pictures can be read.
    """
    api = Blueprint("predict", __name__)

    @api.post("/predict")
    def predict() -> ResponseReturnValue:
        check()
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
