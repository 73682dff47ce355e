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
    """How the database is used."""

    # Seconds that a request waits for the database before it counts as unavailable.
    wait_s: float = 0.25
    # "normal" syncs SQLite's commits to the disk each half second, so that a power failure may
    # cost that much; "full" syncs each. Neither loses a commit when a process is killed.
    synchronous: Synchronous = "normal"
    # Whether PostgreSQL is reached through PgBouncer, whose pooled connections keep neither
    # prepared statements nor settings of the session.
    pgbouncer: bool = False


class Database:
    """An engine that remembers whether its database is available.

    Its methods raise StoreUnavailableError for a database that cannot be reached or reports an
    error, and count it as unavailable from then on until `recover` is called. Errors about values
    (DataError, IntegrityError) are passed on: they would be the same at every repetition.
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
        self._is_unsynced = False
        self._is_migrated = False
        # SQLAlchemy does not wrap what fails while a new connection is set up.
        self._driver_error: type[Exception] = self.engine.dialect.loaded_dbapi.Error
        insert = (sqlite if self.is_sqlite else postgresql).insert(predictions)
        self._insert = insert.on_conflict_do_nothing(index_elements=["id"])

    def fail(self, reason: str) -> None:
        """Count the database as unavailable from now on."""
        if self.failure is None:
            logger.warning("the database is unavailable, predictions go to the outbox: %s", reason)
        self.failure = reason
        self._failed_at = time.monotonic()

    def recover(self, began: float) -> None:
        """Count the database as available, unless it failed after calls that worked ``began``."""
        if self.failure is not None and self._failed_at <= began:
            logger.info("the database is available")
            self.failure = None

    def check(self, *, writes: bool = False) -> None:
        """Raise StoreUnavailableError if the database is unavailable, without asking it."""
        # A local file answers at once, if at all, and may be read while it cannot be written.
        if self.failure is not None and (writes or not self.is_sqlite or not self._is_migrated):
            raise StoreUnavailableError(f"The database is unavailable: {self.failure}")

    def migrate(self) -> None:
        """Bring the schema up to date, and try that the database can be written to.

        Raises:
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
        """Begin and end a transaction that may write."""
        with self.transaction(writes=True):
            pass

    @contextmanager
    def transaction(self, *, writes: bool = False) -> Iterator[sa.Connection]:
        """Yield a connection whose transaction is committed unless an error leaves the block."""
        with self._watched(), begin(self.engine, writes=writes) as connection:
            yield connection
        self.contact_at = time.monotonic()

    def insert(
        self, rows: Sequence[Mapping[str, Any]], feedback: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Insert rows of `to_row` in one transaction, passing over ids that are already there.

        ``feedback`` is that of rows (``row_id``) whose row in the database may be older.
        """
        with self.transaction(writes=True) as connection:
            connection.execute(self._insert, rows)
            if feedback:
                named = predictions.c.id == sa.bindparam("row_id")
                connection.execute(sa.update(predictions).where(named), feedback)
        self._is_unsynced = self._syncs

    def sync(self) -> None:
        """Sync SQLite's commits to the disk, where its own commits do not; a failure is noted."""
        if not self._is_unsynced:
            return
        self._is_unsynced = False
        try:
            with Path(self._path + "-wal").open("rb") as log:
                os.fsync(log.fileno())
        except FileNotFoundError:
            return  # a checkpoint has synced and removed it
        except OSError as error:
            self.fail(f"its write-ahead log cannot be synced: {error}")

    def close(self) -> None:
        """Close the connections, and those of calls that hang when these end."""
        self.failure = "it has been closed"
        sa.event.listen(self.engine.pool, "checkin", lambda _, entry: entry.close())
        self.engine.dispose()

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
            raise StoreUnavailableError(f"The database is unavailable: {self.failure}") from error


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
        engine.execution_options(writes=writes).connect() as connection,
    ):
        with connection.begin():
            yield connection
        if not is_locked or _inode_of(path) == connection.info["inode"]:
            return
    engine.dispose()
    raise StoreUnavailableError(f"{path} has been deleted or replaced")


def connect(url: str | sa.URL, options: Options | None = None) -> sa.Engine:
    """Make an engine for a database URL; it connects to nothing yet.

    >>> connect("postgres://inkdigits@db/log").dialect.driver
    'psycopg'

    It is ``sqlite:///path`` (the folder is made when missing), or
    ``postgresql://user:password@host/name`` (also ``postgres://``).

    Raises:
        ConfigError: not such a URL, SQLite without a file or folder, or psycopg is not installed.
            The message never has the URL, which may hold a password.
    """
    options = options or Options()
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        raise ConfigError("DATABASE_URL is not a database URL, such as sqlite:///path") from error
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"}:
        return _connect_sqlite(parsed, options)
    if parsed.drivername in {"postgres", "postgresql", "postgresql+psycopg"}:
        return _connect_postgresql(parsed.set(drivername="postgresql+psycopg"), options)
    raise ConfigError(
        f"DATABASE_URL begins with {parsed.drivername!r}; "
        "it must be sqlite:///path or postgresql://user:password@host/name"
    )


def _connect_sqlite(url: sa.URL, options: Options) -> sa.Engine:
    path = url.database
    if not path or path.startswith((":memory:", "file:")):
        raise ConfigError("DATABASE_URL for SQLite names a file: sqlite:///path/to/log.sqlite3")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the folder of the database cannot be made: {error}") from error
    if Path(path).is_dir():
        raise ConfigError(f"DATABASE_URL for SQLite names a file, but {path} is a folder")
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=path),
        connect_args={"timeout": options.wait_s},
        pool_timeout=CONNECT_TIMEOUT_S,
        json_serializer=_to_json,
        json_deserializer=orjson.loads,
    )

    def configure(connection: Any, record: Any) -> None:
        # The driver would begin transactions by guessing from the statement; `start` does it.
        connection.isolation_level = None
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        # Without a write-ahead log SQLite may damage the file in a power failure if not "full".
        level = options.synchronous if mode == "wal" else "full"
        connection.execute(f"PRAGMA synchronous = {level}")
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


def _inode_of(path: str) -> int | None:
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
