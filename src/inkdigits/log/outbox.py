"""The outbox: rows on disk that wait for the database, in an SQLite file of their own.

The processes of one machine that log to one database share it, and any of them may move what
another has left. Each commit is synced, so that a row survives the end of its process and a power
failure. The file's size is bounded.
"""

from __future__ import annotations

import base64
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects.sqlite import insert

from inkdigits.errors import ConfigError, OutboxError, RecordError, StoreUnavailableError
from inkdigits.log.connections import Options, connect
from inkdigits.log.database import begin
from inkdigits.log.locks import file_lock
from inkdigits.log.record import ANYONE, NOBODY, Owner, Row, from_row, to_row
from inkdigits.log.schema import write_ahead_log

OUTBOX_LIMIT_BYTES: Final = 128 * 2**20
"""How much waits on disk by default, in bytes: over 50,000 predictions without pictures."""

FILE_NAME: Final = "outbox.sqlite3"

# How long a write waits for those of other processes, in seconds.
_WAIT_S: Final = 1.0
_PAGE_BYTES: Final = 4096
_FAILURES: Final = (
    *(exc.DBAPIError, exc.TimeoutError, sqlite3.Error, OSError),
    StoreUnavailableError,  # the file has been deleted or replaced
)

logger = logging.getLogger(__name__)
_metadata = sa.MetaData()
_waiting = sa.Table(
    "waiting",
    _metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("owner", sa.String(128)),
    sa.Column("row", sa.Text, nullable=False),
    # How often feedback has changed the row since it was put here.
    sa.Column("version", sa.Integer, nullable=False, default=0),
    # Why the database rejects the row for its values; such rows stay for a person to look at.
    sa.Column("rejected", sa.Text),
)
_c = _waiting.c


class Waiting(NamedTuple):
    """A row of `inkdigits.log.record.to_row`, and how often feedback has changed it in here."""

    row: dict[str, Any]
    version: int


class Outbox:
    """Rows that wait for the database; safe for threads and for several processes at once.

    The folder is made, for its user alone, if it does not exist; ConfigError if it cannot be made
    or written, or the limit of the file's size is too small.
    """

    def __init__(self, folder: Path | str, limit_bytes: int = OUTBOX_LIMIT_BYTES) -> None:
        if limit_bytes < 16 * _PAGE_BYTES:
            raise ConfigError(f"the outbox needs at least {16 * _PAGE_BYTES:,} bytes")
        self.folder = Path(folder)
        self._path = self.folder / FILE_NAME
        limit = f"PRAGMA max_page_count = {limit_bytes // _PAGE_BYTES}"
        try:
            self._make_folder()
            url = sa.URL.create("sqlite", database=str(self._path))
            self._engine = connect(url, Options(wait_s=_WAIT_S, synchronous="full"))
            sa.event.listen(self._engine, "connect", lambda new, _: new.execute(limit))
            self._open()
        except (OSError, OutboxError) as error:
            raise ConfigError(f"the outbox {self.folder} cannot be used: {error}") from error
        self._pending: dict[str, dict[str, Any]] = {}
        self._putting = threading.Lock()

    def put(self, row: Mapping[str, Any]) -> None:
        """Keep a row; it is on the disk when this returns.

        Threads that call this at the same time share one commit. OutboxError if the file is at its
        limit, or its disk is full, fails or is locked: the row is not kept then.
        """
        name = row["id"]
        self._pending[name] = {"id": name, "owner": row["owner"], "row": _to_json(row)}
        with self._putting:
            if name not in self._pending:
                return  # another thread's commit had it
            done = [self._pending[name]]
            try:
                done = self._insert_together(done)
            finally:
                for entry in done:
                    del self._pending[entry["id"]]

    def _insert_together(self, own: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Insert what all threads wait for, or else a thread's own row; returns what is kept."""
        together = list(self._pending.values())
        try:
            self._insert(together)
        except OutboxError:
            if len(together) == 1:
                raise
            # One row may fit where all together do not; then each thread tries its own.
            self._insert(own)
            return own
        return together

    def first(self, count: int) -> list[Waiting]:
        """Return up to ``count`` rows, oldest first; rows that are no records are set aside."""
        query = sa.select(_c.id, _c.row, _c.version).where(_c.rejected.is_(None)).order_by(_c.id)
        with self._transaction(writes=False) as connection:
            found = connection.execute(query.limit(count)).all()
        rows: list[Waiting] = []
        for name, text, version in found:
            try:
                rows.append(Waiting(_from_json(text, name), version))
            except RecordError as error:
                self.set_aside(name, str(error))
        return rows

    def find(self, record_id: str, owner: Owner) -> dict[str, Any] | None:
        """Return the row of an id, if it waits here and is this owner's."""
        query = sa.select(_c.row).where(_c.rejected.is_(None), *_named(record_id, owner))
        with self._transaction(writes=False) as connection:
            text = connection.scalar(query)
        return None if text is None else _from_json(text, record_id)

    def change(
        self, record_id: str, owner: Owner, values_of: Callable[[Row], Row]
    ) -> dict[str, Any] | None:
        """Change columns of a row, such as its feedback, and return it; None if it is not here."""
        named = _named(record_id, owner)
        with self._transaction() as connection:
            text = connection.scalar(sa.select(_c.row).where(*named))
            if text is None:
                return None
            former = _from_json(text, record_id)
            row = {**former, **values_of(former)}
            changes = {"row": _to_json(row), "version": _c.version + 1}
            connection.execute(sa.update(_waiting).where(*named).values(changes))
        return row

    def remove(self, rows: Sequence[Waiting]) -> None:
        """Remove rows that are in the database, unless they have been changed since."""
        statement = sa.delete(_waiting).where(
            _c.id == sa.bindparam("name"), _c.version == sa.bindparam("seen")
        )
        with self._transaction() as connection:
            connection.execute(statement, [{"name": w.row["id"], "seen": w.version} for w in rows])

    def purge(self, before_us: int) -> int:
        """Delete the rows of predictions before a time, set aside or not; returns how many.

        Where a damaged row does not say its time, its id does (UUIDv7: milliseconds, 12 digits).
        """
        created_us = sa.case(
            (sa.func.json_valid(_c.row), sa.func.json_extract(_c.row, "$.created_us"))
        )
        oldest = f"{before_us // 1000:012x}"
        is_old = sa.func.coalesce(created_us < before_us, _c.id < f"{oldest[:8]}-{oldest[8:]}")
        with self._transaction() as connection:
            return connection.execute(sa.delete(_waiting).where(is_old)).rowcount

    def delete(self, record_id: str | None, owner: Owner) -> int:
        """Delete an owner's row of an id, or all of the owner's; returns how many there were."""
        with self._transaction() as connection:
            return connection.execute(sa.delete(_waiting).where(*_named(record_id, owner))).rowcount

    def set_aside(self, record_id: str, reason: str) -> None:
        """Keep a row that the database rejects for its values, for a person to look at."""
        logger.error("a row of the outbox is set aside: %s: %s", record_id, reason)
        with self._transaction() as connection:
            connection.execute(
                sa.update(_waiting).where(_c.id == record_id).values(rejected=reason)
            )

    def count(self) -> int:
        """Return how many rows wait for the database, of all processes."""
        query = sa.select(sa.func.count()).where(_c.rejected.is_(None)).select_from(_waiting)
        with self._transaction(writes=False) as connection:
            return connection.scalar(query) or 0

    @contextmanager
    def moving(self, wait_s: float | None) -> Iterator[bool]:
        """Hold the right to move or delete rows; yields whether it is held, as `file_lock`."""
        with ExitStack() as stack:
            try:
                is_held = stack.enter_context(file_lock(self.folder / "moving.lock", wait_s))
            except OSError as error:
                raise OutboxError(f"The outbox cannot be locked: {error}") from error
            yield is_held

    def close(self) -> None:
        """Close the connections; the rows stay."""
        self._engine.dispose()

    def _open(self) -> None:
        """Make the file and its table, in place of a damaged file if there is one.

        One process does so at a time. Another one would find the damage too, and take the new file
        for the damaged one.
        """
        with self._watched():
            self._make_folder()
            with file_lock(self.folder / "opening.lock"):
                self._create_or_replace()

    def _create_or_replace(self) -> None:
        try:
            self._create()
        except (exc.DatabaseError, sqlite3.DatabaseError) as error:
            original = error.orig if isinstance(error, exc.DatabaseError) else error
            if isinstance(original, sqlite3.OperationalError):  # such as a full disk
                raise
            kept = self._path.with_suffix(f".damaged-{time.time_ns()}")
            logger.exception("the outbox is damaged; it is kept as %s, and a new one made", kept)
            self._engine.dispose()
            self._path.rename(kept)
            for end in ("-wal", "-shm"):
                self._path.with_name(self._path.name + end).unlink(missing_ok=True)
            self._create()

    def _make_folder(self) -> None:
        # `connect` would make it for all users.
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _create(self) -> None:
        # SQLite gives its other files the permissions of this one.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        write_ahead_log(self._engine)
        with self._engine.begin() as connection:
            connection.execute(sa.schema.CreateTable(_waiting, if_not_exists=True))

    def _insert(self, entries: Sequence[Mapping[str, Any]]) -> None:
        statement = insert(_waiting).on_conflict_do_nothing(index_elements=["id"])
        try:
            with self._transaction() as connection:
                connection.execute(statement, entries)
        except OutboxError as error:
            # A second try, on new connections: the file may have been deleted or replaced.
            logger.warning("the outbox is opened again: %s", error)
            self._engine.dispose()
            self._open()
            with self._transaction() as connection:
                connection.execute(statement, entries)

    @contextmanager
    def _transaction(self, *, writes: bool = True) -> Iterator[sa.Connection]:
        with (
            self._watched(),
            begin(self._engine, writes=writes, lock_wait_s=_WAIT_S) as connection,
        ):
            yield connection

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except _FAILURES as error:
            reason = error.orig if isinstance(error, exc.DBAPIError) else error
            raise OutboxError(f"The outbox {self._path} cannot be used: {reason}") from error


def _named(record_id: str | None, owner: Owner) -> list[sa.ColumnElement[bool]]:
    named = [] if record_id is None else [_c.id == record_id]
    return named if owner is ANYONE else [*named, _c.owner == (None if owner is NOBODY else owner)]


def _to_json(row: Mapping[str, Any]) -> str:
    pictures = {n: row[n] and base64.b64encode(row[n]).decode() for n in ("ink", "picture")}
    return orjson.dumps({**row, **pictures}).decode()


def _from_json(text: str, record_id: str) -> dict[str, Any]:
    """Return the row that `_to_json` wrote, checked as a record is; RecordError for others."""
    try:
        row = orjson.loads(text)
        for name in ("ink", "picture"):
            row[name] = row[name] and base64.b64decode(row[name], validate=True)
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"the text is not a record: {error}") from error
    record = from_row(row)
    if record.id != record_id:
        raise RecordError(f"the record has another id: {record.id}")
    return to_row(record)
