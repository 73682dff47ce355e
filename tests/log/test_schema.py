"""The schema from nothing and from the one before, on both databases, by many at once."""

import signal
import subprocess
import sys
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import op
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from support.databases import a_record, connected, opened, rows_of, sqlite_url
from support.processes import SPAWN, killed_afterwards, running_together

from inkdigits.errors import SchemaVersionError, StoreUnavailableError
from inkdigits.log import database, schema
from inkdigits.log.record import to_row

pytest_plugins = ["support.databases"]

LATER = {"text", "digits", "label", "queued", "reviews_due", "shadow"}


def differences(url):
    """Which columns, types and indexes the database has other than the tables in the code."""
    with connected(url) as connection:
        opts = {"compare_type": True, "include_name": lambda name, *_: name != "true_digit"}
        context = MigrationContext.configure(connection, opts=opts)
        return list(compare_metadata(context, schema.metadata))


def migrate_to(url, revision="head"):
    engine = database.connect(url)
    schema.migrate(engine, revision)
    engine.dispose()


def columns_of(url):
    with connected(url) as connection:
        return {column["name"] for column in sa.inspect(connection).get_columns("predictions")}


def revision_of(url):
    return str(rows_of(url, "version_num", "alembic_version")[0])


def test_the_first_schema_is_brought_up_with_its_rows_and_what_is_unsure_is_queued(
    database_url, tmp_path
):
    migrate_to(database_url, "0002")
    assert differences(database_url)
    decisions: list[Any] = ["accept", "accept", "reject", "review", "reject"]
    records = [a_record(n, decision=decisions[n]) for n in range(4)]
    records.append(a_record(4, decision="reject", reason="blank", digit=None, confidence=0.0))
    feedback = [(7, "page"), (-1, "page"), *[(None, None)] * 3]
    rows = [
        {name: value for name, value in to_row(record).items() if name not in LATER}
        | {"true_digit": digit, "feedback_us": 1 if giver else None, "feedback_by": giver}
        for record, (digit, giver) in zip(records, feedback, strict=True)
    ]
    with connected(database_url, writes=True) as connection:
        known = [sa.column(c.name, c.type) for c in schema.predictions.c if c.name not in LATER]
        old = sa.table("predictions", *known, sa.column("true_digit"))
        connection.execute(sa.insert(old), rows)
    with opened(database_url, tmp_path) as store:
        found = [store.get(record.id) for record in records]
        assert found[-1] == records[-1]
        assert store.give_feedback(records[2].id, "5", "page").label == "5"
    assert [record.label for record in found] == ["7", "none", None, None, None]
    assert [record.queued for record in found] == [None, None, "rejected", "unsure", None]
    assert [record.reviews_due for record in found] == [None, None, 1, 1, None]
    assert not differences(database_url)


@pytest.mark.parametrize(
    ("revision", "advice"),
    [("9999", "a newer.*9999.*Install that"), ("0003", "an unreleased.*0003.*Export the log")],
)
def test_a_database_of_another_inkdigits_is_rejected(database_url, tmp_path, revision, advice):
    migrate_to(database_url)
    with connected(database_url, writes=True) as connection:
        connection.execute(sa.text(f"UPDATE alembic_version SET version_num = '{revision}'"))
    with pytest.raises(SchemaVersionError, match=advice):
        opened(database_url, tmp_path)


def test_a_migration_that_fails_half_way_leaves_what_was_there(database_url, tmp_path, monkeypatch):
    migrate_to(database_url, "0002")

    def fail(*_, **__):
        raise sa.exc.OperationalError("CREATE INDEX", {}, OSError("no space left"))

    monkeypatch.setattr(op, "create_index", fail)
    with opened(database_url, tmp_path) as store:
        assert not store.available
        with pytest.raises(StoreUnavailableError, match="no space left"):
            store.flush_outbox()
    assert revision_of(database_url) == "0002"
    assert not LATER & columns_of(database_url)
    monkeypatch.undo()
    with opened(database_url, tmp_path) as store:
        assert store.available


def open_at_once(url, folder, barrier, number):
    barrier.wait()
    with opened(url, folder) as store:
        if store.keep(a_record(number)) != "database":
            raise SystemExit("the database was unavailable")


@pytest.mark.parametrize("start_from", [None, "0002"])
@pytest.mark.e2e
def test_processes_that_open_at_once_migrate_once(database_url, tmp_path, start_from):
    if start_from is not None:
        migrate_to(database_url, start_from)
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

    op.create_index = hang
    migrate_to(url)


def test_a_process_killed_while_it_migrates_does_not_stop_the_next(database_url, tmp_path):
    migrate_to(database_url, "0002")
    with killed_afterwards(migrate_and_hang, database_url):
        pass
    with opened(database_url, tmp_path) as store:
        assert store.keep(a_record()) == "database"
    assert not differences(database_url)


def test_a_migration_says_what_it_has_done_in_one_line(tmp_path, caplog):
    caplog.set_level("INFO", "inkdigits")
    for revision in ("0002", "head"):
        migrate_to(sqlite_url(tmp_path), revision)
    said = [one.getMessage() for one in caplog.records]
    assert said == [
        "the database has schema 0002 now, and had none before",
        f"the database has schema {schema.NEWEST} now, and had 0002 before",
    ]


def test_schema_that_is_up_to_date_needs_no_alembic(tmp_path):
    url = sqlite_url(tmp_path)
    migrate_to(url)
    again = (
        "import sys\n"
        "sys.modules['alembic'] = None\n"
        "from inkdigits.log import database, schema\n"
        f"schema.migrate(database.connect({url!r}))\n"
    )
    subprocess.run([sys.executable, "-c", again], check=True, timeout=120)
