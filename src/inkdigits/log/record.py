"""A record of the prediction log: what was read, when, of what, and what it really was."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from inkdigits.decision.policy import Decision, NumberReason, Reason
from inkdigits.decision.prediction import NumberReading, Prediction
from inkdigits.errors import RecordError
from inkdigits.types import NO_DIGIT, NO_DIGIT_LABEL, Json

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

MAX_DIGITS: Final = 64
"""The most digits of a number, as it is read or as feedback says it."""

MAX_PICTURE_BYTES: Final = 16 * 2**20
"""The largest source picture a record keeps, in bytes; it is made without a larger one."""

_KINDS: Final = {
    "decision": get_args(Decision),
    "reason": (*get_args(AnyReason), None),
    "input_kind": get_args(InputKind),
    "queued": (*get_args(Queued), None),
    "digit": (*range(10), None),
    "reviews_due": (1, 2, None),
}
_TYPES: Final = {
    "model_version": str,
    "text": str | None,
    "picture": bytes | None,
    "shadow": dict | None,
}
_ID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
# The names of owners and givers of feedback have no control characters, no quotes, and nothing
# that a spreadsheet would take for a formula.
_KEY = re.compile(r"[A-Za-z0-9_.:@-]{1,128}")
_DIGITS = re.compile(rf"[0-9]{{1,{MAX_DIGITS}}}")


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
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def check_label(label: str) -> str:
    """Return a label that feedback may give; raise RecordError for others.

    It is a digit, the digits of a number, or NO_DIGIT_LABEL.

    >>> check_label("7"), check_label("0042"), check_label("none")
    ('7', '0042', 'none')
    """
    if not isinstance(label, str) or not (_DIGITS.fullmatch(label) or label == NO_DIGIT_LABEL):
        raise RecordError(
            f"A label is a digit, the 1 to {MAX_DIGITS} digits of a number, or "
            f"{NO_DIGIT_LABEL!r}; not {label!r}."
        )
    return label


def check_key(key: str, what: str) -> str:
    """Return a key that names an owner or a giver of feedback; raise RecordError for others.

    >>> check_key("page", "the giver of the feedback")
    'page'
    """
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise RecordError(f"{what} is 1 to 128 letters, digits or _.:@-; not {key!r}")
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One prediction, as the log keeps it; RecordError when it is made with an invalid value.

    Two records are equal when everything but the array of the ink is; its digest is compared.
    """

    id: str
    """A canonical UUID, version 7 when made by `new_id`."""
    created_at: datetime
    """Aware, kept as UTC to the microsecond."""
    digit: int | None
    """0 to 9, or None when there was no ink to read."""
    confidence: float
    probabilities: tuple[float, ...]
    """Of the digits 0 to 9, calibrated, each 0 to 1; ``confidence`` is that of ``digit``."""
    decision: Decision
    reason: AnyReason | None
    novelty: float | None
    """The out-of-distribution score, higher is less like a digit; None where not computed."""
    model_version: str
    input_kind: InputKind
    owner: str | None
    """Opaque key of the browser that it belongs to (not the cookie itself), or ``key:NAME`` of an
    API key; as `check_key`."""
    ink: npt.NDArray[np.uint8] = dataclasses.field(compare=False, repr=False)
    """(28, 28), or (N, 28, 28) of a number; read-only: 0 is background, 255 is ink."""
    picture: bytes | None = dataclasses.field(default=None, repr=False)
    """The source picture as sent, at most MAX_PICTURE_BYTES; None where not kept."""
    text: str | None = None
    """The digits of a number as it was read; None for a single digit, whose ``digit`` says it."""
    digits: tuple[Json, ...] | None = None
    """What was read at each of a number's N places, as JSON objects; None for a single digit."""
    queued: Queued | None = None
    """Why it was put into the review queue; None where it never was."""
    reviews_due: int | None = None
    """How many reviewers have still to label it; None where it is not in the queue."""
    shadow: Json | None = None
    """What a second model read where it differs: version, text, confidence and decision."""
    label: str | None = None
    """What feedback says it is, as `check_label`; the next two say when, and who gave it."""
    feedback_at: datetime | None = None
    feedback_by: str | None = None
    ink_sha256: str = dataclasses.field(init=False)
    """Hexadecimal, of the ink's 784 bytes in row order."""

    def __post_init__(self) -> None:
        ink = self.ink
        shape = (28, 28) if self.digits is None else (len(self.digits), 28, 28)
        if ink.shape != shape or ink.dtype != np.uint8:
            raise RecordError(f"the ink is {shape} uint8; not {ink.shape} {ink.dtype}")
        if ink.flags.writeable or not ink.flags.c_contiguous:
            ink = np.array(ink, order="C")
            ink.flags.writeable = False
        values = {
            "ink": ink,
            "ink_sha256": hashlib.sha256(ink.data).hexdigest(),
            "probabilities": tuple(map(float, self.probabilities)),
            "confidence": float(self.confidence),
            "novelty": None if self.novelty is None else float(self.novelty),
            "digit": None if self.digit is None else int(self.digit),
        }
        for name in ("created_at", "feedback_at"):
            moment = getattr(self, name)
            values[name] = moment and from_microseconds(to_microseconds(moment))
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        if not is_id(self.id):
            raise RecordError(f"the id is a UUID in its canonical form; not {self.id!r}")
        if not 0 <= self.confidence <= 1:
            raise RecordError(f"the confidence is 0 to 1; not {self.confidence!r}")
        probable = [0 <= probability <= 1 for probability in self.probabilities]
        if len(probable) != 10 or not all(probable):
            raise RecordError("the probabilities are 10 numbers of 0 to 1")
        for name, kinds in _KINDS.items():
            if (value := getattr(self, name)) not in kinds:
                raise RecordError(f"the {name} is one of {kinds}; not {value!r}")
        for name, kind in _TYPES.items():
            if not isinstance(value := getattr(self, name), kind):
                raise RecordError(f"the {name} is {kind}; not {value!r}")
        if not 1 <= len(self.model_version) <= 200:
            raise RecordError("the model version is 1 to 200 characters")
        if self.owner is not None:
            check_key(self.owner, "the owner")
        if (self.digits is None) != (self.text is None) or len(self.text or "") > MAX_DIGITS:
            raise RecordError("a number has its text and a list of its digits, others neither")
        if self.picture is not None and len(self.picture) > MAX_PICTURE_BYTES:
            raise RecordError(
                f"the picture has {len(self.picture):,} bytes, over {MAX_PICTURE_BYTES:,}"
            )
        given = (self.label, self.feedback_at, self.feedback_by)
        if given.count(None) not in {0, 3}:
            raise RecordError("feedback has a label, a time and a giver, or none of them")
        if self.label is not None and self.feedback_by is not None:
            check_label(self.label)
            check_key(self.feedback_by, "the giver of the feedback")

    @classmethod
    def of(
        cls,
        reading: Prediction | NumberReading,
        *,
        input_kind: InputKind = "api",
        owner: str | None = None,
        picture: bytes | None = None,
        record_id: str | None = None,
    ) -> Record:
        """Make the record of a digit or a number that was read now; its id is new if not given."""
        if isinstance(reading, NumberReading):
            inks = [digit.ink for digit in reading.digits]
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


_SAME_IN_ROW = (
    *("id", "digit", "confidence", "decision", "reason", "novelty", "model_version"),
    *("input_kind", "owner", "ink_sha256", "text", "queued", "reviews_due", "shadow"),
    *("label", "feedback_by", "picture"),
)


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
    """Return the record of a row, which may be without the column of the picture.

    >>> from_row({})
    Traceback (most recent call last):
    KeyError: 'feedback_us'
    """
    values: dict[str, Any] = {n: row.get(n) for n in _SAME_IN_ROW if n != "ink_sha256"}
    feedback_us, digits = row["feedback_us"], row.get("digits")
    return Record(
        **values,
        digits=None if digits is None else tuple(digits),
        created_at=from_microseconds(row["created_us"]),
        feedback_at=None if feedback_us is None else from_microseconds(feedback_us),
        probabilities=tuple(row["probabilities"]),
        ink=np.frombuffer(row["ink"], np.uint8).reshape(
            (28, 28) if digits is None else (len(digits), 28, 28)
        ),
    )
