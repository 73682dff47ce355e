"""The prediction log: predictions and their feedback, in SQLite or PostgreSQL. Knows no HTTP.

A prediction is never lost to a database that is away. `Store.record` writes it or, when the
database can't be reached, spools it to disk; a thread of the store brings the spool home when the
database is back, each record once. After the first failure nobody waits for time-outs: the store
spools at once until that thread finds the database well.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import sqlalchemy as sa

from inkdigits.errors import ConfigError, RecordNotFoundError, StoreError, StoreUnavailableError
from inkdigits.log import export as history_export
from inkdigits.log import queries as history
from inkdigits.log import statistics as dashboard
from inkdigits.log.export import Format
from inkdigits.log.outbox import Counters, Keeper
from inkdigits.log.queries import Filters, Page
from inkdigits.log.record import (
    ANYONE,
    Kept,
    Owner,
    Record,
    check_key,
    check_true_digit,
    from_row,
    is_id,
    to_microseconds,
)
from inkdigits.log.schema import predictions
from inkdigits.log.spool import SPOOL_LIMIT_BYTES, Spool
from inkdigits.log.statistics import Bucket, Statistics

MAX_RETENTION_DAYS: Final = 36_500

# Rows deleted in one transaction, so that a long purge doesn't keep the writers out.
_PURGE_ROWS: Final = 2000

_c = predictions.c
_log = logging.getLogger(__name__)


class Store:
    """The prediction log; safe for threads, for several processes at once, and across fork.

    Every question raises StoreUnavailableError while the database is away, and QueryError for
    a filter, cursor or limit that can't be. ``owner`` narrows a call to one browser's records:
    another's are then as if they weren't there. Only ANYONE means everybody; None is refused.
    """

    def __init__(
        self, url: str, spool: Spool, retention: timedelta | None, *, keep_pictures: bool
    ) -> None:
        self._keeper = Keeper(url, spool, self.purge)
        self._database = self._keeper.database
        self._retention = retention
        self._keep_pictures = keep_pictures

    @classmethod
    def open(
        cls,
        url: str,
        *,
        outbox_dir: Path | str,
        spool_limit_bytes: int = SPOOL_LIMIT_BYTES,
        retention_days: int | None = None,
        keep_pictures: bool = False,
    ) -> Store:
        """Open the log, migrate its schema, and take up what an earlier process had spooled.

        A database that is away doesn't stop this: the store spools and migrates when it is back.

        Args:
            url: ``sqlite:///path`` (the folder is made when missing) or
                ``postgresql://user:password@host/name``.
            outbox_dir: folder for what can't be written yet; one for each database and machine.
            spool_limit_bytes: of everything in that folder.
            retention_days: records older than this many days (1 to MAX_RETENTION_DAYS) are
                deleted, hourly; None keeps them for ever.
            keep_pictures: whether the pictures are kept as they were sent; else `record` leaves
                them out.

        Raises:
            ConfigError: a URL, folder, limit or retention that can't be.
            SchemaVersionError: the database was made by a newer Inkdigits.
            SpoolError: what is in the spool can't be read.
        """
        if retention_days is not None and not 1 <= retention_days <= MAX_RETENTION_DAYS:
            raise ConfigError(
                f"INKDIGITS_RETENTION_DAYS is 1 to {MAX_RETENTION_DAYS}; not {retention_days}"
            )
        retention = None if retention_days is None else timedelta(days=retention_days)
        spool = Spool(outbox_dir, spool_limit_bytes)
        store = cls(url, spool, retention, keep_pictures=keep_pictures)
        try:
            store.flush_spool()
        except StoreUnavailableError as error:
            _log.warning("opened without its database, predictions are spooled: %s", error)
        except StoreError:
            store.close()
            raise
        store._keeper.start()
        return store

    def keep(self, record: Record) -> Kept:
        """Keep a prediction, once however often this is called (the id decides).

        Returns:
            "database", or "outbox" while the database is unavailable: neither is lost when the
            process is killed. "lost" where both failed, which is logged as an error.
        """
        if not self._keep_pictures and record.picture is not None:
            record = replace(record, picture=None)
        try:
            return self._keeper.record(record)
        except StoreError:
            # Whoever waits for a digit cannot mend the log; the operator reads this.
            _log.exception("a prediction was not kept")
            return "lost"

    def get(self, record_id: str, *, owner: Owner = ANYONE) -> Record:
        """The record with its picture; RecordNotFoundError if there is none of this owner's."""
        for _ in self._twice_if_spooled():
            with self._database.transaction() as connection:
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
        with self._database.transaction() as connection:
            rows = connection.execute(query).mappings().all()
        return history.page_of(rows, cursor, limit)

    def give_feedback(
        self, record_id: str, true_digit: int, by: str, *, owner: Owner = ANYONE
    ) -> Record:
        """Say what a prediction's picture really shows, in place of what was said before.

        Args:
            record_id: of the prediction.
            true_digit: 0 to 9, or NO_DIGIT.
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
        self._settle()
        with self._database.transaction(writes=True) as connection:
            done = connection.execute(sa.delete(predictions).where(*_named(record_id, owner)))
        if done.rowcount == 0:
            raise RecordNotFoundError(f"there is no prediction {record_id!r}")

    def delete_all(self, *, owner: Owner) -> int:
        """Delete all records of an owner, or of ANYONE, for good; returns how many there were.

        What is spooled is written first, so that it can't come back after.
        """
        self._settle()
        filters = Filters(owner=owner)
        with self._database.transaction(writes=True) as connection:
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
        with self._database.transaction() as connection:
            return dashboard.statistics(connection, filters, bucket)

    def export(self, form: Format, file: IO[bytes], filters: Filters | None = None) -> int:
        """Write records to a binary file, oldest first; returns how many.

        Owners and pictures are left out. Records are read 1,000 at a time, each as it is then.

        Args:
            form: "csv", "parquet" or "idx"; see `inkdigits.log.export`.
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
        return self._keeper.flush()

    def purge(self, now: datetime | None = None) -> int:
        """Delete the records older than the retention; returns how many (0 without one)."""
        if self._retention is None:
            return 0
        oldest = to_microseconds((now or datetime.now(UTC)) - self._retention)
        old = sa.select(_c.id).where(_c.created_us < oldest).order_by(_c.created_us)
        statement = sa.delete(predictions).where(_c.id.in_(old.limit(_PURGE_ROWS)))
        total = 0
        while True:
            with self._database.transaction(writes=True) as connection:
                deleted = connection.execute(statement).rowcount
            total += deleted
            if deleted < _PURGE_ROWS:
                return total

    @property
    def available(self) -> bool:
        """Whether the database took or answered what it was last asked; asks nothing itself."""
        return not self._database.is_away

    def healthy(self) -> bool:
        """Whether the database answers now; at once False while it is known to be away."""
        if self._database.is_away:
            return False
        try:
            with self._database.transaction() as connection:
                connection.execute(sa.select(sa.literal(1)))
        except StoreUnavailableError:
            return False
        return True

    def counters(self) -> Counters:
        """What this process has stored, spooled, replayed, rejected and lost so far."""
        return self._keeper.counters()

    def spooled_bytes(self) -> int:
        """What the spool holds, of all processes, in bytes."""
        return self._keeper.spool.size_bytes()

    def close(self) -> None:
        """Stop the thread and let go of the database; what is spooled waits for the next."""
        self._keeper.close()

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
            with self._database.transaction(writes=True) as connection:
                statement = sa.update(predictions).where(*_named(record_id, owner)).values(values)
                found = connection.execute(statement).rowcount
            if found:
                return self.get(record_id, owner=owner)
        raise RecordNotFoundError(f"there is no prediction {record_id!r}")

    def _oldest_first(self, filters: Filters) -> Iterator[Record]:
        position: tuple[int, str] | None = None
        while True:
            with self._database.transaction() as connection:
                query = history_export.batch_query(filters, position)
                rows = connection.execute(query).mappings().all()
            if not rows:
                return
            yield from (from_row(dict(row)) for row in rows)
            position = (rows[-1]["created_us"], rows[-1]["id"])

    def _settle(self) -> bool:
        """Write what is spooled, if anything is; whether it was."""
        if self._keeper.spool.is_empty():
            return False
        self._database.check()
        self.flush_spool()
        return True

    def _twice_if_spooled(self) -> Iterator[None]:
        """Once, and if that didn't do, again after a flush of what may hold the record."""
        yield
        if self._settle():
            yield


def _named(record_id: str, owner: Owner) -> list[sa.ColumnElement[bool]]:
    # Before the database sees it: PostgreSQL takes no text with a zero byte, for one.
    if not is_id(record_id):
        raise RecordNotFoundError(f"there is no prediction {record_id!r}")
    return [_c.id == record_id, *history.conditions(Filters(owner=owner))]
