"""How rows are committed: many with one commit, without a thread that holds a request up.

A request waits for its row's commit, for a bounded time. There is no added delay: a commit takes
the rows that came while the one before it ran ("group commit", DeWitt et al., "Implementation
techniques for main memory database systems", SIGMOD 1984).

Where a commit waits for no disk, as in SQLite's write-ahead log, a request that finds the database
free commits for all who wait, and no thread is woken. A server or a disk may stop answering for
ever, so that only a thread of its own asks it. The same thread syncs SQLite to the disk, moves rows
from the outbox to the database, tries an unavailable database again, and deletes rows that are
older than the retention.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from inkdigits.errors import OutboxError, RecordError, StoreError, StoreUnavailableError
from inkdigits.log.connections import CONNECT_TIMEOUT_S, STATEMENT_TIMEOUT_S
from inkdigits.log.database import Database
from inkdigits.log.outbox import Outbox, Waiting
from inkdigits.log.record import Row

BATCH: Final = 256
"""The most rows in one commit."""

# Seconds between tries of an unavailable database, doubling from the first to the last.
_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 5.0
# Seconds between: syncs of SQLite, signs of life of the database, looks at the outbox for rows of
# other processes, and purges.
_SYNC_S: Final = 0.5
_PULSE_S: Final = 1.0
_LOOK_S: Final = 5.0
_PURGE_S: Final = 3600.0
# Seconds between a reader's looks at whether the database is available, and that `close` waits.
_GLANCE_S: Final = 0.05
_CLOSE_S: Final = 2.0

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Writer:
    """Writes to the database, one thread at a time; the first use starts the log's own thread.

    ``purge`` deletes some old rows, and returns whether there may be more of them. ``take_over``
    gives what has changed rows in the outbox to those in the database.
    """

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        purge: Callable[[], bool],
        take_over: Callable[[Sequence[Row]], None],
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._purge = purge
        self._take_over = take_over
        self._rows: deque[tuple[Row, Future[None]]] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        # Held by whoever writes; and released to wake the thread, which then acquires it.
        self._turn, self._wakeup = threading.Lock(), threading.Lock()
        self._looks = False
        self._stop = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._retry_s = _FIRST_RETRY_S
        self._retry_at = self._sync_at = self._look_at = self._purge_at = 0.0
        # When the current call of the database began; None between calls.
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
        """Start the thread unless it runs."""
        if self._thread is not None and self._thread.is_alive():
            return  # without the lock, which each request would wait for
        with self._starting:
            if self._stop.is_set() or (self._thread is not None and self._thread.is_alive()):
                return
            # A daemon: a database that does not answer must not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name="inkdigits-log", daemon=True)
            self._thread.start()

    def insert(self, row: Row) -> None:
        """Insert a row, and return when it is committed.

        StoreUnavailableError if it was not in time, RecordError if its values are rejected.
        """
        self._require()
        committed: Future[None] = Future()
        self._rows.append((row, committed))
        if self._database.commits_at_once:
            with self._busy(self._database.wait_s) as is_held:
                while is_held and not committed.done():
                    self._commit()
            self._wait(committed, 0.0)
        else:
            self._wake()
            self._wait(committed, self._database.wait_s)

    def run(self, work: Callable[[], T]) -> T:
        """Run work in the thread, between commits, and return its result, as `insert`."""

        def checked() -> T:
            self._check(writes=True)
            return work()

        self._require()
        return self._call(checked, self._database.wait_s)

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
        answer: Future[T] = Future()
        threading.Thread(target=_answer, args=(ask, answer), daemon=True).start()
        until = time.monotonic() + CONNECT_TIMEOUT_S + STATEMENT_TIMEOUT_S
        while time.monotonic() < until:
            with suppress(TimeoutError):
                return answer.result(_GLANCE_S)
            self.wake()  # the thread's next sign of life shows whether the database answers
            self._check()
        raise StoreUnavailableError("The database has not answered in time.")

    def wake(self) -> None:
        """Have the thread look at the database and the outbox now."""
        self.start()
        self._looks = True
        self._wake()

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

        self._require(available=False)
        return self._call(move_all, None)

    def close(self) -> None:
        """End the thread, after what it has been given; a call that hangs is left behind."""
        self._stop.set()
        self._wake()
        if self._thread is not None:
            self._thread.join(_CLOSE_S + self._database.wait_s)

    def _require(self, *, available: bool = True) -> None:
        self.start()
        if self._stop.is_set():
            raise StoreUnavailableError("The log has been closed.")
        if available:
            self._check(writes=True)

    def _call(self, work: Callable[[], T], wait_s: float | None) -> T:
        answer: Future[T] = Future()
        self._calls.append((work, answer))
        self._wake()
        return self._wait(answer, wait_s)

    def _wake(self) -> None:
        with suppress(RuntimeError):  # it has been woken already
            self._wakeup.release()

    def _wait(self, answer: Future[T], wait_s: float | None) -> T:
        try:
            return answer.result(wait_s)
        except TimeoutError:
            answer.cancel()
            reason = f"no commit within {self._database.wait_s:g} s"
            self._database.fail(reason)
            raise StoreUnavailableError(f"The database is unavailable: {reason}") from None

    def _check(self, *, writes: bool = False) -> None:
        if not self.available:
            self._database.check(writes=writes)

    def _run(self) -> None:
        while not self._stop.is_set() or self._calls or self._rows:
            self._wakeup.acquire(timeout=self._pause())
            if self._looks:
                self._looks, self._look_at = False, 0.0
            self._work()
            if not self._stop.is_set():
                self._tend()
        self._database.sync()

    def _work(self) -> None:
        while self._calls or self._rows:
            with self._busy():
                self._commit()
                if self._calls:
                    _answer(*self._calls.popleft())

    def _pause(self) -> float:
        now = time.monotonic()
        if not self.available:
            return max(0.0, self._retry_at - now)
        return max(0.0, min(_SYNC_S, self._look_at - now, self._purge_at - now))

    def _commit(self) -> None:
        """Insert what waits, at most BATCH rows; the caller holds the turn."""
        taken = [self._rows.popleft() for _ in range(min(BATCH, len(self._rows)))]
        waiting = [one for one in taken if one[1].set_running_or_notify_cancel()]
        try:
            self._check(writes=True)
            self._insert(waiting)
        except StoreError as error:
            for _, committed in waiting:
                if not committed.done():
                    committed.set_exception(error)
        finally:
            for _, committed in waiting:
                _end(committed)

    def _insert(self, waiting: Sequence[tuple[Row, Future[None]]]) -> None:
        if not waiting:
            return
        try:
            self._database.insert([row for row, _ in waiting])
        except RecordError as error:
            if len(waiting) == 1:
                waiting[0][1].set_exception(error)
            for one in waiting if len(waiting) > 1 else ():
                self._insert([one])
        else:
            for _, committed in waiting:
                committed.set_result(None)

    @contextmanager
    def _busy(self, wait_s: float = -1) -> Iterator[bool]:
        """Hold the right to write; yields whether it is held after ``wait_s`` seconds."""
        if not self._turn.acquire(timeout=wait_s):
            yield False
            return
        self._busy_since = time.monotonic()
        try:
            yield True
        finally:
            self._busy_since = None
            self._turn.release()

    def _tend(self) -> None:
        """Do what is due, in short steps: requests wait meanwhile."""
        now = time.monotonic()
        if not self.available:
            if now >= self._retry_at:
                self._reconnect()
            return
        if now >= self._sync_at:
            self._sync_at = now + _SYNC_S
            self._database.sync()
        looks = now >= self._look_at
        try:
            with self._busy():
                if looks:
                    moved = self._move_batch(0.0)
                    self._look_at = now if moved == BATCH else now + _LOOK_S
                if now >= self._purge_at:
                    self._purge_at = now + _PURGE_S  # also if it fails
                    self._purge_at = now if self._purge() else self._purge_at
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
        try:
            self._database.insert([w.row for w in waiting])
            self._take_over([w.row for w in waiting if w.version > 0])
        except RecordError as error:
            if len(waiting) == 1:
                self._outbox.set_aside(waiting[0].row["id"], str(error))
                return []
            return [moved for w in waiting for moved in self._deliver([w])]
        return list(waiting)


def _answer(work: Callable[[], T], answer: Future[T]) -> None:
    """Do some work, unless nobody waits for it any more."""
    if answer.set_running_or_notify_cancel():
        try:
            answer.set_result(work())
        except (StoreError, exc.SQLAlchemyError) as error:
            answer.set_exception(error)
        finally:
            _end(answer)


def _end(answer: Future[T]) -> None:
    if not answer.done():
        answer.set_exception(StoreUnavailableError("The log's thread has ended."))
