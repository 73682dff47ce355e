"""The database of the prediction log: its connections, and whether it is available."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import orjson
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite

from inkdigits.errors import ConfigError, StoreUnavailableError
from inkdigits.log.locks import file_lock
from inkdigits.log.schema import migrate, predictions

Synchronous: TypeAlias = Literal["normal", "full"]

CONNECT_TIMEOUT_S: Final = 3
STATEMENT_TIMEOUT_S: Final = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the database is used.

    Attributes:
        wait_s: seconds that a request waits for the database before it is unavailable.
        synchronous: "normal" syncs SQLite's commits to the disk each half second, so that a power
            failure may cost that much; "full" syncs each commit. Neither loses what was committed
            when a process is killed.
        pgbouncer: whether PostgreSQL is reached through PgBouncer, whose pooled connections keep
            neither prepared statements nor settings of the session.
    """

    wait_s: float = 0.25
    synchronous: Synchronous = "normal"
    pgbouncer: bool = False


class Database:
    """An engine that remembers whether its database is available.

    After one failure the database counts as unavailable until `recover` is called. No request
    waits for an unavailable database.

    Args:
        url: as for `connect`.
        options: how it is used.

    Attributes:
        engine: the connections.
        wait_s: as in ``options``.
        busy_since: when the writer's current call began (``time.monotonic``); None between calls.
        contact_at: when a call last worked (``time.monotonic``).
    """

    def __init__(self, url: str, options: Options) -> None:
        self.engine = connect(url, options)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self.wait_s = options.wait_s
        self.busy_since: float | None = None
        self.contact_at = 0.0
        self._path = self.engine.url.database or ""
        self._syncs = self.is_sqlite and options.synchronous == "normal"
        self._is_unsynced = False
        self._is_migrated = False
        self._failure: str | None = "it has not been reached yet"
        self._failed_at = 0.0
        # SQLAlchemy does not wrap what fails while a new connection is set up.
        self._driver_error: type[Exception] = self.engine.dialect.loaded_dbapi.Error
        insert = (sqlite if self.is_sqlite else postgresql).insert(predictions)
        self._insert = insert.on_conflict_do_nothing(index_elements=["id"])

    @property
    def available(self) -> bool:
        """Whether the last call worked and the current one is not overdue; never blocks."""
        since = self.busy_since
        if self._failure is None and since is not None and time.monotonic() - since > self.wait_s:
            self.fail(f"it has not answered within {self.wait_s:g} s")
        return self._failure is None

    def fail(self, reason: str) -> None:
        """Count the database as unavailable from now on."""
        if self._failure is None:
            logger.warning("the database is unavailable, predictions go to the outbox: %s", reason)
        self._failure = reason
        self._failed_at = time.monotonic()

    def recover(self, began: float) -> None:
        """Count the database as available again, unless another thread has seen a newer failure.

        Args:
            began: when the calls that worked began (``time.monotonic``).
        """
        if self._failure is not None and self._failed_at <= began:
            logger.info("the database is available")
            self._failure = None

    def check(self, *, writes: bool = False) -> None:
        """Raise StoreUnavailableError if it is known without asking the database."""
        # A local file answers at once, if at all, and may be read while it cannot be written.
        if not self.available and (writes or not self.is_sqlite or not self._is_migrated):
            raise StoreUnavailableError(f"The database is unavailable: {self._failure}")

    def migrate(self) -> None:
        """Bring the schema up to date, and try that the database can be written to.

        Raises:
            StoreUnavailableError: the database cannot be reached, or reports an error.
            SchemaVersionError: it was made by a newer Inkdigits.
        """
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
        # A locked SQLite file can still be read, so that the schema alone proves little.
        self.ping()

    def ping(self) -> None:
        """Begin and end a transaction that may write; StoreUnavailableError if that fails."""
        with self._watched(), self._begin(writes=True):
            pass

    @contextmanager
    def transaction(self, *, writes: bool = False) -> Iterator[sa.Connection]:
        """Yield a connection whose transaction is committed unless an error leaves the block.

        Errors about the values (DataError, IntegrityError) are passed on: they would be the same
        at every repetition.

        Raises:
            StoreUnavailableError: the database is unavailable, or this call finds it to be.
        """
        self.check(writes=writes)
        with self._watched(), self._begin(writes=writes) as connection:
            yield connection

    def insert(
        self, rows: Sequence[Mapping[str, Any]], feedback: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Insert predictions in one transaction, passing over ids that are already there.

        Args:
            rows: as `inkdigits.log.record.to_row` makes them; at least one.
            feedback: ``row_id``, ``true_digit``, ``feedback_us`` and ``feedback_by`` of those
                whose feedback is newer than their row in the database may be.
        """
        with self._watched(), self._begin(writes=True) as connection:
            connection.execute(self._insert, rows)
            if feedback:
                named = predictions.c.id == sa.bindparam("row_id")
                connection.execute(sa.update(predictions).where(named), feedback)
        self._is_unsynced = self._syncs

    def sync(self) -> None:
        """Sync SQLite's commits to the disk, where its own commits do not."""
        if not self._is_unsynced:
            return
        self._is_unsynced = False
        try:
            descriptor = os.open(self._path + "-wal", os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return  # a checkpoint has synced and removed it
        except OSError as error:
            self.fail(f"its write-ahead log cannot be synced: {error}")

    def after_fork(self) -> None:
        """Forget, in a child process, the connections that belong to its parent."""
        self.engine.dispose(close=False)
        self.busy_since = None

    def close(self) -> None:
        """Close the connections, and those of calls that hang when these end."""
        self._failure = "it has been closed"
        sa.event.listen(self.engine.pool, "checkin", lambda _, entry: entry.close())
        self.engine.dispose()

    @contextmanager
    def _begin(self, *, writes: bool) -> Iterator[sa.Connection]:
        # SQLite's busy handler sleeps between its tries; a file lock wakes the next writer at once.
        lock = file_lock(self._path + "-lock") if writes and self.is_sqlite else nullcontext()
        with lock, begin(self.engine, writes=writes) as connection:
            yield connection
        self.contact_at = time.monotonic()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (exc.DataError, exc.IntegrityError):
            raise
        except StoreUnavailableError as error:
            self._is_migrated = False  # another file may be at its path
            self.fail(str(error))
            raise
        except (exc.DBAPIError, exc.TimeoutError, OSError, self._driver_error) as error:
            reason = str(error.orig if isinstance(error, exc.DBAPIError) else error).strip()
            self.fail(reason or type(error).__name__)
            raise StoreUnavailableError(f"The database is unavailable: {self._failure}") from error


def connect(url: str, options: Options | None = None) -> sa.Engine:
    """Make an engine for a database URL; it connects to nothing yet.

    >>> connect("postgres://inkdigits@db/log").dialect.driver
    'psycopg'

    Args:
        url: ``sqlite:///path`` or ``postgresql://user:password@host/name`` (also ``postgres://``
            and ``postgresql+psycopg://``).
        options: how it is used; the defaults when None.

    Raises:
        ConfigError: not such a URL, SQLite without a file, or psycopg is not installed. The
            message never has the URL, which may hold a password.
    """
    options = Options() if options is None else options
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise ConfigError("DATABASE_URL is not a database URL, such as sqlite:///path") from error
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"}:
        if not parsed.database or parsed.database.startswith((":memory:", "file:")):
            raise ConfigError("DATABASE_URL for SQLite names a file: sqlite:///path/to/log.sqlite3")
        return connect_sqlite(parsed.database, options.wait_s, options.synchronous)
    if parsed.drivername in {"postgres", "postgresql", "postgresql+psycopg"}:
        return _connect_postgresql(parsed.set(drivername="postgresql+psycopg"), options)
    raise ConfigError(
        f"DATABASE_URL begins with {parsed.drivername!r}; "
        "it must be sqlite:///path or postgresql://user:password@host/name"
    )


def connect_sqlite(path: Path | str, wait_s: float, synchronous: Synchronous) -> sa.Engine:
    """Make an engine for an SQLite file; the file's folder is made when it is missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with connect_sqlite(f"{folder}/new.sqlite3", 0.25, "full").connect() as connection:
    ...         connection.exec_driver_sql("PRAGMA synchronous").scalar()
    2

    Args:
        path: of the file.
        wait_s: seconds to wait for a lock that another connection holds.
        synchronous: as in `Options`. Without a write-ahead log it is always "full", because
            SQLite may damage the file in a power failure otherwise.

    Raises:
        ConfigError: the folder cannot be made, or the path is a folder.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the folder of the database cannot be made: {error}") from error
    if Path(path).is_dir():
        raise ConfigError(f"DATABASE_URL for SQLite names a file, but {path} is a folder")
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": wait_s},
        pool_timeout=CONNECT_TIMEOUT_S,
        json_serializer=_to_json,
        json_deserializer=orjson.loads,
    )

    def configure(connection: Any, record: Any) -> None:
        # The driver would begin transactions by guessing from the statement; `start` does it.
        connection.isolation_level = None
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        connection.execute(f"PRAGMA synchronous = {synchronous if mode == 'wal' else 'full'}")
        connection.execute("PRAGMA foreign_keys = ON")
        record.info["inode"] = _inode_of(path)

    def start(connection: sa.Connection) -> None:
        # A transaction that begins by reading and then writes fails at once, whatever the busy
        # timeout, when another has written meanwhile; IMMEDIATE waits at its beginning instead.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    sa.event.listen(engine, "connect", configure)
    sa.event.listen(engine, "begin", start)
    return engine


@contextmanager
def begin(engine: sa.Engine, *, writes: bool) -> Iterator[sa.Connection]:
    """Yield a connection in a transaction, which is committed unless an error leaves the block.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with begin(connect_sqlite(f"{folder}/new.sqlite3", 1, "full"), writes=True) as new:
    ...         new.exec_driver_sql("SELECT 7").scalar()
    7

    Args:
        engine: from `connect` or `connect_sqlite`.
        writes: whether the transaction may write.

    Raises:
        StoreUnavailableError: an SQLite file is not at its path after the commit. What is written
            to a deleted file is lost. The engine's connections are closed then.
    """
    with engine.execution_options(writes=writes).connect() as connection:
        with connection.begin():
            yield connection
        path, seen = engine.url.database or "", connection.info.get("inode")
        if not writes or seen is None or _inode_of(path) == seen:
            return
    engine.dispose()
    raise StoreUnavailableError(f"{path} has been deleted or replaced")


def _inode_of(path: Path | str) -> int | None:
    try:
        return os.stat(path).st_ino  # noqa: PTH116 (on the way of each commit)
    except OSError:
        return None


def _to_json(value: object) -> str:
    return orjson.dumps(value).decode()


def _connect_postgresql(url: sa.URL, options: Options) -> sa.Engine:
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigError(
            "DATABASE_URL names PostgreSQL, but psycopg is not installed; "
            "install inkdigits[postgres]"
        )
    # A server that vanishes without a word is noticed within the time of a statement.
    arguments: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": STATEMENT_TIMEOUT_S * 1000,
    }
    if options.pgbouncer:
        arguments["prepare_threshold"] = None
    engine = sa.create_engine(
        url,
        pool_pre_ping=True,
        pool_timeout=CONNECT_TIMEOUT_S,
        connect_args=arguments,
        json_serializer=_to_json,
    )
    timeout_ms = STATEMENT_TIMEOUT_S * 1000

    def configure(connection: Any, _: object) -> None:
        connection.autocommit = True
        connection.execute(f"SET statement_timeout = {timeout_ms}")
        connection.autocommit = False

    def start(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {timeout_ms}")

    if options.pgbouncer:
        sa.event.listen(engine, "begin", start)
    else:
        sa.event.listen(engine, "connect", configure)
    return engine
