"""The prediction log's tables, and how a database is brought up to date with it.

Times are integers, microseconds since 1970 UTC. Their order and arithmetic are exact and the same
on SQLite, which has no time type, as on PostgreSQL.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from inkdigits.errors import SchemaVersionError
from inkdigits.log.locks import file_lock
from inkdigits.types import NO_DIGIT, NO_DIGIT_LABEL

NEWEST: Final = "0004"
"""The revision of the tables below; a change of them is another, and `_upgrade` makes it."""

_OLDER: Final = ("0001", "0002", "0003")
# The advisory lock that migrations hold on PostgreSQL: "inkdigit" in ASCII, a signed 64-bit key.
_ADVISORY_LOCK: Final = int.from_bytes(b"inkdigit", "big")

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
_revisions = sa.Table(
    "alembic_version", metadata, sa.Column("version_num", sa.String(32), primary_key=True)
)
_columns = predictions.c
_given = _columns.label.is_not(None)
_is_due = _columns.reviews_due.is_not(None)
# Each filter of the history has an index that ends in the order of its pages (created_us, id).
# The index of the time also has what the dashboard counts and the history sorts by, so that they
# read no rows.
sa.Index(
    "ix_predictions_time",
    *(_columns.created_us, _columns.id, _columns.decision),
    *(_columns.confidence, _columns.model_version),
)
sa.Index("ix_predictions_decision", _columns.decision, _columns.created_us, _columns.id)
sa.Index("ix_predictions_digit", _columns.digit, _columns.created_us, _columns.id)
sa.Index("ix_predictions_owner", _columns.owner, _columns.created_us, _columns.id)
# This index has only the predictions with feedback, and all that the dashboard asks about them.
sa.Index(
    "ix_predictions_corrected",
    *(_columns.created_us, _columns.id, _columns.label, _columns.digit),
    *(_columns.decision, _columns.confidence, _columns.text, _columns.model_version),
    sqlite_where=_given,
    postgresql_where=_given,
)
# The review queue, the least sure first.
sa.Index(
    "ix_predictions_queue",
    *(_columns.confidence, _columns.id, _columns.queued, _columns.reviews_due),
    _columns.model_version,
    sqlite_where=_is_due,
    postgresql_where=_is_due,
)


def migrate(engine: sa.Engine) -> str | None:
    """Bring the schema up to date, in one transaction and under a lock between processes.

    The lock is advisory on PostgreSQL, and a file beside the database on SQLite, whose switch to
    the write-ahead log does not wait for other connections by itself. A process that is killed
    half-way leaves the schema as it was.

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
    with nullcontext() if path is None else file_lock(path + "-lock"):
        journal_mode = None if path is None else write_ahead_log(engine)
        with engine.connect() as connection:
            at = _revision(connection)
        if at != NEWEST:
            with engine.execution_options(begin="BEGIN IMMEDIATE").begin() as connection:
                _upgrade(connection)
        return journal_mode


def write_ahead_log(engine: sa.Engine) -> str:
    """Switch an SQLite file to its write-ahead log, and return the journal mode that it has then.

    The mode is a property of the file. The file system may not support "wal".

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


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(_revisions.name):
        return None
    found: str | None = connection.scalar(sa.select(_revisions.c.version_num))
    return found


def _upgrade(connection: sa.Connection) -> None:
    """Make the tables, or give an older one the columns and indexes that it lacks."""
    if connection.dialect.name == "postgresql":
        # A new index on a long table takes longer than a statement may.
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    at = _revision(connection)
    if at not in (None, NEWEST, *_OLDER):
        raise SchemaVersionError(
            f"the database has schema {at}; this Inkdigits knows schemas up to {NEWEST}. "
            "Install the newer Inkdigits that made it"
        )
    if at in _OLDER:
        inspector = sa.inspect(connection)
        there = {column["name"] for column in inspector.get_columns("predictions")}
        for column in predictions.columns:
            if column.name not in there:
                added = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
                connection.execute(sa.text(f"ALTER TABLE predictions ADD COLUMN {added}"))
        if "label" not in there:
            _label_and_queue(connection, has_feedback="true_digit" in there)
        for index in inspector.get_indexes("predictions"):
            connection.execute(sa.text(f"DROP INDEX {index['name']}"))
        for made in predictions.indexes:
            made.create(connection)
    metadata.create_all(connection)
    connection.execute(sa.delete(_revisions))
    connection.execute(sa.insert(_revisions).values(version_num=NEWEST))


def _label_and_queue(connection: sa.Connection, *, has_feedback: bool) -> None:
    """Write the labels before 0003 as text, and queue what is unsure and has none.

    The column ``true_digit`` stays, unused, for processes of the version before that still run.
    """
    if has_feedback:
        former: sa.ColumnClause[int] = sa.column("true_digit")
        written = sa.case((former == NO_DIGIT, NO_DIGIT_LABEL), else_=sa.cast(former, sa.String(2)))
        given = sa.update(predictions).where(former.is_not(None))
        connection.execute(given.values(label=written))
    unsure = (_columns.decision.in_(("review", "reject")), _columns.digit.is_not(None))
    why = sa.case((_columns.decision == "reject", "rejected"), else_="unsure")
    queue = sa.update(predictions).where(*unsure, _columns.label.is_(None))
    connection.execute(queue.values(reviews_due=1, queued=why))
