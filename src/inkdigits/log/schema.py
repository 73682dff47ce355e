"""The prediction log's table, and how a database is brought to it.

Times are integers, microseconds since 1970 UTC: the same exact order and arithmetic on SQLite
(which has no time type) as on PostgreSQL, and no time zone to get wrong.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import sqlalchemy as sa

from inkdigits.errors import SchemaVersionError, StoreUnavailableError

NEWEST: Final = "0002"
"""The revision that ``predictions`` below is of: the last one in ``migrations/versions``."""

# "inkdigit" in ASCII: the advisory lock that migrations hold on PostgreSQL, a signed 64-bit key.
_ADVISORY_LOCK: Final = int.from_bytes(b"inkdigit", "big")
# Alembic's `op` and `context` are global to the process, so two threads can't migrate at once.
_ALEMBIC = threading.Lock()
# A child process must not inherit it held by a thread that the child doesn't have.
os.register_at_fork(
    before=_ALEMBIC.acquire,
    after_in_parent=_ALEMBIC.release,
    after_in_child=_ALEMBIC.release,
)

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
# That of the time alone also has what the dashboard counts over time, so no row need be read.
sa.Index("ix_predictions_time", _columns.created_us, _columns.id, _columns.decision)
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


def migrate(engine: sa.Engine, revision: str = "head") -> None:
    """Bring the schema up to a revision, in one transaction and under a lock between processes.

    The lock is advisory on PostgreSQL, and a file beside the database on SQLite (where the switch
    to WAL can't wait for other connections by itself).

    Args:
        engine: from `inkdigits.log.database.connect`.
        revision: the newest when not given.

    Raises:
        SchemaVersionError: the database is at a revision that this Inkdigits doesn't know.
        StoreUnavailableError: the folder of an SQLite database can't be written.
        sqlalchemy.exc.DBAPIError: the database can't be reached or refuses.
    """
    with _ALEMBIC, _file_lock(engine):
        at = _revision_of(engine)
        # Nearly every start ends here, before Alembic is imported, which takes a tenth of one.
        if not (revision == "head" and at == NEWEST):
            _upgrade(engine, at, revision)


def _revision_of(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return found


def _upgrade(engine: sa.Engine, at: str | None, revision: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "inkdigits.log:migrations")
    scripts = ScriptDirectory.from_config(config)
    if at is not None and at not in {script.revision for script in scripts.walk_revisions()}:
        raise SchemaVersionError(
            f"the database's schema is {at}, which this Inkdigits (up to {NEWEST}) doesn't know"
        )
    if engine.dialect.name == "sqlite":
        _switch_to_wal(engine)
    with engine.execution_options(writes=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            # A new index on a long table takes longer than a statement may.
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def _switch_to_wal(engine: sa.Engine) -> None:
    # The journal mode stays in the file, so once is enough; not in a transaction.
    connection = engine.raw_connection()
    try:
        connection.cursor().execute("PRAGMA journal_mode = WAL").close()
    finally:
        connection.close()


@contextmanager
def _file_lock(engine: sa.Engine) -> Iterator[None]:
    if engine.dialect.name != "sqlite" or engine.url.database is None:
        yield
        return
    try:
        descriptor = os.open(engine.url.database + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreUnavailableError(f"the database's folder can't be written: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Said explicitly: a process forked meanwhile holds the same lock until it is.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)
