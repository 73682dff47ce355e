"""Filters of the prediction log, and pages of its records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias, get_args

import sqlalchemy as sa

from inkdigits.decision.policy import Decision
from inkdigits.errors import QueryError, RecordError, RecordNotFoundError
from inkdigits.log.record import (
    ANYONE,
    NOBODY,
    Owner,
    Owners,
    Record,
    check_key,
    from_microseconds,
    from_row,
    is_id,
    to_microseconds,
)
from inkdigits.log.schema import predictions
from inkdigits.types import NO_DIGIT, NO_DIGIT_LABEL

MAX_PAGE: Final = 500
"""The most records on one page."""

OLDEST: Final = "n.-62135596800000000.00000000-0000-0000-0000-000000000000"
"""The cursor of the page with the oldest records: newer than the year 1."""

Feedback: TypeAlias = Literal["given", "none", "right", "wrong"]
Sort: TypeAlias = Literal["time", "confidence"]
"""The order of pages: the newest first, or the least sure first."""

_c = predictions.c
READ: Final = sa.func.coalesce(sa.func.nullif(_c.text, ""), sa.cast(_c.digit, sa.String(2)))
"""The digits that were read, as `Record.read`."""

WITHOUT_PICTURE: Final = [column for column in _c if column.name != "picture"]
"""The columns of a list; a picture may be large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which records; all by default. An invalid value is a QueryError when this is made."""

    # Read as this, 0 to 9; NO_DIGIT for those where nothing was read.
    digit: int | None = None
    decision: Decision | None = None
    # "right": the label was read, or no digit was rejected.
    feedback: Feedback | None = None
    # From an aware time on, to before another.
    since: datetime | None = None
    until: datetime | None = None
    owner: Owner = ANYONE

    def __post_init__(self) -> None:
        if self.digit is not None and self.digit not in range(NO_DIGIT, 10):
            raise QueryError(f"the digit is 0 to 9, or {NO_DIGIT} for none; not {self.digit!r}")
        for name, kinds in (("decision", Decision), ("feedback", Feedback)):
            value = getattr(self, name)
            if value is not None and value not in get_args(kinds):
                raise QueryError(f"the {name} is {' or '.join(get_args(kinds))}; not {value!r}")
        try:
            for moment in filter(None, (self.since, self.until)):
                to_microseconds(moment)
            if not isinstance(self.owner, Owners):
                check_key(self.owner, "the owner")
        except RecordError as error:
            raise QueryError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Page:
    """Some records in an order, without their pictures, which `Store.get` returns.

    ``older`` is the cursor of the next page and ``newer`` that of the one before, or None.
    """

    records: tuple[Record, ...]
    older: str | None
    newer: str | None


def conditions(filters: Filters) -> list[sa.ColumnElement[bool]]:
    """Return the WHERE conditions of filters; each kind can use an index of its own.

    >>> [str(condition) for condition in conditions(Filters(decision="review"))]
    ['predictions.decision = :decision_1']
    """
    found: list[sa.ColumnElement[bool]] = []
    if filters.digit is not None:
        found.append(_c.digit == (None if filters.digit == NO_DIGIT else filters.digit))
    if filters.digit == NO_DIGIT:
        found.append(READ.is_(None))
    if filters.decision is not None:
        found.append(_c.decision == filters.decision)
    if filters.since is not None:
        found.append(_c.created_us >= to_microseconds(filters.since))
    if filters.until is not None:
        found.append(_c.created_us < to_microseconds(filters.until))
    if filters.owner is not ANYONE:
        found.append(_c.owner == (None if filters.owner is NOBODY else filters.owner))
    if filters.feedback == "none":
        found.append(_c.label.is_(None))
    elif filters.feedback is not None:
        # A condition of its own, by which the partial index is recognised.
        found.append(_c.label.is_not(None))
    if filters.feedback in {"right", "wrong"}:
        is_right = was_right(_c.label)
        found.append(is_right if filters.feedback == "right" else sa.not_(is_right))
    return found


def named(record_id: str, owner: Owner) -> list[sa.ColumnElement[bool]]:
    """Return the WHERE conditions of an owner's record; RecordNotFoundError if the id is none.

    >>> named("7", ANYONE)
    Traceback (most recent call last):
    inkdigits.errors.RecordNotFoundError: There is no prediction '7'.
    """
    # Before the database sees it: PostgreSQL accepts no text with a zero byte, for example.
    if not is_id(record_id):
        raise RecordNotFoundError(f"There is no prediction {record_id!r}.")
    return [_c.id == record_id, *conditions(Filters(owner=owner))]


def was_right(label: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the condition that a label was read, or that no digit was rejected.

    >>> str(was_right(_c.label))[:31]
    'CASE WHEN (predictions.label = '
    """
    same = sa.func.coalesce(label == READ, sa.false())
    return sa.case((label == NO_DIGIT_LABEL, _c.decision == "reject"), else_=same)


def page_of(
    connection: sa.Connection,
    filters: Filters,
    cursor: str | None,
    limit: int,
    sort: Sort = "time",
) -> Page:
    """Query records from the cursor on, in its direction; QueryError for an invalid argument.

    >>> engine = sa.create_engine("sqlite://")
    >>> predictions.metadata.create_all(engine)
    >>> with engine.connect() as connection:
    ...     page_of(connection, Filters(), None, 50)
    Page(records=(), older=None, newer=None)
    """
    if sort not in get_args(Sort):
        raise QueryError(f"the order is {' or '.join(get_args(Sort))}; not {sort!r}")
    if not 1 <= limit <= MAX_PAGE:
        raise QueryError(f"a page has 1 to {MAX_PAGE} records; not {limit!r}")
    # One more than asked for shows whether there are more.
    wanted = conditions(filters)
    is_newer, position = (False, None) if cursor is None else _read_cursor(cursor, sort)
    key = (_c.created_us if sort == "time" else _c.confidence, _c.id)
    is_rising = is_newer == (sort == "time")
    if position is not None:
        at = sa.tuple_(*position)
        wanted.append(sa.tuple_(*key) > at if is_rising else sa.tuple_(*key) < at)
    order = key if is_rising else (key[0].desc(), key[1].desc())
    query = sa.select(*WITHOUT_PICTURE).order_by(*order)
    if sort == "time":
        query = query.where(*wanted).limit(limit + 1)
    else:
        # Sorting ids of an index takes less than sorting rows.
        ids = sa.select(_c.id).where(*wanted).order_by(*order).limit(limit + 1)
        query = query.where(_c.id.in_(connection.scalars(ids).all()))
    rows = connection.execute(query).mappings().all()
    found = tuple(from_row(row) for row in rows[:limit])
    records, more = found[::-1] if is_newer else found, len(rows) > limit
    has_older = bool(records) if is_newer else more
    has_newer = more if is_newer else bool(records) and cursor is not None
    return Page(
        records,
        older=_cursor("o", records[-1], sort) if has_older else None,
        newer=_cursor("n", records[0], sort) if has_newer else None,
    )


def oldest_first(page: Callable[[str], Page]) -> Iterator[Sequence[Record]]:
    """Yield the records of all pages from the oldest on; ``page`` asks for that of a cursor.

    >>> list(oldest_first(lambda cursor: Page((), None, None)))
    []
    """
    cursor: str | None = OLDEST
    while cursor is not None:
        found = page(cursor)
        if found.records:
            yield found.records[::-1]
        cursor = found.newer


def _cursor(direction: str, record: Record, sort: Sort) -> str:
    at = to_microseconds(record.created_at) if sort == "time" else repr(record.confidence)
    return f"{direction}.{at}.{record.id}"


def _read_cursor(cursor: str, sort: Sort) -> tuple[bool, tuple[float, str]]:
    direction, _, rest = cursor.partition(".")
    at, _, identifier = rest.rpartition(".")
    position: float
    try:
        position = to_microseconds(from_microseconds(int(at))) if sort == "time" else float(at)
    except (ValueError, OverflowError) as error:
        raise QueryError("the cursor is not one that a page gave") from error
    if direction not in {"o", "n"} or not is_id(identifier) or position != position:
        raise QueryError("the cursor is not one that a page gave")
    return direction == "n", (position, identifier)
