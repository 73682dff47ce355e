"""The database of the prediction log: transactions, insertions, and whether it is available."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy import exc

from inkdigits.errors import RecordError, StoreUnavailableError
from inkdigits.log.connections import LIMIT_STATEMENTS, Options, connect
from inkdigits.log.locks import file_lock
from inkdigits.log.schema import migrate, predictions

CHECKPOINT_S: Final = 2.0
"""Seconds between checkpoints of SQLite's write-ahead log, while there are commits."""

# SQLite makes a checkpoint in a commit where the log has this many pages nevertheless (64 MiB).
_CHECKPOINT_PAGES: Final = 16_384
# How long commits wait for a checkpoint that waits for readers, in milliseconds.
_CHECKPOINT_WAIT_MS: Final = 10

# The columns of the predictions, and those that are JSON.
_NAMES = predictions.columns.keys()
_INSERT = f"INSERT INTO predictions ({', '.join(_NAMES)}) VALUES"
_JSON = frozenset(c.name for c in predictions.columns if isinstance(c.type, sa.JSON))

logger = logging.getLogger(__name__)


def _check_file(engine: sa.Engine, inode: int | None) -> None:
    """Raise StoreUnavailableError if another file, or none, is at the engine's path."""
    path = engine.url.database or ""
    try:
        found: int | None = os.stat(path).st_ino  # noqa: PTH116 (on the way of each commit)
    except OSError:
        found = None
    if found != inode:
        engine.dispose()
        raise StoreUnavailableError(f"{path} has been deleted or replaced")


@contextmanager
def begin(
    engine: sa.Engine, *, writes: bool, lock_wait_s: float | None = None
) -> Iterator[sa.Connection]:
    """Yield a connection in a transaction, which is committed unless an error leaves the block.

    Writes to an SQLite file take their turns by a file lock beside it. SQLite's own busy handler
    sleeps between its tries, and a write under load may never get its turn.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with begin(connect(f"sqlite:///{folder}/new.sqlite3"), writes=True) as new:
    ...         new.exec_driver_sql("SELECT 7").scalar()
    7

    Raises:
        StoreUnavailableError: an SQLite file is not at its path after the commit. What is written
            to a deleted file is lost. The engine's connections are closed then.
    """
    path = engine.url.database or ""
    is_locked = writes and engine.dialect.name == "sqlite"
    with (
        file_lock(path + "-lock", lock_wait_s) if is_locked else nullcontext(),
        engine.connect() as connection,
    ):
        connection.execution_options(begin="BEGIN IMMEDIATE" if writes else "BEGIN")
        with connection.begin():
            yield connection
        if is_locked:
            _check_file(engine, connection.info["inode"])


class Database:
    """An engine that remembers whether its database is available.

    Its methods raise StoreUnavailableError for a database that cannot be reached or reports an
    error, and count it as unavailable from then on until `recover` is called. For values that the
    database rejects they raise RecordError, since a repetition would not help.
    """

    def __init__(self, url: str, options: Options) -> None:
        self.engine = connect(url, options)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self.wait_s = options.wait_s
        self.failure: str | None = "it has not been reached yet"
        """Why the database is unavailable; None while it is available."""
        self.contact_at = 0.0
        """When a call last worked (``time.monotonic``)."""
        self._failed_at = 0.0
        self._path = self.engine.url.database or ""
        self._syncs = self.is_sqlite and options.synchronous == "normal"
        self.commits_at_once = False
        """Whether a commit waits neither for a network nor for a disk, as in SQLite's log."""
        self._is_unsynced = False
        self._is_migrated = False
        # SQLAlchemy does not wrap what fails while a new connection is set up, nor in `insert`.
        self._dbapi: Any = self.engine.dialect.loaded_dbapi
        # The driver's connection that `insert` keeps: one of the pool costs more than its use.
        self._connection: Any = None
        self._inode: int | None = None
        self._limits_each_transaction = options.pgbouncer and not self.is_sqlite
        self._checkpoint_at = time.monotonic() + CHECKPOINT_S
        self._is_closed = False
        if self.is_sqlite:
            pages = f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}"
            sa.event.listen(self.engine, "connect", lambda new, _: new.execute(pages))

    def fail(self, reason: str) -> None:
        """Count the database as unavailable from now on."""
        if self.failure is None:
            logger.warning("the database is unavailable, predictions go to the outbox: %s", reason)
        self.failure = reason
        self._failed_at = time.monotonic()

    def recover(self, began: float) -> None:
        """Count the database as available, unless it failed after calls that worked ``began``."""
        if self.failure is not None and self._failed_at <= began:
            if self._failed_at:
                logger.info("the database is available")
            self._drop()  # a server that was restarted has closed it
            self.failure = None

    def check(self, *, writes: bool = False) -> None:
        """Raise StoreUnavailableError if the database is unavailable, without asking it."""
        # A local file answers at once, if at all, and may be read while it cannot be written.
        if self.failure is not None and (writes or not self.is_sqlite or not self._is_migrated):
            raise StoreUnavailableError(f"The database is unavailable: {self.failure}")

    def migrate(self) -> None:
        """Bring the schema up to date, and try that the database can be written to."""
        with self._watched():
            journal_mode = migrate(self.engine)
        if journal_mode not in {None, "wal"} and not self._is_migrated:
            logger.warning(
                "SQLite cannot use its write-ahead log in %s (its journal mode there is %s), "
                "so readers and writers wait for each other; keep the log on a local disk, or "
                "use PostgreSQL (DATABASE_URL)",
                Path(self._path).parent,
                journal_mode,
            )
        self._is_migrated = True
        self.commits_at_once = self._syncs and journal_mode == "wal"
        # A locked SQLite file can still be read, so that the schema alone proves little.
        self.ping()

    def ping(self) -> None:
        """Begin and end a transaction that may write."""
        with self._watched(), begin(self.engine, writes=True):
            pass
        self.contact_at = time.monotonic()

    @contextmanager
    def transaction(self, *, writes: bool = False) -> Iterator[sa.Connection]:
        """Yield a connection whose transaction is committed unless an error leaves the block."""
        with self._watched(), begin(self.engine, writes=writes) as connection:
            yield connection
        self.contact_at = time.monotonic()
        if writes:
            self._is_unsynced = self.is_sqlite

    def insert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows of `to_row`, passing over ids that are already there; one thread at a time.

        One statement inserts them all, and is a transaction by itself. Each call of the driver
        gives up the interpreter's lock, and waits for it again while other threads compute.
        """
        mark = f"({', '.join(['?' if self.is_sqlite else '%s'] * len(_NAMES))})"
        statement = f"{_INSERT} {', '.join([mark] * len(rows))} ON CONFLICT (id) DO NOTHING"
        values = [_for_driver(name, row[name]) for row in rows for name in _NAMES]
        dialect = self.engine.dialect
        with self._watched():
            connection = self._connection or self._connect()
            self._connection = None  # until it has proved to be well
            try:
                cursor = connection.cursor()
                if self._limits_each_transaction:
                    dialect.do_execute(cursor, LIMIT_STATEMENTS, ())
                dialect.do_execute(cursor, statement, values)
                dialect.do_commit(connection)
                if self.is_sqlite:
                    _check_file(self.engine, self._inode)
            except BaseException:
                connection.close()
                raise
        self._connection = connection
        self.contact_at = time.monotonic()
        self._is_unsynced = self.is_sqlite
        if self._is_closed:
            self.close()

    def _connect(self) -> Any:
        pooled = self.engine.raw_connection()
        pooled.detach()
        self._inode = pooled.info.get("inode")
        connection: Any = pooled.dbapi_connection
        if not self.is_sqlite:
            connection.autocommit = not self._limits_each_transaction
        return connection

    def sync(self) -> None:
        """Sync SQLite's commits to the disk, and copy them from its write-ahead log into the file.

        Neither is left to the commits, since requests wait for these. A failure is noted.
        """
        if not self._is_unsynced:
            return
        self._is_unsynced = False
        try:
            if self._syncs:
                with Path(self._path + "-wal").open("rb") as log:
                    os.fsync(log.fileno())
            if time.monotonic() >= self._checkpoint_at:
                self._checkpoint_at = time.monotonic() + CHECKPOINT_S
                self._checkpoint()
        except FileNotFoundError:
            return  # a checkpoint has synced and removed it
        except OSError as error:
            self._is_unsynced = True
            self.fail(f"its write-ahead log cannot be synced: {error}")

    def _checkpoint(self) -> None:
        """Copy the write-ahead log into the file, and have the next commit begin it anew.

        Nearly all of it is copied while commits go on, and the rest while they wait. Where this
        fails, as on a full disk, what is committed stays in the write-ahead log.
        """
        try:
            with self.engine.connect() as connection:
                connection.detach()  # its timeout is not that of the others
                connection.execution_options(begin=None)
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {_CHECKPOINT_WAIT_MS}")
                for mode in ("PASSIVE", "RESTART"):
                    connection.exec_driver_sql(f"PRAGMA wal_checkpoint({mode})")
        except (exc.DBAPIError, exc.TimeoutError, self._dbapi.Error) as error:
            logger.warning("SQLite's write-ahead log cannot be copied into its file: %s", error)

    def close(self) -> None:
        """Close the connections, and those of calls that hang when these end."""
        self.failure = "it has been closed"
        self._is_closed = True
        sa.event.listen(self.engine.pool, "checkin", lambda _, entry: entry.close())
        self.engine.dispose()
        self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (
            *(exc.DataError, exc.IntegrityError),
            *(self._dbapi.DataError, self._dbapi.IntegrityError),
        ) as error:
            raise RecordError(f"The database rejects the values: {error}") from error
        except StoreUnavailableError as error:
            self._is_migrated = False  # another file may be at its path
            self.fail(str(error))
            raise
        except (exc.DBAPIError, exc.TimeoutError, OSError, self._dbapi.Error) as error:
            reason = str(error.orig if isinstance(error, exc.DBAPIError) else error).strip()
            self.fail(reason or type(error).__name__)
            raise StoreUnavailableError(f"The database is unavailable: {self.failure}") from error


def _for_driver(name: str, value: Any) -> Any:
    return orjson.dumps(value).decode() if name in _JSON and value is not None else value
