"""``POST /predictions/<id>/feedback``: what a picture really shows; the page uses it too."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Request
from flask.typing import ResponseReturnValue

from inkdigits import errors
from inkdigits.log.record import Owner
from inkdigits.serving.api import bodies
from inkdigits.serving.api.requests import ServedRequest, current, read_body
from inkdigits.types import Json

if TYPE_CHECKING:
    # A service that keeps no log does without SQLAlchemy, which takes 12 MB.
    from inkdigits.log.store import Store

MAX_BYTES: Final = 1024
"""Bytes that feedback may have; a number of 64 digits needs 77."""

_MEANING: Final = '"label" must be a digit 0 to 9, the digits of a number as text, "none" or null'


def blueprint(
    store: Store | None, giver: Callable[[ServedRequest], tuple[Owner, str]]
) -> Blueprint:
    """Make the route; ``giver`` says whose predictions a request may label, and who it is."""
    api = Blueprint("feedback", __name__)

    @api.post("/predictions/<record_id>/feedback")
    def feedback(record_id: str) -> ResponseReturnValue:
        asked = current()
        label = _parse(asked)
        if store is None:
            raise errors.RecordNotFoundError("This service does not keep predictions.")
        owner, name = giver(asked)
        return dict(apply_feedback(store, record_id, label, name, owner))

    return api


def apply_feedback(
    store: Store, record_id: str, label: str | None, giver: str, owner: Owner
) -> bodies.Feedback:
    """Set or clear (None) the label of an owner's prediction, and return the answer.

    >>> from types import SimpleNamespace as Fake
    >>> found = Fake(id="7", label="3", was_right=True)
    >>> apply_feedback(Fake(give_feedback=lambda *_, **__: found), "7", "3", "api", "key:ada")
    {'id': '7', 'label': '3', 'was_right': True}
    """
    found = store.give_feedback(record_id, label, giver, owner=owner)
    return {"id": found.id, "label": found.label, "was_right": found.was_right}


def _parse(request: Request) -> str | None:
    """Return the label that a request brings as JSON, or None to clear it."""
    kind = request.mimetype
    body = read_body(request)
    if not (kind == "application/json" or kind.endswith("+json")):
        raise errors.UnsupportedMediaTypeError(
            f"Content-Type {kind or '(none)'} is unsupported; send application/json."
        )
    if len(body) > MAX_BYTES:
        raise errors.BodyTooLargeError(f'Feedback may have {MAX_BYTES:,} bytes. Send only "label".')
    try:
        document = json.loads(body, object_pairs_hook=_without_repetitions)
    except (ValueError, RecursionError):
        raise errors.InvalidJsonError("The body is not valid JSON.") from None
    if not isinstance(document, dict):
        raise errors.WrongShapeError("The JSON must be an object.")
    if "label" not in document:
        raise errors.MissingFieldError(f"The JSON has no field: {_MEANING}.")
    unknown = sorted(document.keys() - {"label"})
    if unknown:
        raise errors.WrongShapeError(f'Send only "label"; {unknown[0][:64]!r} is unknown.')
    return _label(document["label"])


def _label(label: object) -> str | None:
    # True is an int too; 7.0 is none, though equal to one.
    if type(label) is int and 0 <= label <= 9:
        return str(label)
    if label is None or isinstance(label, str):
        return label
    raise errors.WrongShapeError(f"{_MEANING}.")


def _without_repetitions(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field is repeated")
    return found
