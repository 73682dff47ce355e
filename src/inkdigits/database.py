"""The database under the prediction log: its table, its connections, its migrations.

Times are integers, microseconds since 1970 UTC: the same exact order and arithmetic on SQLite
(which has no time type) as on PostgreSQL, and no time zone to get wrong.
"""

from __future__ import annotations

import fcntl
import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql, sqlite

from inkdigits.errors import ConfigError
from inkdigits.record import SchemaVersionError

CONNECT_TIMEOUT_S: Final = 3
STATEMENT_TIMEOUT_S: Final = 10
BUSY_TIMEOUT_S: Final = 3
# "inkdigit" in ASCII: the advisory lock that migrations hold on PostgreSQL, a signed 64-bit key.
_ADVISORY_LOCK: Final = int.from_bytes(b"inkdigit", "big")
# Alembic's `op` and `context` are global to the process, so two threads can't migrate at once.
_ALEMBIC = threading.Lock()

metadata = sa.MetaData()
predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("created_us", sa.BigInteger, nullable=False),
    sa.Column("digit", sa.SmallInteger),
    sa.Column("confidence", sa.Double, nullable=False),
    sa.Column("probabilities", sa.JSON, nullable=False),
    sa.Column("decision", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(32)),
    sa.Column("novelty", sa.Double),
    sa.Column("model_version", sa.String(200), nullable=False),
    sa.Column("input_kind", sa.String(16), nullable=False),
    sa.Column("owner", sa.String(128)),
    sa.Column("ink", sa.LargeBinary, nullable=False),
    sa.Column("ink_sha256", sa.String(64), nullable=False),
    # Last of the first schema: SQLite reads a row's columns in order, and this one is large.
    sa.Column("picture", sa.LargeBinary),
    sa.Column("true_digit", sa.SmallInteger),
    sa.Column("feedback_us", sa.BigInteger),
    sa.Column("feedback_by", sa.String(128)),
)
_columns = predictions.c
_given = _columns.true_digit.is_not(None)
# Each filter of the history has an index that ends in the order of its pages (created_us, id).
# The decision's also answers the dashboard's counts over time, without touching the rows.
sa.Index("ix_predictions_time", _columns.created_us, _columns.id)
sa.Index("ix_predictions_decision", _columns.decision, _columns.created_us, _columns.id)
sa.Index("ix_predictions_digit", _columns.digit, _columns.created_us, _columns.id)
sa.Index("ix_predictions_owner", _columns.owner, _columns.created_us, _columns.id)
# Only the corrected ones, with all that the dashboard asks about them.
sa.Index(
    "ix_predictions_corrected",
    *(_columns.created_us, _columns.id, _columns.true_digit, _columns.digit),
    *(_columns.decision, _columns.confidence),
    sqlite_where=_given,
    postgresql_where=_given,
)


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


def insert(engine: sa.Engine) -> sa.Insert:
    """An INSERT into the predictions that passes over an id that is already there."""
    if engine.dialect.name == "postgresql":
        return postgresql.insert(predictions).on_conflict_do_nothing(index_elements=["id"])
    return sqlite.insert(predictions).on_conflict_do_nothing(index_elements=["id"])


def migrate(engine: sa.Engine, revision: str = "head") -> None:
    """Bring the schema up to a revision, in one transaction and under a lock between processes.

    The lock is advisory on PostgreSQL, and a file beside the database on SQLite (where the switch
    to WAL can't wait for other connections by itself).

    Args:
        engine: from `connect`.
        revision: the newest when not given.

    Raises:
        SchemaVersionError: the database is at a revision that this Inkdigits doesn't know.
        sqlalchemy.exc.DBAPIError: the database can't be reached or refuses.
    """
    config = Config()
    config.set_main_option("script_location", "inkdigits:migrations")
    scripts = ScriptDirectory.from_config(config)
    with engine.connect() as connection:
        at = _revision(connection)
    known = {script.revision for script in scripts.walk_revisions()}
    if at is not None and at not in known:
        raise SchemaVersionError(
            f"the database's schema is {at}, newer than this Inkdigits ({scripts.get_heads()[0]})"
        )
    if revision == "head" and at == scripts.get_current_head():
        return
    with _ALEMBIC, _migration_lock(engine):
        if engine.dialect.name == "sqlite":
            _switch_to_wal(engine)
        with engine.execution_options(writes=True).begin() as connection:
            if engine.dialect.name == "postgresql":
                # A new index on a long table takes longer than a statement may.
                connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            config.attributes["connection"] = connection
            command.upgrade(config, revision)


def _revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _switch_to_wal(engine: sa.Engine) -> None:
    # The journal mode stays in the file, so once is enough; not in a transaction.
    connection = engine.raw_connection()
    try:
        connection.cursor().execute("PRAGMA journal_mode = WAL").close()
    finally:
        connection.close()


@contextmanager
def _migration_lock(engine: sa.Engine) -> Iterator[None]:
    if engine.dialect.name != "sqlite" or engine.url.database is None:
        yield
        return
    with Path(engine.url.database + ".lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Said explicitly: a process forked meanwhile holds the same lock until it is.
            fcntl.flock(file, fcntl.LOCK_UN)
