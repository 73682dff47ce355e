"""How SQLite and PostgreSQL are connected to."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import orjson
import sqlalchemy as sa
from sqlalchemy import exc

from inkdigits.errors import BackendUnavailableError, ConfigError

Synchronous: TypeAlias = Literal["normal", "full"]

CONNECT_TIMEOUT_S: Final = 3
STATEMENT_TIMEOUT_S: Final = 10
LIMIT_STATEMENTS: Final = f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_S * 1000}"
"""Has PostgreSQL end a statement that takes longer, until the end of the transaction."""


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


def connect(url: str | sa.URL, options: Options | None = None) -> sa.Engine:
    """Make an engine for ``sqlite:///path`` or ``postgresql://user:password@host/name``.

    It connects to nothing yet; SQLite's folder is made when missing. A ConfigError, which never has
    the URL with its password, says that it is not such a URL or psycopg is not installed.

    >>> connect("postgres://inkdigits@db/log").dialect.driver
    'psycopg'
    """
    options = options or Options()
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        raise ConfigError("DATABASE_URL is not a database URL, such as sqlite:///path") from error
    if parsed.get_backend_name() == "sqlite":
        return _connect_sqlite(parsed.database, options)
    if parsed.drivername in {"postgres", "postgresql", "postgresql+psycopg"}:
        return _connect_postgresql(parsed.set(drivername="postgresql+psycopg"), options)
    raise ConfigError(
        f"DATABASE_URL begins with {parsed.drivername!r}; "
        "it must be sqlite:///path or postgresql://user:password@host/name"
    )


def _connect_sqlite(path: str | None, options: Options) -> sa.Engine:
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
        json_serializer=lambda value: orjson.dumps(value).decode(),
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
        record.info["inode"] = Path(path).stat().st_ino if Path(path).exists() else None

    def start(connection: sa.Connection) -> None:
        # A transaction that begins by reading and then writes fails at once, whatever the busy
        # timeout, when another has written meanwhile; IMMEDIATE waits at its beginning instead.
        if (begin := connection.get_execution_options().get("begin", "BEGIN")) is not None:
            connection.exec_driver_sql(begin)

    sa.event.listen(engine, "connect", configure)
    sa.event.listen(engine, "begin", start)
    return engine


def _connect_postgresql(url: sa.URL, options: Options) -> sa.Engine:
    if importlib.util.find_spec("psycopg") is None:
        needs = "PostgreSQL, which DATABASE_URL names, needs psycopg"
        raise BackendUnavailableError.without("postgres", needs)
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
        json_serializer=lambda value: orjson.dumps(value).decode(),
    )

    def configure(connection: Any, _: object) -> None:
        connection.autocommit = True
        connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_S * 1000}")
        connection.autocommit = False

    if options.pgbouncer:
        sa.event.listen(engine, "begin", lambda new: new.exec_driver_sql(LIMIT_STATEMENTS))
    else:  # not a startup parameter, which proxies reject
        sa.event.listen(engine, "connect", configure)
    return engine
