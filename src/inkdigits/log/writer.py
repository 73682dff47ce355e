"""The one thread of a process that writes to the database: many rows with one commit.

A request hands its row to this thread and waits for the commit, for a bounded time. There is no
added delay: a commit takes the rows that came while the one before it ran ("group commit", DeWitt
et al., "Implementation techniques for main memory database systems", SIGMOD 1984). The thread also
moves rows from the outbox to the database, tries an unavailable database again, and deletes rows
that are older than the retention.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from inkdigits.errors import OutboxError, StoreError, StoreUnavailableError
from inkdigits.log.database import CONNECT_TIMEOUT_S, STATEMENT_TIMEOUT_S, Database
from inkdigits.log.outbox import Outbox, Waiting

BATCH: Final = 256
"""The most rows in one commit."""

# Seconds between tries of an unavailable database, doubling from the first to the last.
_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 5.0
# Seconds between: syncs of SQLite, signs of life of the database, looks at the outbox for rows of
# other processes, and purges.
_SYNC_S: Final = 0.5
_PULSE_S: Final = 1.0
_LOOK_S: Final = 5.0
_PURGE_S: Final = 3600.0
# How long a reader waits between looks at whether the database is available, in seconds.
_GLANCE_S: Final = 0.05
# How long `close` waits for a database that does not answer, in seconds.
_CLOSE_S: Final = 2.0

_FEEDBACK: Final = ("label", "feedback_us", "feedback_by")

logger = logging.getLogger(__name__)
T = TypeVar("T")
Row: TypeAlias = dict[str, Any]
Entry: TypeAlias = "tuple[Row | Callable[[], Any], Future[Any]]"
"""A row to insert, or other work, and the future that its caller waits for."""


def _settle(future: Future[T], work: Callable[[], T]) -> None:
    """Do the work of a future, unless its caller has given up."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except (StoreError, exc.SQLAlchemyError) as error:
        future.set_exception(error)
    finally:
        if not future.done():
            future.set_exception(StoreUnavailableError("The log's thread has ended."))


class Writer:
    """Writes to the database in a thread of its own, which the first use starts.

    ``purge`` deletes some old rows, and returns whether there may be more of them.
    """

    def __init__(self, database: Database, outbox: Outbox, purge: Callable[[], bool]) -> None:
        self._database = database
        self._outbox = outbox
        self._purge = purge
        self.after_fork()

    def after_fork(self) -> None:
        """Forget, in a child process, the thread and the queue of its parent."""
        self._queue: SimpleQueue[Entry | None] = SimpleQueue()
        self._stop = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._retry_s = _FIRST_RETRY_S
        self._retry_at = self._sync_at = self._look_at = self._purge_at = 0.0
        # When the thread's current call of the database began; None between calls.
        self._busy_since: float | None = None

    @property
    def available(self) -> bool:
        """Whether the last call worked and the current one is not overdue; never blocks."""
        database, since = self._database, self._busy_since
        is_overdue = since is not None and time.monotonic() - since > database.wait_s
        if is_overdue and database.failure is None:
            database.fail(f"it has not answered within {database.wait_s:g} s")
        return database.failure is None

    def start(self) -> None:
        """Start the thread unless it runs, as it does not after a fork."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._starting:
            if self._stop.is_set() or (self._thread is not None and self._thread.is_alive()):
                return
            # A daemon: a database that does not answer must not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name="inkdigits-log", daemon=True)
            self._thread.start()

    def insert(self, row: Row) -> None:
        """Insert a row, and return when it is committed.

        Raises:
            StoreUnavailableError: it was not committed in time, or the database is unavailable.
            sqlalchemy.exc.DBAPIError: the database rejects the row for its values.
        """
        self._submit(row, self._database.wait_s)

    def run(self, work: Callable[[], T]) -> T:
        """Run work in the thread, between its commits, and return its result, as `insert`."""

        def checked() -> T:
            self._check(writes=True)
            return work()

        result: T = self._submit(checked, self._database.wait_s)
        return result

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run a query, and return its result or raise as soon as the database is unavailable.

        A server that stops answering holds whoever asks it, so it is asked in a thread that can
        be left behind. A local file needs none.
        """

        def ask() -> T:
            with self._database.transaction() as connection:
                return work(connection)

        self.start()
        self._check()
        if self._database.is_sqlite:
            return ask()
        future: Future[T] = Future()
        asking = threading.Thread(target=_settle, args=(future, ask), daemon=True)
        asking.start()
        until = time.monotonic() + CONNECT_TIMEOUT_S + STATEMENT_TIMEOUT_S
        while time.monotonic() < until:
            asking.join(_GLANCE_S)
            if future.done():
                return future.result()
            self.wake()  # the thread's next sign of life shows whether the database answers
            self._check()
        raise StoreUnavailableError("The database has not answered in time.")

    def wake(self) -> None:
        """Have the thread look at the database and the outbox now."""
        self.start()
        self._queue.put(None)

    def move(self) -> int:
        """Move all rows from the outbox to the database, as `Store.flush_outbox`."""

        def move_all() -> int:
            began = time.monotonic()
            self._database.migrate()
            total = 0
            while moved := self._move_batch(_CLOSE_S):
                total += moved
            self._database.recover(began)
            return total

        total: int = self._submit(move_all, None)
        return total

    def close(self) -> None:
        """End the thread, after what it has been given; a call that hangs is left behind."""
        self._stop.set()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(_CLOSE_S + self._database.wait_s)

    def _submit(self, work: Row | Callable[[], Any], wait_s: float | None) -> Any:
        self.start()
        if self._stop.is_set():
            raise StoreUnavailableError("The log has been closed.")
        if wait_s is not None:
            self._check(writes=True)
        future: Future[Any] = Future()
        self._queue.put((work, future))
        try:
            return future.result(wait_s)
        except TimeoutError:
            future.cancel()
            self._database.fail(f"no commit within {wait_s:g} s")
            raise StoreUnavailableError(
                f"The database has not committed within {wait_s:g} s."
            ) from None

    def _check(self, *, writes: bool = False) -> None:
        if not self.available:
            self._database.check(writes=writes)

    def _run(self) -> None:
        while not self._stop.is_set() or not self._queue.empty():
            self._write(self._take())
            if not self._stop.is_set():
                self._tend()
        self._database.sync()

    def _take(self) -> list[Entry]:
        """Return what waits, at most BATCH entries, or none when it is time to tend."""
        entries: list[Entry] = []
        try:
            entry = self._queue.get(timeout=self._pause())
            while True:
                if entry is None:
                    self._look_at = 0.0
                else:
                    entries.append(entry)
                if len(entries) == BATCH:
                    return entries
                entry = self._queue.get_nowait()
        except Empty:
            return entries

    def _pause(self) -> float:
        now = time.monotonic()
        if not self.available:
            return max(0.0, self._retry_at - now)
        return max(0.0, min(_SYNC_S, self._look_at - now, self._purge_at - now))

    def _write(self, entries: Sequence[Entry]) -> None:
        rows: list[tuple[Row, Future[Any]]] = []
        for work, future in entries:
            if callable(work):
                with self._busy():
                    _settle(future, work)
            elif future.set_running_or_notify_cancel():
                rows.append((work, future))
        if rows:
            self._insert(rows)

    def _insert(self, entries: Sequence[tuple[Row, Future[Any]]]) -> None:
        error: Exception | None = None
        try:
            self._check(writes=True)
            with self._busy():
                self._database.insert([row for row, _ in entries])
        except (exc.DataError, exc.IntegrityError) as found:
            if len(entries) > 1:
                for entry in entries:
                    self._insert([entry])
                return
            error = found
        except StoreError as found:
            error = found
        for _, future in entries:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self._busy_since = time.monotonic()
        try:
            yield
        finally:
            self._busy_since = None

    def _tend(self) -> None:
        """Do what is due, in short steps: requests wait meanwhile."""
        now = time.monotonic()
        if not self.available:
            if now >= self._retry_at:
                self._reconnect()
            return
        looks = now >= self._look_at
        try:
            with self._busy():
                if now >= self._sync_at:
                    self._sync_at = now + _SYNC_S
                    self._database.sync()
                if looks:
                    moved = self._move_batch(0.0)
                    self._look_at = now if moved == BATCH else now + _LOOK_S
                if now >= self._purge_at and not self._purge():
                    self._purge_at = now + _PURGE_S
                silence_s = now - self._database.contact_at
                if silence_s >= (_GLANCE_S if looks else _PULSE_S):
                    self._database.ping()
        except StoreUnavailableError:
            return  # the database has counted it
        except OutboxError as error:
            self._look_at = now + _LOOK_S
            logger.warning("predictions stay in the outbox: %s", error)

    def _reconnect(self) -> None:
        """Try an unavailable database, and count it as available if it is fast enough again."""
        began = batch_began = time.monotonic()
        try:
            with self._busy():
                self._database.migrate()
                moved = BATCH
                while moved == BATCH and not self._stop.is_set():
                    batch_began = time.monotonic()
                    moved = self._move_batch(0.0)
        except OutboxError as error:
            logger.warning("predictions stay in the outbox: %s", error)
        except StoreError as error:
            if self._retry_s >= _LAST_RETRY_S:
                logger.warning("predictions stay in the outbox: %s", error)
            self._retry_at = time.monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _LAST_RETRY_S)
            return
        self._retry_s = _FIRST_RETRY_S
        self._retry_at = time.monotonic() + self._retry_s
        if time.monotonic() - batch_began <= self._database.wait_s:
            self._database.recover(began)
            # A row may have come to the outbox after the last look, and before it was known that
            # the database is available: whoever put it there did not wake this thread.
            self._look_at = 0.0

    def _move_batch(self, wait_s: float) -> int:
        """Move up to BATCH rows from the outbox to the database; returns how many."""
        with self._outbox.moving(wait_s) as is_held:
            # Another process does it where this one does not hold the lock.
            waiting = self._outbox.first(BATCH) if is_held else []
            if not waiting:
                return 0
            # If the process ends after the commit and before the removal, the rows are inserted
            # again, which changes nothing.
            self._outbox.remove(self._deliver(waiting))
            logger.info("moved %d predictions from the outbox to the database", len(waiting))
            return len(waiting)

    def _deliver(self, waiting: Sequence[Waiting]) -> list[Waiting]:
        """Insert rows of the outbox; returns those that are in the database then."""
        feedback = [
            {"row_id": w.row["id"], **{name: w.row[name] for name in _FEEDBACK}}
            for w in waiting
            if w.version > 0
        ]
        try:
            self._database.insert([w.row for w in waiting], feedback)
        except (exc.DataError, exc.IntegrityError) as error:
            if len(waiting) == 1:
                self._outbox.set_aside(waiting[0].row["id"], str(error.orig))
                return []
            return [moved for w in waiting for moved in self._deliver([w])]
        return list(waiting)
