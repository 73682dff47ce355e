"""The prediction log's tables, and how a database is brought up to date with it.

Times are integers, microseconds since 1970 UTC. Their order and arithmetic are exact and the same
on SQLite, which has no time type, as on PostgreSQL.
"""

from __future__ import annotations

import logging
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from inkdigits.errors import SchemaVersionError
from inkdigits.log.locks import file_lock

NEWEST: Final = "0005"
"""The revision of the tables below: the last one in ``migrations/versions``."""

# The advisory lock that migrations hold on PostgreSQL: "inkdigit" in ASCII, a signed 64-bit key.
_ADVISORY_LOCK: Final = int.from_bytes(b"inkdigit", "big")
# Alembic's `op` and `context` are global to the process, so two threads cannot migrate at once.
_ALEMBIC = threading.Lock()

_GIVEN = sa.text("label IS NOT NULL")
_DUE = sa.text("reviews_due IS NOT NULL")

logger = logging.getLogger(__name__)
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
    # The last column of the first schema: SQLite reads columns in order, and this one is large.
    sa.Column("picture", sa.LargeBinary),
    sa.Column("feedback_us", sa.BigInteger),
    sa.Column("feedback_by", sa.String(128)),
    sa.Column("text", sa.String(64)),
    sa.Column("digits", sa.JSON(none_as_null=True)),
    sa.Column("label", sa.String(64)),
    sa.Column("queued", sa.String(16)),
    sa.Column("reviews_due", sa.SmallInteger),
    sa.Column("shadow", sa.JSON(none_as_null=True)),
    # Each filter of the history has an index that ends in the order of its pages (created_us, id).
    sa.Index("ix_predictions_decision", "decision", "created_us", "id"),
    sa.Index("ix_predictions_digit", "digit", "created_us", "id"),
    sa.Index("ix_predictions_owner", "owner", "created_us", "id"),
    # These three also have what is counted along them, so that no rows are read: of all
    # predictions, of those with feedback, and of the review queue, the least sure first.
    sa.Index(
        "ix_predictions_time",
        *("created_us", "id", "decision", "confidence", "model_version"),
    ),
    sa.Index(
        "ix_predictions_corrected",
        *("created_us", "id", "label", "digit", "decision", "confidence", "text", "model_version"),
        sqlite_where=_GIVEN,
        postgresql_where=_GIVEN,
    ),
    sa.Index(
        "ix_predictions_queue",
        *("confidence", "id", "queued", "reviews_due", "model_version"),
        sqlite_where=_DUE,
        postgresql_where=_DUE,
    ),
)
# What each reviewer says of a prediction; `predictions.label` is what holds.
labels = sa.Table(
    "labels",
    metadata,
    sa.Column(
        "prediction_id",
        sa.String(36),
        sa.ForeignKey("predictions.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("reviewer", sa.String(128), primary_key=True),
    sa.Column("label", sa.String(64), nullable=False),
    sa.Column("labelled_us", sa.BigInteger, nullable=False),
)
# Which promotions of a model were ended, so that the replicas of a service decide once.
rollbacks = sa.Table(
    "rollbacks",
    metadata,
    sa.Column("promotion", sa.String(300), primary_key=True),
    sa.Column("decided_us", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.String(400), nullable=False),
)
# Which sign-ins to the page were ended by a sign-out, also for copies of their cookies.
sign_outs = sa.Table(
    "sign_outs",
    metadata,
    sa.Column("sign_in", sa.String(32), primary_key=True),
    sa.Column("ended_us", sa.BigInteger, nullable=False),
)


def migrate(engine: sa.Engine, revision: str = "head") -> str | None:
    """Bring the schema up to a revision, in one transaction and under a lock between processes.

    The lock is advisory on PostgreSQL, and a file beside the database on SQLite, whose switch to
    the write-ahead log does not wait for other connections by itself.

    >>> import tempfile
    >>> from inkdigits.log.connections import connect
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     migrate(connect(f"sqlite:///{folder}/log.sqlite3"))
    'wal'

    Returns SQLite's journal mode, "wal" unless the file system does not support it; None for
    PostgreSQL. SchemaVersionError if this Inkdigits does not know the database's revision.
    """
    path = engine.url.database if engine.dialect.name == "sqlite" else None
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    with _ALEMBIC, nullcontext() if path is None else file_lock(path + "-lock"):
        journal_mode = None if path is None else write_ahead_log(engine)
        at = _revision_of(engine)
        # Nearly every start ends here, before Alembic is imported, which takes 0.1 s.
        if not (revision == "head" and at == NEWEST):
            _upgrade(engine, at, revision)
        return journal_mode


def write_ahead_log(engine: sa.Engine) -> str:
    """Switch an SQLite file to "wal" if its file system supports it; return its journal mode then.

    >>> write_ahead_log(sa.create_engine("sqlite://"))
    'memory'
    """
    connection = engine.raw_connection()
    try:
        before, after = (
            connection.cursor().execute(f"PRAGMA journal_mode{change}").fetchone()[0]
            for change in ("", " = wal")
        )
    finally:
        connection.close()
    if before != after:
        engine.dispose()  # what a connection does about syncs depends on the mode
    return str(after)


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
        maker, way = (
            ("a newer", "Install that version")
            if at > NEWEST
            else ("an unreleased", "Export the log with that version")
        )
        raise SchemaVersionError(
            f"the database {engine.url} was made by {maker} Inkdigits, and this one cannot read "
            f"its schema, {at}. {way}, or set DATABASE_URL to a new database."
        )
    with engine.execution_options(begin="BEGIN IMMEDIATE").begin() as connection:
        if engine.dialect.name == "postgresql":
            # A new index on a long table takes longer than a statement may.
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    now = NEWEST if revision == "head" else revision
    logger.info("the database has schema %s now, and had %s before", now, at or "none")
