"""The schema from nothing and from the one before, on both databases, by many at once."""

import signal
from typing import Any

import pytest
import sqlalchemy as sa
from support.databases import a_record, connected, opened, rows_of
from support.processes import SPAWN, killed_afterwards, running_together

from inkdigits.errors import SchemaVersionError, StoreUnavailableError
from inkdigits.log import database, schema
from inkdigits.log.record import to_row

pytest_plugins = ["support.databases"]

FEEDBACK = {"feedback_us", "feedback_by"}
LATER = {"text", "digits", "label", "queued", "reviews_due", "shadow"}


def differences(url):
    """Which columns and indexes the database has, or lacks, other than the tables in the code."""
    known, there = set(), {"predictions.true_digit"}
    with connected(url) as connection:
        inspector = sa.inspect(connection)
        for table in schema.metadata.sorted_tables:
            known |= {f"{table.name}.{one.name}" for one in (*table.columns, *table.indexes)}
            if inspector.has_table(table.name):
                found = (inspector.get_columns(table.name), inspector.get_indexes(table.name))
                there |= {f"{table.name}.{one['name']}" for one in (*found[0], *found[1])}
    return known ^ there - {"predictions.true_digit"}


def old_schema(url, revision):
    """Make the tables of a revision, with an index that the next has otherwise."""
    feedback = {"true_digit", *FEEDBACK} if revision == "0002" else set()
    columns = [
        sa.Column(c.name, c.type, primary_key=c.primary_key)
        for c in schema.predictions.c
        if c.name not in LATER and (c.name not in FEEDBACK or feedback)
    ]
    columns += [sa.Column("true_digit", sa.SmallInteger)] if feedback else []
    metadata = sa.MetaData()
    table = sa.Table("predictions", metadata, *columns)
    sa.Index("ix_predictions_time", table.c.created_us, table.c.id, table.c.decision)
    version = sa.Table("alembic_version", metadata, sa.Column("version_num", sa.String(32)))
    with connected(url, writes=True) as connection:
        metadata.create_all(connection)
        connection.execute(sa.insert(version).values(version_num=revision))


def migrate(url):
    engine = database.connect(url)
    schema.migrate(engine)
    engine.dispose()


def revision_of(url):
    return str(rows_of(url, "version_num", "alembic_version")[0])


def fill(url, records, **more):
    """Insert records into the first schema, with more columns of a later one."""
    left_out = LATER | FEEDBACK
    columns = [sa.column(c.name, c.type) for c in schema.predictions.c if c.name not in left_out]
    rows = [{k: v for k, v in to_row(r).items() if k not in left_out} for r in records]
    rows = [row | {name: more[name][n] for name in more} for n, row in enumerate(rows)]
    with connected(url, writes=True) as connection:
        old = sa.table("predictions", *columns, *map(sa.column, more))
        connection.execute(sa.insert(old), rows)


def test_the_first_schema_is_brought_up_with_its_rows(database_url, tmp_path):
    old_schema(database_url, "0001")
    assert differences(database_url)
    records = [a_record(n) for n in range(3)]
    fill(database_url, records)
    with opened(database_url, tmp_path) as store:
        assert list(reversed(store.page().records)) == records
        assert store.give_feedback(records[0].id, "5", "page").label == "5"
    assert not differences(database_url)


def test_feedback_of_the_schema_before_is_text_and_what_is_unsure_is_queued(database_url, tmp_path):
    old_schema(database_url, "0002")
    decisions: list[Any] = ["accept", "accept", "reject", "review", "reject"]
    records = [a_record(n, decision=decisions[n]) for n in range(4)]
    records.append(a_record(4, decision="reject", reason="blank", digit=None, confidence=0.0))
    digits, givers = [7, -1, None, None, None], ["page", "page", None, None, None]
    fill(database_url, records, true_digit=digits, feedback_us=[1, 1, *3 * [None]],
         feedback_by=givers)  # fmt: skip
    with opened(database_url, tmp_path) as store:
        found = [store.get(record.id) for record in records]
    assert [record.label for record in found] == ["7", "none", None, None, None]
    assert [record.queued for record in found] == [None, None, "rejected", "unsure", None]
    assert [record.reviews_due for record in found] == [None, None, 1, 1, None]


def test_a_database_of_a_newer_inkdigits_is_rejected(database_url, tmp_path):
    migrate(database_url)
    with connected(database_url, writes=True) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaVersionError, match="9999"):
        opened(database_url, tmp_path)


def test_a_migration_that_fails_half_way_leaves_what_was_there(database_url, tmp_path, monkeypatch):
    old_schema(database_url, "0001")

    def fail(*_, **__):
        raise sa.exc.OperationalError("CREATE INDEX", {}, OSError("no space left"))

    monkeypatch.setattr(sa.Index, "create", fail)
    with opened(database_url, tmp_path) as store:
        assert not store.available
        with pytest.raises(StoreUnavailableError, match="no space left"):
            store.flush_outbox()
    assert revision_of(database_url) == "0001"
    assert "predictions.label" in differences(database_url)
    monkeypatch.undo()
    with opened(database_url, tmp_path) as store:
        assert store.available


def open_at_once(url, folder, barrier, number):
    barrier.wait()
    with opened(url, folder) as store:
        if store.keep(a_record(number)) != "database":
            raise SystemExit("the database was unavailable")


@pytest.mark.parametrize("start_from", [None, "0001"])
@pytest.mark.e2e
def test_processes_that_open_at_once_migrate_once(database_url, tmp_path, start_from):
    if start_from is not None:
        old_schema(database_url, start_from)
    barrier = SPAWN.Barrier(3)
    calls = [(database_url, tmp_path, barrier, number) for number in range(3)]
    with running_together(open_at_once, calls):
        pass
    assert revision_of(database_url) == schema.NEWEST
    assert not differences(database_url)
    assert len(rows_of(database_url)) == 3


def migrate_and_hang(url, is_half_way):
    def hang(*_, **__):
        is_half_way.set()
        signal.pause()

    sa.Index.create = hang  # type: ignore[method-assign]
    migrate(url)


def test_a_process_killed_while_it_migrates_does_not_stop_the_next(database_url, tmp_path):
    old_schema(database_url, "0001")
    with killed_afterwards(migrate_and_hang, database_url):
        pass
    with opened(database_url, tmp_path) as store:
        assert store.keep(a_record()) == "database"
    assert not differences(database_url)
