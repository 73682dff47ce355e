"""Connections to the database under the prediction log, and whether it is away."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite

from inkdigits.errors import ConfigError, StoreUnavailableError
from inkdigits.log.schema import migrate, predictions

CONNECT_TIMEOUT_S: Final = 3
STATEMENT_TIMEOUT_S: Final = 10
BUSY_TIMEOUT_S: Final = 3

_log = logging.getLogger(__name__)


class Database:
    """An engine that remembers whether its database is away.

    After one failure it is away until `is_back` says otherwise, and a question to a server that is
    away is refused at once: nobody waits for the same time-out twice.

    Args:
        url: as for `connect`.
        on_away: called after each failure.
    """

    def __init__(self, url: str, on_away: Callable[[], None]) -> None:
        self.engine = connect(url)
        self._writing = self.engine.execution_options(writes=True)
        self._on_away = on_away
        self._is_remote = self.engine.dialect.name != "sqlite"
        self._is_migrated = False
        self._away: str | None = "it has not been reached yet"
        self.failures = 0  # how often it was found to be away

    @property
    def is_away(self) -> bool:
        """Whether the last that was heard of the database is a failure, or nothing yet."""
        return self._away is not None

    def migrate(self) -> None:
        """Bring the schema up to date, and try that it can be written to.

        Raises:
            StoreUnavailableError: the database can't be reached or refuses.
            SchemaVersionError: it was made by a newer Inkdigits.
        """
        with self._watched():
            migrate(self.engine)
            # A locked SQLite file can still be read, so that the schema alone proves little.
            with self._writing.begin():
                pass
        self._is_migrated = True

    def is_back(self, failures: int) -> None:
        """Say that the database is there, after `migrate` and whatever else had to be done.

        Args:
            failures: how many there were before that began. Another thread's since then is newer
                than what is said here, and counts.
        """
        if self.failures != failures:
            return
        if self._away is not None:
            _log.info("the database is there")
        self._away = None

    @contextmanager
    def transaction(self, *, writes: bool = False) -> Iterator[sa.Connection]:
        """A transaction, committed at the end of the block unless an error leaves it.

        What the database has against the values (DataError, IntegrityError) is passed on, since it
        would be the same at every repetition.

        Raises:
            StoreUnavailableError: the database is away, or is found to be.
        """
        self.check()
        with self._watched(), (self._writing if writes else self.engine).begin() as connection:
            yield connection

    def check(self) -> None:
        """Raise StoreUnavailableError when it's known without asking the database."""
        # A local file refuses in an instant, if at all, and may be read while it can't be written.
        if self._away is not None and (self._is_remote or not self._is_migrated):
            raise StoreUnavailableError(f"the database is away: {self._away}")

    def insert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert predictions, all or none, passing over the ids that are already there."""
        dialect = postgresql if self._is_remote else sqlite
        statement = dialect.insert(predictions).on_conflict_do_nothing(index_elements=["id"])
        with self._watched(), self._writing.begin() as connection:
            connection.execute(statement, rows)

    def after_fork(self) -> None:
        """Forget, in a child process, the connections that are its parent's."""
        self.engine.dispose(close=False)

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (exc.DataError, exc.IntegrityError):
            raise
        except (exc.DBAPIError, exc.TimeoutError) as error:
            reason = str(error.orig if isinstance(error, exc.DBAPIError) else error).strip()
            self.failures += 1
            self._away = reason or type(error).__name__
            self._on_away()
            raise StoreUnavailableError(f"the database is away: {self._away}") from error


def connect(url: str) -> sa.Engine:
    """An engine for a database URL; connects to nothing yet.

    Args:
        url: ``sqlite:///path`` or ``postgresql://user:password@host/name`` (also ``postgres://``
            and ``postgresql+psycopg://``).

    Raises:
        ConfigError: not such a URL, SQLite without a file, or psycopg isn't installed. The
            message never has the URL, which may hold a password.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise ConfigError("DATABASE_URL is not a database URL, such as sqlite:///path") from error
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"}:
        return _connect_sqlite(parsed)
    if parsed.drivername in {"postgres", "postgresql", "postgresql+psycopg"}:
        return _connect_postgresql(parsed.set(drivername="postgresql+psycopg"))
    raise ConfigError(
        f"DATABASE_URL begins with {parsed.drivername!r}; "
        "it must be sqlite:///path or postgresql://user:password@host/name"
    )


def _connect_sqlite(url: sa.URL) -> sa.Engine:
    if not url.database or url.database.startswith((":memory:", "file:")):
        raise ConfigError("DATABASE_URL for SQLite names a file: sqlite:///path/to/inkdigits.db")
    try:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the folder of the database can't be made: {error}") from error
    if Path(url.database).is_dir():
        raise ConfigError(f"DATABASE_URL for SQLite names a file, but {url.database} is a folder")
    engine = sa.create_engine(
        url, connect_args={"timeout": BUSY_TIMEOUT_S}, pool_timeout=CONNECT_TIMEOUT_S
    )

    def configure(connection: Any, _: object) -> None:
        # The driver would begin transactions by guessing from the statement; `begin` does it.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        # In WAL mode NORMAL survives kill -9 but may lose the last commits with the power; FULL
        # syncs each commit, so a stored prediction is as safe as a spooled one.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    def begin(connection: sa.Connection) -> None:
        # A transaction that begins by reading and then writes fails at once, whatever the busy
        # timeout, when another has written meanwhile; IMMEDIATE waits at its beginning instead.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    sa.event.listen(engine, "connect", configure)
    sa.event.listen(engine, "begin", begin)
    return engine


def _connect_postgresql(url: sa.URL) -> sa.Engine:
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigError(
            "DATABASE_URL names PostgreSQL, but psycopg isn't installed; "
            "install inkdigits[postgres]"
        )
    engine = sa.create_engine(
        url,
        pool_pre_ping=True,
        pool_timeout=CONNECT_TIMEOUT_S,
        # A server that vanishes without a word is noticed within the time of a statement.
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": STATEMENT_TIMEOUT_S * 1000,
        },
    )

    def configure(connection: Any, _: object) -> None:
        connection.autocommit = True
        connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_S * 1000}")
        connection.autocommit = False

    sa.event.listen(engine, "connect", configure)
    return engine
