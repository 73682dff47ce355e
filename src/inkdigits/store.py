"""The prediction log: predictions and their feedback, in SQLite or PostgreSQL. Knows no HTTP.

A prediction is never lost to a database that is away. `Store.record` writes it or, when the
database can't be reached, spools it to disk; a thread of the store brings the spool home when the
database is back, each record once. After the first failure nobody waits for time-outs: the store
spools at once until that thread finds the database well.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Literal, TypeAlias

import sqlalchemy as sa
from sqlalchemy import exc

from inkdigits import dashboard, database, history, history_export
from inkdigits.dashboard import Bucket, Statistics
from inkdigits.database import predictions
from inkdigits.errors import ConfigError
from inkdigits.history import ANYONE, Filters, Owner, Page
from inkdigits.history_export import Format
from inkdigits.record import (
    QueryError,
    Record,
    RecordError,
    RecordNotFoundError,
    SchemaVersionError,
    SpoolError,
    SpoolFullError,
    StoreError,
    StoreUnavailableError,
    check_key,
    check_true_digit,
    from_bytes,
    from_row,
    to_bytes,
    to_microseconds,
    to_row,
)
from inkdigits.spool import SPOOL_LIMIT_BYTES, Spool

__all__ = [
    "ANYONE",
    "Counters",
    "Filters",
    "Outcome",
    "Page",
    "QueryError",
    "Record",
    "RecordError",
    "RecordNotFoundError",
    "SchemaVersionError",
    "SpoolError",
    "SpoolFullError",
    "Statistics",
    "Store",
    "StoreError",
    "StoreUnavailableError",
]

Outcome: TypeAlias = Literal["stored", "spooled"]

# Seconds between the thread's looks: at a database that is away (doubling from the first to the
# last), at the spool for what other processes left, and for what has outlived the retention.
_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 5.0
_LOOK_S: Final = 5.0
_PURGE_S: Final = 3600.0
# Rows deleted in one transaction, so that a long purge doesn't keep the writers out.
_PURGE_ROWS: Final = 2000

_c = predictions.c
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counters:
    """What this process's store has done with records since it was opened."""

    stored: int = 0
    spooled: int = 0
    replayed: int = 0
    rejected: int = 0
    lost: int = 0


class Store:
    """The prediction log; safe for threads, for several processes at once, and across fork.

    Every question raises StoreUnavailableError while the database is away, and QueryError for
    a filter, cursor or limit that can't be. ``owner`` narrows a call to one browser's records:
    another's are then as if they weren't there. Only ANYONE means everybody; None is refused.
    """

    def __init__(
        self, engine: sa.Engine, spool: Spool, retention: timedelta | None, *, keep_pictures: bool
    ) -> None:
        self._engine = engine
        self._writing = engine.execution_options(writes=True)
        self._is_remote = engine.dialect.name != "sqlite"
        self._spool = spool
        self._retention = retention
        self._keep_pictures = keep_pictures
        self._counters = Counters()
        self._purged = -float("inf")
        self._closed = False
        # Why the database is away; None while it isn't. It is until its schema has been seen.
        self._away: str | None = "not looked at yet"
        self._after_fork()
        reset = weakref.WeakMethod(self._reset_in_child)
        os.register_at_fork(after_in_child=lambda: (call := reset()) and call())

    @classmethod
    def open(
        cls,
        url: str,
        *,
        spool_dir: Path | str,
        spool_limit_bytes: int = SPOOL_LIMIT_BYTES,
        retention_days: int | None = None,
        keep_pictures: bool = False,
    ) -> Store:
        """Open the log, migrate its schema, and take up what an earlier process had spooled.

        A database that is away doesn't stop this: the store spools and migrates when it is back.

        Args:
            url: ``sqlite:///path`` (the folder is made when missing) or
                ``postgresql://user:password@host/name``.
            spool_dir: folder for what can't be written yet; one for each database and machine.
            spool_limit_bytes: of everything in that folder.
            retention_days: records older than this many days (from 1) are deleted, hourly; None
                keeps them for ever.
            keep_pictures: whether the pictures are kept as they were sent; else `record` leaves
                them out.

        Raises:
            ConfigError: a URL, folder, limit or retention that can't be.
            SchemaVersionError: the database was made by a newer Inkdigits.
        """
        if retention_days is not None and retention_days < 1:
            raise ConfigError(f"INKDIGITS_RETENTION_DAYS is a day or more; not {retention_days}")
        engine = database.connect(url)
        if engine.dialect.name == "sqlite" and engine.url.database:
            try:
                Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"the folder of the database can't be made: {error}") from error
        store = cls(
            engine,
            Spool(spool_dir, spool_limit_bytes),
            None if retention_days is None else timedelta(days=retention_days),
            keep_pictures=keep_pictures,
        )
        try:
            store.flush_spool()
        except StoreUnavailableError as error:
            _log.warning("opened without its database, predictions are spooled: %s", error)
        except SchemaVersionError:
            store.close()
            raise
        store._start()
        return store

    def record(self, record: Record) -> Outcome:
        """Keep a prediction, once however often it is recorded (the id decides).

        Returns:
            "stored" in the database, or "spooled" on disk while that is away. Either is kept
            when the process is killed or the power fails.

        Raises:
            SpoolFullError: the database is away and the spool full; the record is kept nowhere.
            SpoolError: the database is away and the spool's disk refuses; likewise.
        """
        self._start()
        if not self._keep_pictures and record.picture is not None:
            record = replace(record, picture=None)
        if self._away is None:
            try:
                self._insert([record])
            except StoreUnavailableError as error:
                _log.warning("the database is away, predictions are spooled: %s", error)
            else:
                self._count(stored=1)
                return "stored"
        try:
            self._spool.append(to_bytes(record))
        except SpoolError:
            self._count(lost=1)
            _log.exception("lost the prediction %s: the spool can't take it", record.id)
            raise
        self._count(spooled=1)
        self._wake.set()
        return "spooled"

    def get(self, record_id: str, *, owner: Owner = ANYONE) -> Record:
        """The record with its picture; RecordNotFoundError if there is none of this owner's."""
        for _ in self._twice_if_spooled():
            with self._transaction(self._engine) as connection:
                query = sa.select(predictions).where(*_named(record_id, owner))
                row = connection.execute(query).mappings().one_or_none()
            if row is not None:
                return from_row(dict(row))
        raise RecordNotFoundError(f"there is no prediction {record_id!r}")

    def page(
        self, filters: Filters | None = None, *, cursor: str | None = None, limit: int = 50
    ) -> Page:
        """Up to ``limit`` (1 to 500) records, newest first, without their pictures.

        Args:
            filters: which records; all when None.
            cursor: a page's ``older`` or ``newer``; the newest records when None. Pages stay
                put while new records come in.
            limit: records on the page.
        """
        query = history.page_query(filters or Filters(), cursor, limit)
        with self._transaction(self._engine) as connection:
            rows = connection.execute(query).mappings().all()
        return history.page_of(rows, cursor, limit)

    def give_feedback(
        self, record_id: str, true_digit: int, by: str, *, owner: Owner = ANYONE
    ) -> Record:
        """Say what a prediction's picture really shows, in place of what was said before.

        Args:
            record_id: of the prediction.
            true_digit: 0 to 9, or NOT_A_DIGIT.
            by: what gave the feedback, such as "page" or "api": 1 to 128 of A-Z a-z 0-9 _.:@-
            owner: whose it must be.

        Returns:
            The record with its feedback.

        Raises:
            RecordError: not such a digit or giver.
            RecordNotFoundError: there is no such record of this owner's.
        """
        values = {
            "true_digit": check_true_digit(true_digit),
            "feedback_us": to_microseconds(datetime.now(UTC)),
            "feedback_by": check_key(by, "the giver of the feedback"),
        }
        return self._set_feedback(record_id, values, owner)

    def clear_feedback(self, record_id: str, *, owner: Owner = ANYONE) -> Record:
        """Take feedback back; raises as `give_feedback`."""
        values = {"true_digit": None, "feedback_us": None, "feedback_by": None}
        return self._set_feedback(record_id, values, owner)

    def delete(self, record_id: str, *, owner: Owner = ANYONE) -> None:
        """Delete a record for good; RecordNotFoundError if there is none of this owner's."""
        self.flush_spool()
        with self._transaction(self._writing) as connection:
            done = connection.execute(sa.delete(predictions).where(*_named(record_id, owner)))
        if done.rowcount == 0:
            raise RecordNotFoundError(f"there is no prediction {record_id!r}")

    def delete_all(self, *, owner: Owner) -> int:
        """Delete all records of an owner, or of ANYONE, for good; returns how many there were.

        What is spooled is written first, so that it can't come back after.
        """
        self.flush_spool()
        filters = Filters(owner=owner)
        with self._transaction(self._writing) as connection:
            done = connection.execute(sa.delete(predictions).where(*history.conditions(filters)))
        return done.rowcount

    def statistics(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        owner: Owner = ANYONE,
        bucket: Bucket = "day",
    ) -> Statistics:
        """The dashboard's figures of the predictions from ``since`` to before ``until``.

        Hours and days are UTC's. More than 10,000 of them are a QueryError.
        """
        filters = Filters(since=since, until=until, owner=owner)
        over_time_query = dashboard.over_time_query(filters, bucket)
        corrected_query = dashboard.corrected_query(filters)
        with self._transaction(self._engine) as connection:
            over_time = connection.execute(over_time_query).mappings().all()
            corrected = connection.execute(corrected_query).mappings().all()
        return dashboard.statistics_of(over_time, corrected, bucket)

    def export(self, form: Format, file: IO[bytes], filters: Filters | None = None) -> int:
        """Write records to a binary file, oldest first; returns how many.

        Owners and pictures are left out. Records are read 1,000 at a time, each as it is then.

        Args:
            form: "csv", "parquet" or "idx"; see `inkdigits.history_export`.
            file: open for writing in binary.
            filters: which records; all when None.

        Raises:
            BackendUnavailableError: "parquet" without pyarrow (extra ``export``).
            QueryError: another format.
        """
        return history_export.write(form, file, self._oldest_first(filters or Filters()))

    def flush_spool(self) -> int:
        """Write what is spooled to the database, whichever process spooled it.

        Returns:
            How many records were taken up; those already there count, and aren't written twice.

        Raises:
            StoreUnavailableError: the database is away; nothing is lost from the spool.
            SpoolError: the spool's disk refuses.
        """
        return self._flush(wait=True)

    def purge(self, now: datetime | None = None) -> int:
        """Delete the records older than the retention; returns how many (0 without one)."""
        if self._retention is None:
            return 0
        oldest = to_microseconds((now or datetime.now(UTC)) - self._retention)
        old = sa.select(_c.id).where(_c.created_us < oldest).order_by(_c.created_us)
        statement = sa.delete(predictions).where(_c.id.in_(old.limit(_PURGE_ROWS)))
        total = 0
        while True:
            with self._transaction(self._writing) as connection:
                deleted = connection.execute(statement).rowcount
            total += deleted
            if deleted < _PURGE_ROWS:
                return total

    def healthy(self) -> bool:
        """Whether the database answers now; at once False while it is known to be away."""
        if self._away is not None:
            return False
        try:
            with self._transaction(self._engine) as connection:
                connection.execute(sa.select(sa.literal(1)))
        except StoreUnavailableError:
            return False
        return True

    def counters(self) -> Counters:
        """What this process has stored, spooled, replayed, rejected and lost so far."""
        with self._counting:
            return replace(self._counters)

    def spooled_bytes(self) -> int:
        """What the spool holds, of all processes, in bytes."""
        return self._spool.size_bytes()

    def close(self) -> None:
        """Stop the thread and let go of the database; what is spooled waits for the next."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _set_feedback(self, record_id: str, values: dict[str, Any], owner: Owner) -> Record:
        for _ in self._twice_if_spooled():
            with self._transaction(self._writing) as connection:
                statement = sa.update(predictions).where(*_named(record_id, owner)).values(values)
                found = connection.execute(statement).rowcount
            if found:
                return self.get(record_id, owner=owner)
        raise RecordNotFoundError(f"there is no prediction {record_id!r}")

    def _oldest_first(self, filters: Filters) -> Iterator[Record]:
        position: tuple[int, str] | None = None
        while True:
            with self._transaction(self._engine) as connection:
                query = history_export.batch_query(filters, position)
                rows = connection.execute(query).mappings().all()
            if not rows:
                return
            yield from (from_row(dict(row)) for row in rows)
            position = (rows[-1]["created_us"], rows[-1]["id"])

    def _twice_if_spooled(self) -> Iterator[None]:
        """Once, and if that didn't do, again after a flush of what may hold the record."""
        yield
        if not self._spool.is_empty():
            self.flush_spool()
            yield

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        """A transaction; whatever the database has against it is a StoreUnavailableError.

        Except for what it has against the values, which would be the same at every repetition.
        """
        # A local file refuses in an instant, if at all; a server may take its time-out to do so.
        if self._away is not None and (self._is_remote or self._away == "not looked at yet"):
            raise StoreUnavailableError(f"the database is away: {self._away}")
        with self._watched(), engine.begin() as connection:
            yield connection

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (exc.DataError, exc.IntegrityError):
            raise
        except (exc.DBAPIError, exc.TimeoutError) as error:
            reason = str(error.orig if isinstance(error, exc.DBAPIError) else error).strip()
            self._away = reason or type(error).__name__
            self._wake.set()
            raise StoreUnavailableError(f"the database is away: {self._away}") from error

    def _insert(self, records: Sequence[Record]) -> None:
        with self._watched(), self._writing.begin() as connection:
            connection.execute(database.insert(self._engine), [to_row(r) for r in records])

    def _flush(self, *, wait: bool) -> int:
        if self._away is not None:
            with self._watched():
                database.migrate(self._engine)
        count = self._spool.drain(self._replay, wait=wait)
        if self._away is not None:
            _log.info("the database is there")
            self._away = None
        if count:
            self._count(replayed=count)
            _log.info("wrote %d spooled predictions", count)
        return count

    def _replay(self, payloads: Sequence[bytes]) -> None:
        readable: list[tuple[bytes, Record]] = []
        for payload in payloads:
            try:
                readable.append((payload, from_bytes(payload)))
            except RecordError as error:
                self._reject(payload, error)
        try:
            self._insert([record for _, record in readable])
        except (exc.DataError, exc.IntegrityError):
            for payload, record in readable:
                try:
                    self._insert([record])
                except (exc.DataError, exc.IntegrityError) as error:
                    self._reject(payload, error)

    def _reject(self, payload: bytes, error: Exception) -> None:
        self._spool.reject(payload)
        self._count(rejected=1)
        _log.error("a spooled prediction can't be written, it is set aside: %s", error)

    def _count(self, **more: int) -> None:
        with self._counting:
            for name, n in more.items():
                setattr(self._counters, name, getattr(self._counters, name) + n)

    def _after_fork(self) -> None:
        self._wake = threading.Event()
        self._starting = threading.Lock()
        self._counting = threading.Lock()
        self._thread: threading.Thread | None = None

    def _reset_in_child(self) -> None:
        # The parent's connections aren't the child's to close, its locks may be held by threads
        # that the child doesn't have, and its thread isn't there either: `record` starts another.
        self._engine.dispose(close=False)
        self._counters = Counters()
        self._after_fork()

    def _start(self) -> None:
        if self._thread is not None:
            return
        with self._starting:
            if self._thread is None and not self._closed:
                thread = threading.Thread(target=self._look_after, name="inkdigits-store")
                thread.daemon = True
                thread.start()
                self._thread = thread

    def _look_after(self) -> None:
        """The thread: migrates, flushes and purges whenever there is a reason to."""
        retry = _FIRST_RETRY_S
        while not self._closed:
            try:
                self._flush(wait=False)
                self._purge_hourly()
                retry = _FIRST_RETRY_S
                self._wake.wait(_LOOK_S)
                self._wake.clear()
            except (StoreError, exc.SQLAlchemyError) as error:
                if retry >= _LAST_RETRY_S:
                    _log.warning("the database is still away: %s", error)
                self._pause(retry)
                retry = min(2 * retry, _LAST_RETRY_S)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._closed and (left := until - time.monotonic()) > 0:
            self._wake.clear()
            self._wake.wait(min(left, 0.1))

    def _purge_hourly(self) -> None:
        if time.monotonic() - self._purged >= _PURGE_S:
            self.purge()
            self._purged = time.monotonic()


def _named(record_id: str, owner: Owner) -> list[sa.ColumnElement[bool]]:
    return [_c.id == record_id, *history.conditions(Filters(owner=owner))]
