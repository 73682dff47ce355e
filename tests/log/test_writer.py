"""The thread that writes: shared commits, late rows, slow databases, and its own end."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
from support.databases import a_record, opened, rows_of, sqlite_url
from support.processes import wait_until

from inkdigits.errors import StoreUnavailableError
from inkdigits.log.connections import Options
from inkdigits.log.writer import Writer

pytest_plugins = ["support.databases"]

IMPATIENT = Options(wait_s=0.2)


@contextmanager
def held(store):
    """Hold a store's thread in a job meanwhile."""
    is_there, is_released = threading.Event(), threading.Event()

    def hold():
        is_there.set()
        is_released.wait()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(store._writer.run, hold)
        is_there.wait()
        try:
            yield
        finally:
            is_released.set()


@pytest.fixture
def url(tmp_path):
    return sqlite_url(tmp_path)


def test_rows_that_come_during_a_commit_share_the_next_one(url, tmp_path, monkeypatch):
    commits: list[int] = []
    with opened(url, tmp_path) as store, ThreadPoolExecutor(10) as pool:
        insert = store._database.insert

        def count(rows, *more):
            commits.append(len(rows))
            insert(rows, *more)

        monkeypatch.setattr(store._database, "insert", count)
        with held(store):
            outcomes = pool.map(store.keep, [a_record(n) for n in range(10)])
            wait_until(lambda: len(store._writer._rows) == 10)
        assert list(outcomes) == ["database"] * 10
    assert commits == [10]


def test_a_row_that_waits_too_long_goes_to_the_outbox_and_is_stored_once(url, tmp_path):
    first, second = a_record(1), a_record(2)
    with opened(url, tmp_path, IMPATIENT) as store:
        with held(store):
            assert store.keep(first) == "outbox"
            assert not store.available
            assert len(store._writer._rows) == 1  # the first one's, abandoned
            assert store.keep(second) == "outbox"
            assert len(store._writer._rows) == 1  # the second did not wait
        wait_until(lambda: store.available and store.waiting() == 0)
        assert sorted(rows_of(url)) == [first.id, second.id]


def test_a_call_that_is_overdue_makes_the_database_unavailable(url, tmp_path, monkeypatch):
    monkeypatch.setattr(Writer, "start", lambda _: None)
    with opened(url, tmp_path, Options(wait_s=0.001)) as store:
        assert store.available
        store._writer._busy_since = time.monotonic() - 1
        with pytest.raises(StoreUnavailableError, match=r"not answered within 0\.001 s"):
            store.delete_all(owner="mine")


@pytest.mark.e2e
def test_a_slow_database_gets_its_rows_by_way_of_the_outbox(url, tmp_path, monkeypatch):
    records = [a_record(n) for n in range(20)]
    with opened(url, tmp_path, replace(IMPATIENT, synchronous="full")) as store:
        insert = store._database.insert

        def insert_slowly(*rows):
            time.sleep(0.5)
            insert(*rows)

        monkeypatch.setattr(store._database, "insert", insert_slowly)
        assert [store.keep(record) for record in records] == ["outbox"] * 20
        wait_until(lambda: store.waiting() == 0)
        assert sorted(rows_of(url)) == [record.id for record in records]
        monkeypatch.undo()
        wait_until(lambda: store.available)


def test_a_thread_that_died_is_started_again(url, tmp_path, monkeypatch):
    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", died.append)

    def be_wrong():
        raise AssertionError("a defect of ours")

    with opened(url, tmp_path) as store:
        store.keep(a_record())
        first = store._writer._thread
        assert first is not None
        with pytest.raises(StoreUnavailableError, match="thread has ended"):
            store._writer.run(be_wrong)
        first.join()
        assert len(died) == 1
        assert store.keep(a_record()) == "database"
        assert store._writer._thread is not first


def test_what_comes_after_closing_is_in_the_outbox_and_is_moved_without_being_asked(url, tmp_path):
    record = a_record()
    with opened(url, tmp_path) as store:
        store.keep(a_record())
    assert store.keep(record) == "outbox"
    assert not store.available
    with pytest.raises(StoreUnavailableError, match="closed"):
        store.flush_outbox()
    with opened(url, tmp_path) as store:
        assert store.available
        wait_until(lambda: store.waiting() == 0)
        assert record.id in rows_of(url)


@pytest.mark.e2e
def test_closing_does_not_wait_for_a_frozen_server(own_postgres, tmp_path):
    with opened(own_postgres.empty_database(), tmp_path, IMPATIENT) as store:
        store.keep(a_record())
        own_postgres.freeze()
        assert store.keep(a_record()) == "outbox"
