"""The schema from nothing and from the one before, on both databases, by many at once."""

import signal
import subprocess
import sys
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command, op
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from support.databases import a_record, connected, opened, rows_of, sqlite_url
from support.processes import SPAWN, killed_afterwards, running_together

from inkdigits.errors import SchemaVersionError, StoreUnavailableError
from inkdigits.log import database, schema
from inkdigits.log.record import to_row

pytest_plugins = ["support.databases"]

FEEDBACK = {"true_digit", "feedback_us", "feedback_by"}
LATER = {"text", "digits", "label", "queued", "reviews_due", "shadow", *FEEDBACK}
CONFIG = Config()
CONFIG.set_main_option("script_location", "inkdigits.log:migrations")


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


def downgrade(url, revision):
    with connected(url, writes=True) as connection:
        CONFIG.attributes["connection"] = connection
        command.downgrade(CONFIG, revision)


def columns_of(url):
    with connected(url) as connection:
        return {column["name"] for column in sa.inspect(connection).get_columns("predictions")}


def revision_of(url):
    return str(rows_of(url, "version_num", "alembic_version")[0])


def fill(url, records, **more):
    """Insert records into the first schema, with more columns of a later one."""
    columns = [sa.column(c.name, c.type) for c in schema.predictions.c if c.name not in LATER]
    rows = [{k: v for k, v in to_row(r).items() if k not in LATER} for r in records]
    rows = [row | {name: more[name][n] for name in more} for n, row in enumerate(rows)]
    with connected(url, writes=True) as connection:
        old = sa.table("predictions", *columns, *map(sa.column, more))
        connection.execute(sa.insert(old), rows)


def test_the_first_schema_is_brought_up_with_its_rows(database_url, tmp_path):
    migrate_to(database_url, "0001")
    assert differences(database_url)
    records = [a_record(n) for n in range(3)]
    fill(database_url, records)
    with opened(database_url, tmp_path) as store:
        assert list(reversed(store.page().records)) == records
        assert store.give_feedback(records[0].id, "5", "page").label == "5"
    assert not differences(database_url)


def test_feedback_of_the_schema_before_is_text_and_what_is_unsure_is_queued(database_url, tmp_path):
    migrate_to(database_url, "0002")
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
    downgrade(database_url, "0002")
    assert rows_of(database_url, "true_digit", "predictions ORDER BY id") == digits


def test_the_way_back_leads_to_nothing(database_url):
    migrate_to(database_url)
    downgrade(database_url, "0001")
    assert not LATER & columns_of(database_url)
    downgrade(database_url, "base")
    migrate_to(database_url)
    assert not differences(database_url)


def test_a_database_of_a_newer_inkdigits_is_rejected(database_url, tmp_path):
    migrate_to(database_url)
    with connected(database_url, writes=True) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaVersionError, match="9999"):
        opened(database_url, tmp_path)


def test_a_migration_that_fails_half_way_leaves_what_was_there(database_url, tmp_path, monkeypatch):
    migrate_to(database_url, "0001")

    def fail(*_, **__):
        raise sa.exc.OperationalError("CREATE INDEX", {}, OSError("no space left"))

    monkeypatch.setattr(op, "create_index", fail)
    with opened(database_url, tmp_path) as store:
        assert not store.available
        with pytest.raises(StoreUnavailableError, match="no space left"):
            store.flush_outbox()
    assert revision_of(database_url) == "0001"
    assert not LATER & columns_of(database_url)
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
    migrate_to(database_url, "0001")
    with killed_afterwards(migrate_and_hang, database_url):
        pass
    with opened(database_url, tmp_path) as store:
        assert store.keep(a_record()) == "database"
    assert not differences(database_url)


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
