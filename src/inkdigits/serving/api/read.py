"""``POST /read``: from a picture to a number, or to one per region; docs/api.md is its contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Request
from flask.typing import ResponseReturnValue

from inkdigits.decision.hints import MOST_DIGITS, Hints, ReadOptions
from inkdigits.decision.prediction import Box
from inkdigits.errors import HintError, ImageTooLargeError, MissingFieldError
from inkdigits.log.record import Record, new_id
from inkdigits.serving.api.bodies import NumberPicture
from inkdigits.serving.api.load_shedding import ServedReader
from inkdigits.serving.api.predict import number_body
from inkdigits.serving.api.requests import (
    Wish,
    current,
    decode_picture,
    parse_wish,
    require_batch,
    require_known,
)
from inkdigits.serving.monitoring.metrics import Metrics
from inkdigits.settings import Settings

if TYPE_CHECKING:
    # A service that keeps no log does without SQLAlchemy, which takes 12 MB.
    from inkdigits.log.store import Store

_HINTS: Final = ("length", "min", "max", "check")
REGIONS_PER_PICTURE: Final = 4
"""A request may have this many regions for each picture that a batch may have."""


@dataclass(frozen=True, slots=True)
class NumberRequest:
    """What a request for a number asks for."""

    picture: bytes
    regions: list[Box] | None
    options: ReadOptions


def _parse_number(request: Request, wish: Wish, max_regions: int, max_pixels: int) -> NumberRequest:
    """Return the picture of a request for a number, and what it says of the number.

    Hints are in the query or in the JSON, which has precedence; ``regions`` are in the JSON.
    """
    query = request.args
    given: dict[str, Any] = {name: query[name] for name in _HINTS if name in query}
    if "length" in given:
        given["length"] = [_whole("length", part) for part in given["length"].split("-")]
    for name in {"min", "max"} & given.keys():
        given[name] = _whole(name, given[name])
    regions, picture = None, wish.content
    if not isinstance(picture, bytes):
        document = picture
        if not isinstance(document.get("image"), str):
            raise MissingFieldError('The JSON must have "image": base64 or a data URL.')
        require_known(document, NumberPicture.__annotations__, "JSON")
        given |= {name: document[name] for name in _HINTS if name in document}
        if "regions" in document:
            regions = _regions(document["regions"], max_regions, max_pixels)
        picture = decode_picture(document["image"])
    return NumberRequest(picture, regions, {**_checked_hints(given), "risk": wish.risk})


def _checked_hints(given: dict[str, Any]) -> ReadOptions:
    for name in ("min", "max"):
        if given.get(name) is not None and type(given[name]) is not int:
            raise HintError(f'"{name}" must be a whole number.')
    length = given.get("length")
    numbers: list[Any] = length if isinstance(length, list) else [length]
    lengths: tuple[int, int] | None = None
    if length is not None:
        if not 1 <= len(numbers) <= 2 or not all(type(number) is int for number in numbers):
            raise HintError('"length" must be a whole number, or the fewest and the most.')
        lengths = numbers[0], numbers[-1]
    options: ReadOptions = {
        "length": lengths,
        "min": given.get("min"),
        "max": given.get("max"),
        "check": given.get("check"),
    }
    Hints.of(options)
    return options


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
        form = "a number or a range, such as 5 or 3-8" if name == "length" else "a whole number"
        raise HintError(f'"{name}" in the query must be {form}.')
    return int(text)


def _regions(found: Any, max_regions: int, max_pixels: int) -> list[Box]:
    good = isinstance(found, list) and found and all(
        isinstance(box, list) and len(box) == 4 and all(type(side) is int for side in box)
        for box in found
    )  # fmt: skip
    if not good:
        raise HintError('"regions" must be a list of [left, top, width, height] in pixels.')
    require_batch(len(found), max_regions)
    # Each is searched for ink: a hundred times the whole picture would take half a minute.
    pixels = sum(abs(width * height) for _, _, width, height in found)
    if pixels > max_pixels:
        raise ImageTooLargeError(
            f"The regions have {pixels:,} pixels together; the limit is {max_pixels:,}. "
            "Send several requests."
        )
    return [(box[0], box[1], box[2], box[3]) for box in found]


def blueprint(
    settings: Settings, reader: ServedReader, store: Store | None, metrics: Metrics
) -> Blueprint:
    """Make the route."""
    api = Blueprint("read", __name__)

    @api.post("/read")
    def read() -> ResponseReturnValue:
        asked = current()
        wish = parse_wish(asked)
        most = REGIONS_PER_PICTURE * settings.max_batch
        number = _parse_number(asked, wish, most, settings.max_pixels)
        with reader.slot() as ready:
            if number.regions is None:
                readings = [ready.read(number.picture, **number.options)]
            else:
                readings = ready.read_regions(number.picture, number.regions, **number.options)
        answers = []
        for reading in readings:
            metrics.count_number(reading)
            name = new_id()
            body = number_body(reading, name, with_ink=wish.with_ink)
            if store is not None and wish.is_recorded:
                picture = number.picture if number.regions is None else None
                record = Record.of(reading, owner=asked.owner, picture=picture, record_id=name)
                body["kept"] = store.keep(record)
            answers.append(body)
        asked.outcome = {"numbers": len(answers), "model_version": readings[0].model_version}
        if number.regions is not None:
            return {"fields": answers}
        answers[0]["total_time_ms"] = asked.elapsed_ms
        return dict(answers[0])

    return api
