"""A record of the prediction log: what was read, when, of what, and what it really was."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from inkdigits.decision.hints import MOST_DIGITS
from inkdigits.decision.policy import Decision, NumberReason, Reason
from inkdigits.decision.prediction import NumberReading, Prediction
from inkdigits.errors import RecordError
from inkdigits.types import NO_DIGIT, NO_DIGIT_LABEL, Ink, Json

Kept: TypeAlias = Literal["database", "outbox", "off", "lost"]
"""Where a prediction is kept: in the database, in the outbox until the database is available,
nowhere because no log is kept ("off"), or nowhere because both failed ("lost")."""

AnyReason: TypeAlias = Literal[Reason, NumberReason]

Row: TypeAlias = Mapping[Any, Any]
"""Columns of the predictions by name, as `to_row` and the database have them."""

InputKind: TypeAlias = Literal["drawn", "uploaded", "api"]

Queued: TypeAlias = Literal["rejected", "unsure", "audit", "differs"]
"""Why a record is in the review queue: it was rejected or is to be checked, it belongs to the
random audit of the accepted ones, or a second model read something else."""

MAX_PICTURE_BYTES: Final = 16 * 2**20
"""The largest source picture a record keeps, in bytes; it is made without a larger one."""

_ID = r"\A[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z"
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
# The names of owners and givers of feedback have no control characters, no quotes, and nothing
# that a spreadsheet would take for a formula.
_KEY = r"\A[A-Za-z0-9_.:@-]{1,128}\Z"
_LABEL = rf"\A(?:[0-9]{{1,{MOST_DIGITS}}}|{NO_DIGIT_LABEL})\Z"
_Key: TypeAlias = Annotated[str, msgspec.Meta(pattern=_KEY)]
_Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Owners(Enum):
    """The type of ANYONE, every owner, and NOBODY, no owner; a missing key (None) means neither."""

    ANYONE = "anyone"
    NOBODY = "nobody"


ANYONE: Final = Owners.ANYONE
NOBODY: Final = Owners.NOBODY

Owner: TypeAlias = str | Owners


def to_microseconds(moment: datetime) -> int:
    """Return the microseconds since 1970 UTC of a time, exactly; RecordError without a zone.

    >>> to_microseconds(from_microseconds(1_000_001))
    1000001
    """
    if moment.tzinfo is None:
        raise RecordError(f"the time {moment.isoformat()} has no time zone; use an aware one")
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """Return the aware UTC time of microseconds since 1970.

    >>> from_microseconds(0).isoformat()
    '1970-01-01T00:00:00+00:00'
    """
    return _EPOCH + microseconds * _MICROSECOND


def new_id() -> str:
    """Make an identifier that sorts by the time it was made, and is random otherwise.

    It is a UUIDv7 (RFC 9562 sections 5.7 and 6.2, method 3) in its canonical form: 48 bits of Unix
    milliseconds, 12 of their fraction, and 62 random ones.

    >>> len(new_id()), new_id() < new_id()
    (36, True)
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    value = milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_id(text: str) -> bool:
    """Return whether a text is a UUID in its canonical form, as every record's id is.

    >>> is_id(new_id()), is_id("7")
    (True, False)
    """
    return isinstance(text, str) and re.search(_ID, text) is not None


def check_label(label: str) -> str:
    """Return a label: a digit, the digits of a number, or NO_DIGIT_LABEL; RecordError for others.

    >>> check_label("7"), check_label("0042"), check_label("none")
    ('7', '0042', 'none')
    """
    if not isinstance(label, str) or not re.search(_LABEL, label):
        raise RecordError(
            f"A label is a digit, the 1 to {MOST_DIGITS} digits of a number, or "
            f"{NO_DIGIT_LABEL!r}; not {label!r}."
        )
    return label


def check_key(key: str, what: str) -> str:
    """Return a key that names an owner or a giver of feedback; raise RecordError for others.

    >>> check_key("page", "the giver of the feedback")
    'page'
    """
    if not isinstance(key, str) or not re.search(_KEY, key):
        raise RecordError(f"{what} is 1 to 128 letters, digits or _.:@-; not {key!r}")
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One prediction, as the log keeps it; `from_row` checks what comes from outside.

    Two records are equal when everything but the ink is.
    """

    id: Annotated[str, msgspec.Meta(pattern=_ID)]
    """A canonical UUID, version 7 when made by `new_id`."""
    created_at: datetime
    """Aware; kept as UTC to the microsecond."""
    digit: Literal[0, 1, 2, 3, 4, 5, 6, 7, 8, 9] | None
    """None when there was no ink to read."""
    confidence: _Share
    probabilities: Annotated[tuple[_Share, ...], msgspec.Meta(min_length=10, max_length=10)]
    """Of the digits 0 to 9, calibrated; ``confidence`` is that of ``digit``."""
    decision: Decision
    reason: AnyReason | None
    novelty: float | None
    """The out-of-distribution score, higher is less like a digit; None where not computed."""
    model_version: Annotated[str, msgspec.Meta(min_length=1)]
    input_kind: InputKind
    owner: _Key | None
    """Opaque key of the browser that it belongs to (not the cookie itself), or ``key:NAME`` of an
    API key."""
    ink: npt.NDArray[np.uint8] = field(compare=False, repr=False)
    """(28, 28), or (N, 28, 28) of a number, or one more, of the whole picture, where that was read
    as one digit first; read-only: 0 is background, 255 is ink."""
    picture: Annotated[bytes, msgspec.Meta(max_length=MAX_PICTURE_BYTES)] | None = field(
        default=None, repr=False
    )
    """The source picture as sent; None where not kept."""
    text: Annotated[str, msgspec.Meta(max_length=MOST_DIGITS)] | None = None
    """The digits of a number as it was read; None for a single digit, whose ``digit`` says it."""
    digits: tuple[Json, ...] | None = None
    """What was read at each of a number's N places, as JSON objects; None for a single digit."""
    queued: Queued | None = None
    """Why it was put into the review queue; None where it never was."""
    reviews_due: Literal[1, 2] | None = None
    """How many reviewers have still to label it; None where it is not in the queue."""
    shadow: Json | None = None
    """What a second model read where it differs: version, text, confidence and decision."""
    label: Annotated[str, msgspec.Meta(pattern=_LABEL)] | None = None
    """What feedback says it is, as `check_label`; the next two say when, and who gave it."""
    feedback_at: datetime | None = None
    feedback_by: _Key | None = None

    def __post_init__(self) -> None:
        if self.ink.flags.writeable:
            ink = self.ink.copy()
            ink.flags.writeable = False
            object.__setattr__(self, "ink", ink)
        if self.digits is not None and len(self.ink) - len(self.digits) not in {0, 1}:
            raise RecordError("a number has the ink of each digit, and at most the whole one's")
        if (self.digits is None) != (self.text is None):
            raise RecordError("a number has its text and a list of its digits, others neither")
        if [self.label, self.feedback_at, self.feedback_by].count(None) not in {0, 3}:
            raise RecordError("feedback has a label, a time and a giver, or none of them")

    @classmethod
    def of(
        cls,
        reading: Prediction | NumberReading,
        *,
        input_kind: InputKind = "api",
        owner: str | None = None,
        picture: bytes | None = None,
        record_id: str | None = None,
        whole: Ink | None = None,
    ) -> Record:
        """Make the record of a digit or a number that was read now; its id is new if not given.

        ``whole`` (28, 28) is the whole picture's ink, which is kept beside that of the digits.
        """
        if isinstance(reading, NumberReading):
            inks = [digit.ink for digit in reading.digits] + ([] if whole is None else [whole])
            read: dict[str, Any] = {
                "digit": None,
                "probabilities": (0.1,) * 10,
                "novelty": None,
                "ink": np.stack(inks) if inks else np.zeros((0, 28, 28), np.uint8),
                "text": reading.text,
                "digits": tuple(
                    {"digit": one.digit, "confidence": one.confidence, "box": list(one.box)}
                    for one in reading.digits
                ),
            }
        else:
            read = {
                "digit": reading.digit,
                "probabilities": tuple(map(_clip, reading.probabilities)),
                "novelty": reading.novelty,
                "ink": reading.ink,
            }
        return cls(
            **read,
            id=new_id() if record_id is None else record_id,
            created_at=datetime.now(UTC),
            confidence=_clip(reading.confidence),
            decision=reading.decision,
            reason=reading.reason,
            model_version=reading.model_version,
            input_kind=input_kind,
            owner=owner,
            picture=picture if len(picture or b"") <= MAX_PICTURE_BYTES else None,
        )

    @property
    def inks(self) -> Ink:
        """The ink (N, 28, 28) of each digit that was read."""
        return self.ink[np.newaxis] if self.digits is None else self.ink[: len(self.digits)]

    @property
    def ink_sha256(self) -> str:
        """Hexadecimal, of the ink's bytes in row order."""
        return hashlib.sha256(self.ink.tobytes()).hexdigest()

    @property
    def read(self) -> str | None:
        """The digits that were read, as a label has them; None where nothing was."""
        return self.text or (None if self.digit is None else str(self.digit))

    @property
    def true_digit(self) -> int | None:
        """The label as 0 to 9 or NO_DIGIT; None without one, or where it is a longer number."""
        if self.label == NO_DIGIT_LABEL:
            return NO_DIGIT
        return int(self.label) if self.label is not None and len(self.label) == 1 else None

    @property
    def was_right(self) -> bool | None:
        """Whether the label was read, or no digit was rejected; None without feedback."""
        if self.label is None:
            return None
        if self.label == NO_DIGIT_LABEL:
            return self.decision == "reject"
        return self.read == self.label


def _clip(probability: float) -> float:
    # A softmax in float32 may exceed 1 by its rounding, which is no reason to lose a record.
    return min(1.0, probability) if probability < 1 + 1e-5 else probability


# What a row has under another name or in another form.
_OTHERWISE = {"created_at", "feedback_at", "probabilities", "digits", "ink"}
_SAME_IN_ROW = tuple(one.name for one in fields(Record) if one.name not in _OTHERWISE)


def to_row(record: Record) -> dict[str, Any]:
    """Return a record as the table's columns: times in microseconds since 1970, ink as bytes.

    >>> from inkdigits.decision.prediction import Prediction
    >>> ink = np.zeros((28, 28), np.uint8)
    >>> blank = Prediction(None, 0.0, (0.1,) * 10, "reject", "blank", None, ink, "m", 1.0, 0.0)
    >>> row = to_row(Record.of(blank, input_kind="api"))
    >>> row["reason"], len(row["ink"]), from_row(row).decision
    ('blank', 784, 'reject')
    """
    row = {name: getattr(record, name) for name in _SAME_IN_ROW}
    row["ink_sha256"] = record.ink_sha256
    row["created_us"] = to_microseconds(record.created_at)
    row["feedback_us"] = record.feedback_at and to_microseconds(record.feedback_at)
    row["probabilities"] = list(record.probabilities)
    row["digits"] = None if record.digits is None else list(record.digits)
    row["ink"] = record.ink.tobytes()
    return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Which shares of the readings people review, 0 to 1; the hash of the ink chooses."""

    audit: float = 0.01  # of the accepted ones
    twice: float = 0.1  # of the queue, for two people

    def place(self, row: dict[str, Any]) -> None:
        """Put a new row of `to_row` into the queue, or not; the same ink always alike."""
        digest = row["ink_sha256"]
        queued = {"reject": "rejected", "review": "unsure"}.get(row["decision"])
        if row["decision"] == "accept" and _part(digest[:8]) < self.audit:
            queued = "audit"
        # A number that was not read has no ink: without its picture nobody can label it.
        is_seen = row["reason"] not in ("blank", "no_ink") and (row["ink"] or row["picture"])
        if queued is not None and is_seen:
            row["queued"], row["reviews_due"] = queued, self.needed(digest)

    def needed(self, digest: str) -> int:
        """Return how many people are to label the ink with this SHA-256."""
        return 2 if _part(digest[8:16]) < self.twice else 1


def _part(digits: str) -> float:
    return int(digits, 16) / 2**32  # 8 hexadecimal digits


def from_row(row: Row) -> Record:
    """Return the record of a row, which may be without the columns that the first schema lacks.

    Raises:
        RecordError: a value is missing or invalid.

    >>> from_row({})
    Traceback (most recent call last):
    inkdigits.errors.RecordError: the row is not a record: 'feedback_us'
    """
    try:
        values: dict[str, Any] = {name: row.get(name) for name in _SAME_IN_ROW}
        digits, feedback_us = row.get("digits"), row["feedback_us"]
        shape = (28, 28) if digits is None else (-1, 28, 28)
        values |= {
            "created_at": from_microseconds(row["created_us"]),
            "feedback_at": None if feedback_us is None else from_microseconds(feedback_us),
            "probabilities": row["probabilities"],
            "digits": digits,
            "ink": np.frombuffer(row["ink"], np.uint8).reshape(shape),
        }
        # Version 0.1.0, whose rows may wait in an outbox, has labels as numbers.
        if (former := row.get("true_digit")) is not None:
            values["label"] = NO_DIGIT_LABEL if former == NO_DIGIT else str(former)
        return msgspec.convert(values, Record)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise RecordError(f"the row is not a record: {error}") from error
