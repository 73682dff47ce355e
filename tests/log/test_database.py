"""Insertions and syncs in SQLite and PostgreSQL, and what is known of their being available."""

import os
import sqlite3
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
from support.databases import a_record, rows_of

from inkdigits.errors import StoreUnavailableError
from inkdigits.log.connections import Options
from inkdigits.log.database import Database
from inkdigits.log.record import to_row

pytest_plugins = ["support.databases"]


@pytest.fixture
def a_database(tmp_path):
    """Makes databases that have been migrated, in one SQLite file unless a URL is given."""
    with ExitStack() as stack:

        def make(url=f"sqlite:///{tmp_path}/new/log.sqlite3", **options):
            database = Database(url, Options(**{"wait_s": 60, **options}))
            stack.callback(database.close)
            began = time.monotonic()
            database.migrate()
            database.recover(began)
            database.check(writes=True)
            return database

        yield make


@pytest.mark.parametrize(("synchronous", "level"), [("normal", 1), ("full", 2)])
def test_sqlite_has_a_write_ahead_log_and_lets_readers_in(a_database, synchronous, level):
    database = a_database(wait_s=0.25, synchronous=synchronous)
    with database.transaction() as connection:
        modes = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert modes == ["wal", level, 1, 250]
    with database.transaction(writes=True):
        assert rows_of(str(database.engine.url)) == []


def test_a_file_system_without_a_write_ahead_log_is_named_and_syncs_each_commit(
    a_database, tmp_path, monkeypatch, caplog
):
    # SQLite's own file system with lock files has no shared memory, as network drives have none.
    by_lock_files = partial(sqlite3.dbapi2.connect, uri=True)
    monkeypatch.setattr(
        "sqlite3.dbapi2.connect",
        lambda path, **more: by_lock_files(f"file:{path}?vfs=unix-dotfile", **more),
    )
    database = a_database()
    assert "cannot use its write-ahead log" in caplog.text
    assert str(tmp_path) in caplog.text
    database.insert([to_row(a_record())])
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


@pytest.mark.e2e
def test_pgbouncer_is_asked_nothing_that_outlives_a_transaction(shared_postgres, a_database):
    database = a_database(shared_postgres.empty_database(), pgbouncer=True)
    for n in range(12):  # psycopg prepares a statement from its sixth execution on
        database.insert([to_row(a_record(n))])
    with database.transaction() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "10s"
        prepared = connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements")
        assert prepared.scalar() == 0
    with closing(database.engine.raw_connection()) as raw, raw.cursor() as cursor:
        assert cursor.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_an_older_success_does_not_undo_a_newer_failure(a_database):
    database = a_database()
    began = time.monotonic()
    database.fail("found just now")
    database.recover(began)
    with pytest.raises(StoreUnavailableError, match="found just now"):
        database.check(writes=True)
    database.check()  # a local file may still be read
    database.recover(time.monotonic())
    database.check(writes=True)


@pytest.mark.parametrize(("synchronous", "syncs"), [("normal", 1), ("full", 0)])
def test_sqlite_is_synced_between_commits_only_where_they_do_not_sync(
    a_database, monkeypatch, synchronous, syncs
):
    database = a_database(synchronous=synchronous)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    database.sync()
    assert synced == []
    for n in range(3):
        database.insert([to_row(a_record(n))])
    database.sync()
    database.sync()
    log = Path(f"{database.engine.url.database}-wal").stat().st_ino
    assert synced == [log] * syncs
    # Feedback is synced too, also where no row is inserted meanwhile.
    database.ping()
    database.sync()
    assert synced == [log] * syncs
    with database.transaction(writes=True):
        pass
    database.sync()
    assert synced == [log] * syncs * 2


def test_a_sync_that_fails_makes_the_database_unavailable(a_database, monkeypatch):
    database = a_database()
    database.insert([to_row(a_record())])

    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(5, "Input/output error")))
    database.sync()
    assert "cannot be synced" in str(database.failure)

    # Its commits are synced as soon as that works, not only after the next one.
    monkeypatch.setattr(os, "fsync", again := Mock())
    database.sync()
    again.assert_called_once()


def test_a_checkpoint_has_the_next_commit_begin_the_write_ahead_log_anew(a_database, monkeypatch):
    monkeypatch.setattr("inkdigits.log.database.CHECKPOINT_S", 0.0)
    database = a_database()
    log = Path(f"{database.engine.url.database}-wal")
    database.insert([to_row(a_record(n)) for n in range(100)])
    size = log.stat().st_size
    with database.transaction() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM predictions")
        database.sync()  # a reader of what is in the log does not hold it up
    for n in range(100, 110):
        database.insert([to_row(a_record(n))])
        database.sync()
    assert log.stat().st_size == size
    assert len(rows_of(str(database.engine.url))) == 110


def test_a_checkpoint_that_fails_is_told_and_leaves_the_database_available(
    a_database, monkeypatch, caplog
):
    monkeypatch.setattr("inkdigits.log.database.CHECKPOINT_S", 0.0)
    database = a_database()
    database.insert([to_row(a_record())])
    full = sqlite3.OperationalError("database or disk is full")
    monkeypatch.setattr(database.engine, "connect", Mock(side_effect=full))
    database.sync()
    assert "cannot be copied into its file: database or disk is full" in caplog.text
    assert database.failure is None


@pytest.mark.e2e
def test_a_server_that_was_restarted_gets_rows_on_a_new_connection(own_postgres, a_database):
    database = a_database(own_postgres.empty_database())
    database.insert([to_row(a_record(1))])
    own_postgres.stop("fast")
    with pytest.raises(StoreUnavailableError):
        database.ping()
    own_postgres.start()
    database.recover(time.monotonic())
    database.insert([to_row(a_record(2))])
    assert len(rows_of(str(database.engine.url))) == 2
