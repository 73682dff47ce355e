"""The prediction log: predictions and their feedback, in SQLite or PostgreSQL. Knows no HTTP.

A prediction is never lost to an unavailable database. `Store.keep` waits a bounded time for the
commit; then the row goes to the outbox, and from there to the database when it is available, once.
After the first failure no request waits: rows go to the outbox at once.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final

import sqlalchemy as sa

from inkdigits.errors import (
    OutboxError,
    RecordError,
    RecordNotFoundError,
    StoreError,
    StoreUnavailableError,
)
from inkdigits.log.connections import Options
from inkdigits.log.database import Database
from inkdigits.log.export import Format, write
from inkdigits.log.outbox import OUTBOX_LIMIT_BYTES, Outbox
from inkdigits.log.queries import (
    MAX_PAGE,
    Filters,
    Page,
    Sort,
    conditions,
    named,
    oldest_first,
    page_of,
)
from inkdigits.log.record import (
    ANYONE,
    Kept,
    Owner,
    Record,
    Row,
    Shares,
    check_key,
    check_label,
    from_row,
    to_microseconds,
    to_row,
)
from inkdigits.log.review import FEEDBACK, Reviews
from inkdigits.log.schema import predictions, rollbacks, sign_outs
from inkdigits.log.statistics import Bucket, Statistics, statistics
from inkdigits.log.writer import Writer

# Rows deleted in one transaction, so that requests wait only briefly for a long deletion.
_DELETED_ROWS: Final = 500
_EXPORTED_ROWS: Final = MAX_PAGE

_c = predictions.c
logger = logging.getLogger(__name__)


class Store:
    """The prediction log; safe for threads and for several processes at once, not across a fork.

    No call waits longer than the options' ``wait_s`` for a database that does not answer. Every
    question then raises StoreUnavailableError, and QueryError for an invalid filter, cursor or
    limit. ``owner`` narrows a call to one browser's records: those of others are then as if they
    were not there. Only ANYONE means everybody; None is an error.

    Making it migrates the schema, or ends with a ConfigError or SchemaVersionError. A database that
    is unavailable then is migrated later.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Store(f"sqlite:///{folder}/log.sqlite3", outbox_dir=folder) as store:
    ...         store.page().records
    ()

    Args:
        url: as for `inkdigits.log.connections.connect`.
        outbox_dir: folder for the outbox; one for each database and machine.
        options: how the database is used.
        outbox_limit_bytes: the largest size of the outbox.
        retention_days: older records are deleted, hourly; None keeps them for ever.
        keep_pictures: whether pictures are kept as they were sent; else `keep` leaves them out.
        shares: how much of what is read people review.
    """

    def __init__(
        self,
        url: str,
        *,
        outbox_dir: Path | str,
        options: Options | None = None,
        outbox_limit_bytes: int = OUTBOX_LIMIT_BYTES,
        retention_days: int | None = None,
        keep_pictures: bool = False,
        shares: Shares | None = None,
    ) -> None:
        self._database = Database(url, options or Options())
        self._outbox = Outbox(outbox_dir, outbox_limit_bytes)
        self._retention_days = retention_days
        self._keep_pictures = keep_pictures
        self._writer = Writer(
            *(self._database, self._outbox),
            purge=lambda: self._purge_some() == _DELETED_ROWS,
            take_over=lambda rows: self.reviews.take_over(rows),
        )
        self.reviews = Reviews(self._writer, self._database, self._outbox, shares or Shares())
        began = time.monotonic()
        try:
            self._database.migrate()
        except StoreUnavailableError as error:
            logger.warning("opened without its database, predictions go to the outbox: %s", error)
        except StoreError:
            self.close()
            raise
        else:
            self._database.recover(began)

    def keep(self, record: Record) -> Kept:
        """Keep a prediction, once however often this is called (the id decides); return where.

        Neither "database" nor "outbox" is lost when the process is killed.
        """
        row = to_row(record)
        if not self._keep_pictures:
            row["picture"] = None
        self.reviews.shares.place(row)
        try:
            self._writer.insert(row)
        except StoreUnavailableError:
            pass  # the database has logged its first failure
        except RecordError:
            logger.exception("a prediction is lost: the database rejects its values")
            return "lost"
        else:
            return "database"
        try:
            self._outbox.put(row)
        except OutboxError:
            logger.exception("a prediction is lost: neither database nor outbox can be written")
            return "lost"
        if self._writer.available:
            self._writer.wake()  # it may have recovered before the row was in the outbox
        return "outbox"

    def get(self, record_id: str, *, owner: Owner = ANYONE) -> Record:
        """Return the record with its picture; RecordNotFoundError if the owner has none such."""
        its = named(record_id, owner)
        row: Row | None = None
        try:
            # The outbox first: a row that is being moved is in both for a while, never in none.
            row = self._outbox.find(record_id, owner)
        except OutboxError as error:
            logger.warning("only the database is asked for a prediction: %s", error)
        if row is None:
            query = sa.select(predictions).where(*its)
            row = self._writer.read(lambda asked: asked.execute(query).mappings().one_or_none())
        if row is None:
            raise RecordNotFoundError(f"There is no prediction {record_id!r}.")
        return from_row(row)

    def page(
        self,
        filters: Filters | None = None,
        *,
        cursor: str | None = None,
        limit: int = 50,
        sort: Sort = "time",
    ) -> Page:
        """Return up to ``limit`` (1 to 500) records, newest first, without their pictures.

        The cursor is a page's ``older`` or ``newer`` of the same order; None means the first page.
        """
        chosen = filters or Filters()
        return self._writer.read(lambda asked: page_of(asked, chosen, cursor, limit, sort))

    def count(self, filters: Filters | None = None) -> int:
        """Return how many records the database has."""
        query = sa.select(sa.func.count()).where(*conditions(filters or Filters()))
        return self._writer.read(lambda asked: asked.scalar(query.select_from(predictions)) or 0)

    def give_feedback(
        self, record_id: str, label: str | None, by: str, *, owner: Owner = ANYONE
    ) -> Record:
        """Return a record with new feedback, which says what its picture shows, or with none.

        The feedback of a record that is in the outbox waits there with it. Where reviewers have
        labelled the record, their label holds until they undo it. RecordError for another label or
        name, RecordNotFoundError where this owner has no such record.
        """
        said: dict[str, Any] = dict.fromkeys(FEEDBACK)
        if label is not None:
            said["label"] = check_label(label)
            said["feedback_us"] = to_microseconds(datetime.now(UTC))
            said["feedback_by"] = check_key(by, "the giver of the feedback")
        return self.reviews.feedback(record_id, said, owner)

    def delete(self, record_id: str, *, owner: Owner = ANYONE) -> None:
        """Delete a record for good; RecordNotFoundError if this owner has none such."""
        if self._delete(record_id, named(record_id, owner), owner) == 0:
            raise RecordNotFoundError(f"There is no prediction {record_id!r}.")

    def delete_all(self, *, owner: Owner) -> int:
        """Delete all records of an owner, or of ANYONE, for good; returns how many there were."""
        total = 0
        while deleted := self._delete(None, conditions(Filters(owner=owner)), owner):
            total += deleted
        return total

    def end_promotion(self, promotion: str, reason: str) -> str:
        """Decide for all replicas that a promotion has ended; returns the reason of the first."""
        now = to_microseconds(datetime.now(UTC))
        row = {"promotion": promotion, "decided_us": now, "reason": reason[:400]}

        def decide() -> None:
            with self._database.transaction(writes=True) as connection:
                connection.execute(sa.insert(rollbacks).values(row))

        # The error says that another replica was first.
        with suppress(RecordError):
            self._writer.run(decide)
        return self.ended_promotion(promotion) or reason

    def ended_promotion(self, promotion: str) -> str | None:
        """Return why a promotion has ended; None while it has not."""
        query = sa.select(rollbacks.c.reason).where(rollbacks.c.promotion == promotion)
        return self._writer.read(lambda connection: connection.scalar(query))

    def end_sign_in(self, sign_in: str, hours: int) -> None:
        """Remember for all replicas that a sign-in has ended, for at least some hours."""
        now = to_microseconds(datetime.now(UTC))
        former = sign_outs.c.ended_us < now - hours * 3_600_000_000
        new = sa.insert(sign_outs).values(sign_in=sign_in, ended_us=now)

        def end() -> None:
            with self._database.transaction(writes=True) as connection:
                connection.execute(sa.delete(sign_outs).where(former))
                connection.execute(new)

        with suppress(RecordError):  # it has ended before
            self._writer.run(end)

    def has_ended(self, sign_in: str) -> bool:
        """Return whether a sign-in has ended."""
        query = sa.select(sign_outs.c.sign_in).where(sign_outs.c.sign_in == sign_in)
        return self._writer.read(lambda connection: connection.scalar(query)) is not None

    def statistics(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        owner: Owner = ANYONE,
        bucket: Bucket = "day",
    ) -> Statistics:
        """Return the dashboard's figures of the predictions from ``since`` to before ``until``."""
        filters = Filters(since=since, until=until, owner=owner)
        return self._writer.read(lambda connection: statistics(connection, filters, bucket))

    def export(self, form: Format, file: IO[bytes], filters: Filters | None = None) -> int:
        """Write records, oldest first, as `inkdigits.log.export.write`; returns how many."""
        pages = oldest_first(lambda cursor: self.page(filters, cursor=cursor, limit=_EXPORTED_ROWS))
        return write(form, file, pages)

    def flush_outbox(self) -> int:
        """Move what is in the outbox, of all processes, to the database; returns how many."""
        return self._writer.move()

    def purge(self, now: datetime | None = None) -> int:
        """Delete the records older than the retention; returns how many (0 without one)."""
        total = 0
        while deleted := self._writer.run(lambda: self._purge_some(now)):
            total += deleted
        return total

    @property
    def available(self) -> bool:
        """Whether the database answers, by its last call and the current one; never blocks."""
        self._writer.start()
        return self._writer.available

    def waiting(self) -> int:
        """Return how many records are in the outbox, of all processes."""
        return self._outbox.count()

    def close(self) -> None:
        """End the thread and close the connections; what is in the outbox waits for the next."""
        self._writer.close()
        self._database.close()
        self._outbox.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _delete(
        self, record_id: str | None, its: list[sa.ColumnElement[bool]], owner: Owner
    ) -> int:
        """Delete rows, at most _DELETED_ROWS of the database; returns how many."""

        def delete() -> int:
            # Rows that are being moved to the database would come back after the deletion.
            with self._outbox.moving(self._database.wait_s) as is_held:
                if not is_held:
                    raise StoreUnavailableError("The outbox is in use; try again.")
                with self._database.transaction(writes=True) as connection:
                    deleted = connection.execute(_delete_some(its)).rowcount
                return deleted + self._outbox.delete(record_id, owner)

        return self._writer.run(delete)

    def _purge_some(self, now: datetime | None = None) -> int:
        if self._retention_days is None:
            return 0
        kept_for = timedelta(days=self._retention_days)
        oldest = to_microseconds((now or datetime.now(UTC)) - kept_for)
        with self._database.transaction(writes=True) as connection:
            deleted = connection.execute(_delete_some([_c.created_us < oldest])).rowcount
        return deleted + self._outbox.purge(oldest)


def _delete_some(its: list[sa.ColumnElement[bool]]) -> sa.Delete:
    found = sa.select(_c.id).where(*its).order_by(_c.created_us).limit(_DELETED_ROWS)
    return sa.delete(predictions).where(_c.id.in_(found))
