"""The review page: one picture after another, one key per label; for the operator and reviewers."""

from __future__ import annotations

import io
from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, send_file, url_for
from flask.typing import ResponseReturnValue
from PIL import Image

from inkdigits.errors import MissingFieldError, RecordNotFoundError
from inkdigits.ink.decode import Limits, read_luminance
from inkdigits.ink.png import encode_png
from inkdigits.log.record import Record
from inkdigits.log.store import Store
from inkdigits.serving.api.predict import ink_url
from inkdigits.serving.web.session import Operator
from inkdigits.settings import Settings
from inkdigits.types import Json

_WHY = {  # a picture is in the queue, in words
    "rejected": "The picture was rejected",
    "unsure": "The model is not sure",
    "differs": "Two models read the picture differently",
    "audit": "The reading was accepted and is part of the random audit",
}
_SIDE = 640  # of a kept picture on the page, in pixels at most
_AT_ONCE = 60


def add_review(web: Blueprint, store: Store, operator: Operator, settings: Settings) -> None:
    """Add the page's routes."""
    limits = Limits(max_bytes=settings.max_bytes, max_pixels=settings.max_pixels)

    def who() -> str:
        name = operator.reviewer(request)
        if name is None:
            abort(403, "Only the operator and reviewers may label pictures. Sign in.")
        return name

    @web.get("/review")
    def review() -> ResponseReturnValue:
        name = operator.reviewer(request)
        if name is None:
            return redirect(url_for("web.sign_in"), 303) if operator.exists else abort(404)
        progress = store.reviews.progress(name)
        return render_template("review.html", progress=progress, name=name)

    @web.get("/review/queue")
    def review_queue() -> ResponseReturnValue:
        name = who()
        why, after = request.args.get("why") or None, request.args.get("after") or None
        found = store.reviews.next(name, why=why, after=after, limit=_AT_ONCE)
        items = [_item(record, has_picture) for record, has_picture in found]
        return {"items": items, "progress": _progress(store, name)}

    @web.post("/review/<record_id>")
    def review_label(record_id: str) -> ResponseReturnValue:
        name = who()
        if "label" not in request.form:
            raise MissingFieldError('The form has no field "label"; nothing was changed.')
        record = store.reviews.give(record_id, name, request.form["label"])
        return {"id": record.id, "label": record.label, "progress": _progress(store, name)}

    @web.post("/review/<record_id>/undo")
    def review_undo(record_id: str) -> ResponseReturnValue:
        name = who()
        record = store.reviews.undo(record_id, name)
        return {"id": record.id, "label": record.label, "progress": _progress(store, name)}

    @web.get("/review/<record_id>/picture")
    def review_picture(record_id: str) -> ResponseReturnValue:
        who()
        picture = store.get(record_id).picture
        if picture is None:
            raise RecordNotFoundError("The picture was not kept.")
        grey = Image.fromarray(read_luminance(picture, limits).grey.astype("uint8"))
        grey.thumbnail((_SIDE, _SIDE))
        return send_file(io.BytesIO(encode_png(grey)), mimetype="image/png")


def _item(record: Record, has_picture: bool) -> Json:
    """Return what the page shows of a record; what others said of it stays out."""
    shares = sorted(enumerate(record.probabilities), key=lambda pair: -pair[1])
    runner_up = shares[1] if record.digits is None and record.digit is not None else None
    why = _WHY.get(record.queued or "", "The picture is in the queue")
    why += f": {record.reason.replace('_', ' ')}." if record.reason else "."
    return {
        "id": record.id,
        "read": record.read,
        "is_number": record.digits is not None or record.reason == "several_digits",
        "confidence": record.confidence,
        "is_closest": record.decision == "reject" and record.digits is None,
        "runner_up": None if runner_up is None else {"digit": runner_up[0], "share": runner_up[1]},
        "shadow": record.shadow and record.shadow.get("text"),
        "why": why,
        "inks": [ink_url(ink) for ink in record.inks],
        "picture": url_for("web.review_picture", record_id=record.id) if has_picture else None,
    }


def _progress(store: Store, name: str) -> dict[str, Any]:
    progress = store.reviews.progress(name)
    done, agreed = progress.labelled.get(name, (0, 0))
    return {"left": progress.left, "due": progress.due, "done": done, "agreed": agreed}
