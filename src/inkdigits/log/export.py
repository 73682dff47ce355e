"""The prediction log as a table, CSV or Parquet (see `inkdigits.log.tables`).

It is to study and to learn from, and does not tell who drew: it has neither owners nor pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Final, Literal, TypeAlias, get_args

from sqlalchemy import make_url

from inkdigits.errors import QueryError, StoreUnavailableError
from inkdigits.log.connections import Options
from inkdigits.log.database import Database
from inkdigits.log.queries import MAX_PAGE, Filters, Page, oldest_first, page_of
from inkdigits.log.record import Record
from inkdigits.log.tables import Columns, Schema, write_table

Format: TypeAlias = Literal["csv", "parquet"]

_PROBABILITIES: Final = tuple(f"probability_{digit}" for digit in range(10))
_SCHEMA: Final[Schema] = {
    "id": "text",
    "created_at": "time",
    "digit": "int8",
    "closest": "text",
    "confidence": "float64",
    **dict.fromkeys(_PROBABILITIES, "float64"),
    "decision": "text",
    "reason": "text",
    "novelty": "float64",
    "model_version": "text",
    "input_kind": "text",
    "text": "text",
    "label": "text",
    "true_digit": "int8",
    "feedback_at": "time",
    "feedback_by": "text",
    "ink_sha256": "text",
    "ink": "ink",
}


def write(form: Format, file: IO[bytes], groups: Iterable[Sequence[Record]]) -> int:
    """Write records to a binary file, which stays open, and return how many were written.

    Few groups of records are held at a time. QueryError for another format.

    >>> import io
    >>> write("csv", io.BytesIO(), [])
    0
    """
    if form not in get_args(Format):
        raise QueryError(f"the format is csv or parquet; not {form!r}")
    return write_table(form, file, _SCHEMA, map(_columns, groups))


def reviewed_records(url: str) -> Iterator[Record]:
    """Yield the predictions of a log that have feedback, oldest first, without their pictures.

    Nothing is written. StoreUnavailableError if the database is missing or of another schema.

    >>> list(reviewed_records("sqlite:///nowhere/log.sqlite3"))
    Traceback (most recent call last):
    inkdigits.errors.StoreUnavailableError: there is no database at nowhere/log.sqlite3
    """
    path = make_url(url).database if url.startswith("sqlite") else None
    if path is not None and not Path(path).is_file():
        raise StoreUnavailableError(f"there is no database at {path}")
    database = Database(url, Options(wait_s=10))

    def page(cursor: str) -> Page:
        with database.transaction() as connection:
            return page_of(connection, Filters(feedback="given"), cursor, MAX_PAGE)

    try:
        yield from chain.from_iterable(oldest_first(page))
    finally:
        database.close()


def _columns(records: Sequence[Record]) -> Columns:
    columns: Columns = {
        name: [getattr(record, name) for record in records]
        for name in _SCHEMA
        if name not in (*_PROBABILITIES, "closest")
    }
    shares = zip(*(record.probabilities for record in records), strict=True)
    columns.update(zip(_PROBABILITIES, map(list, shares), strict=True))
    # What is rejected has no answer; what it is closest to has a column of its own.
    closest = [one.digit if one.text is None else one.text for one in records]
    columns["closest"] = [None if one is None else str(one) for one in closest]
    for name in ("digit", "text"):
        columns[name] = [
            None if one.decision == "reject" else getattr(one, name) for one in records
        ]
    columns["ink"] = [record.ink.tobytes() for record in records]
    return columns
