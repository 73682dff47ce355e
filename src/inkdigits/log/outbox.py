"""Gets every prediction into the database, by way of the spool while that is away."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import exc

from inkdigits.errors import RecordError, SpoolError, StoreError, StoreUnavailableError
from inkdigits.log.database import Database
from inkdigits.log.record import Kept, Record, from_bytes, to_bytes, to_row
from inkdigits.log.spool import Spool

# Seconds between the thread's looks: at a database that is away (doubling from the first to the
# last), at the spool for what other processes left, and for what has outlived the retention.
_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 5.0
_LOOK_S: Final = 5.0
_TIDY_S: Final = 3600.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counters:
    """What this process has done with records since its store was opened.

    Attributes:
        stored: written to the database at once.
        spooled: put on disk, the database being away.
        replayed: brought from the spool to the database, whichever process spooled them.
        rejected: found in the spool and refused by the database for what they are; set aside.
        lost: kept nowhere, the spool being full or its disk refusing.
    """

    stored: int = 0
    spooled: int = 0
    replayed: int = 0
    rejected: int = 0
    lost: int = 0


class Keeper:
    """Records into the database or the spool, and a thread that empties the spool.

    Args:
        url: of the database.
        spool: where records wait.
        tidy: called by the thread hourly while the database is there.
    """

    def __init__(self, url: str, spool: Spool, tidy: Callable[[], object]) -> None:
        self.database = Database(url, self._look)
        self.spool = spool
        self._tidy = tidy
        self._tidied = -float("inf")
        self._counters = Counters()
        self._thread: threading.Thread | None
        self._after_fork()
        # Not by a bound method, which would keep a closed store for as long as the process lives.
        reset = weakref.WeakMethod(self._reset_in_child)
        os.register_at_fork(after_in_child=lambda: (call := reset()) and call())

    def record(self, record: Record) -> Kept:
        """Keep a record; `Store.record` says more."""
        self.start()
        if not self.database.is_away:
            try:
                self.database.insert([to_row(record)])
            except StoreUnavailableError as error:
                _log.warning("predictions are spooled: %s", error)
            else:
                self._count(stored=1)
                return "database"
        try:
            self.spool.append(to_bytes(record))
        except SpoolError:
            self._count(lost=1)
            raise
        self._count(spooled=1)
        self._look()
        return "outbox"

    def flush(self, *, wait: bool = True) -> int:
        """Write what is spooled; `Store.flush_spool` says more. Not wait: leave it to another."""
        failures = self.database.failures
        if self.database.is_away:
            self.database.migrate()
        count = self.spool.drain(self._replay, wait=wait)
        # Only now: as long as the spool can't be written, nobody else need try and wait.
        self.database.is_back(failures)
        if count:
            self._count(replayed=count)
            _log.info("took up %d spooled predictions", count)
        return count

    def counters(self) -> Counters:
        """A copy of what has been counted so far."""
        with self._counting:
            return replace(self._counters)

    def start(self) -> None:
        """Start the thread unless it runs, as it doesn't after a fork."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._starting:
            if self._stop.is_set() or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(
                target=self._look_after, name="inkdigits-store", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Stop the thread and close the connections; what is spooled waits for the next."""
        self._stop.set()
        self._look()
        if self._thread is not None:
            self._thread.join()
        self.database.close()

    def _replay(self, payloads: Sequence[bytes]) -> None:
        readable: list[tuple[bytes, Record]] = []
        for payload in payloads:
            try:
                readable.append((payload, from_bytes(payload)))
            except RecordError as error:
                self._reject(payload, error)
        if not readable:
            return
        try:
            self.database.insert([to_row(record) for _, record in readable])
        except (exc.DataError, exc.IntegrityError):
            for payload, record in readable:
                try:
                    self.database.insert([to_row(record)])
                except (exc.DataError, exc.IntegrityError) as error:
                    self._reject(payload, error)

    def _reject(self, payload: bytes, error: Exception) -> None:
        self.spool.reject(payload)
        self._count(rejected=1)
        _log.error("a spooled prediction can't be written, it is set aside: %s", error)

    def _count(self, **more: int) -> None:
        with self._counting:
            for name, n in more.items():
                setattr(self._counters, name, getattr(self._counters, name) + n)

    def _look(self) -> None:
        self._wake.set()

    def _after_fork(self) -> None:
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._starting = threading.Lock()
        self._counting = threading.Lock()
        self._thread = None

    def _reset_in_child(self) -> None:
        # The parent's connections aren't the child's to close, its locks may be held by threads
        # that the child doesn't have, and its thread isn't there either: `record` starts another.
        self.database.after_fork()
        self._counters = Counters()
        self._after_fork()

    def _look_after(self) -> None:
        """The thread: migrates, flushes and tidies whenever there is a reason to."""
        retry = _FIRST_RETRY_S
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self.flush(wait=False)
                if time.monotonic() - self._tidied >= _TIDY_S:
                    self._tidy()
                    self._tidied = time.monotonic()
            except StoreError as error:
                if retry >= _LAST_RETRY_S:
                    _log.warning("predictions stay in the spool: %s", error)
                self._stop.wait(retry)
                retry = min(2 * retry, _LAST_RETRY_S)
            else:
                retry = _FIRST_RETRY_S
                # `close` sets first the one and then the other, so it isn't missed in between.
                if not self._stop.is_set():
                    self._wake.wait(_LOOK_S)
