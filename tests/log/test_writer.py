"""The thread that writes: shared commits, late rows, slow databases, and its own end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support.databases import PATIENT, EmbeddedPostgres, a_record, rows_of, wait_until

from inkdigits.errors import StoreUnavailableError
from inkdigits.log.database import Options
from inkdigits.log.record import to_row
from inkdigits.log.store import Store
from inkdigits.log.writer import Writer

pytest_plugins = ["support.databases"]


@contextmanager
def held(store: Store) -> Iterator[None]:
    """Hold a store's thread in a job meanwhile."""
    is_there, is_released = threading.Event(), threading.Event()

    def hold() -> None:
        is_there.set()
        is_released.wait()

    def run() -> None:
        with suppress(StoreUnavailableError):  # held for longer than requests wait
            store._writer.run(hold)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run)
        is_there.wait()
        try:
            yield
        finally:
            is_released.set()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'log.sqlite3'}"


@pytest.fixture
def opened(url: str, tmp_path: Path) -> Iterator[Callable[..., Store]]:
    stores: list[Store] = []

    def make(options: Options = PATIENT) -> Store:
        stores.append(Store.open(url, outbox_dir=tmp_path / "outbox", options=options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def test_rows_that_come_during_a_commit_share_the_next_one(
    opened: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    commits: list[int] = []
    insert = store._database.insert

    def count(rows: Any, *more: Any) -> None:
        commits.append(len(rows))
        insert(rows, *more)

    monkeypatch.setattr(store._database, "insert", count)
    with ThreadPoolExecutor(10) as pool:
        with held(store):
            outcomes = pool.map(store.keep, [a_record(n) for n in range(10)])
            wait_until(lambda: store._writer._queue.qsize() == 10)
        assert list(outcomes) == ["database"] * 10
    assert commits == [10]


def test_a_row_that_waits_too_long_goes_to_the_outbox_and_is_stored_once(
    opened: Callable[..., Store], url: str
) -> None:
    store = opened(Options(wait_s=0.2))
    first, second = a_record(1), a_record(2)
    with held(store):
        assert store.keep(first) == "outbox"
        assert not store.available
        assert store._writer._queue.qsize() == 1  # the first one's, abandoned
        assert store.keep(second) == "outbox"
        assert store._writer._queue.qsize() == 1  # the second did not wait
    wait_until(lambda: store.available and store.waiting() == 0)
    assert sorted(rows_of(url)) == [first.id, second.id]


def test_a_call_that_is_overdue_makes_the_database_unavailable(
    opened: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writer, "start", lambda _: None)
    store = opened(Options(wait_s=0.001))
    assert store.available
    store._writer._busy_since = time.monotonic() - 1
    with pytest.raises(StoreUnavailableError, match=r"not answered within 0\.001 s"):
        store.delete_all(owner="mine")


def test_a_slow_database_gets_its_rows_by_way_of_the_outbox(
    opened: Callable[..., Store], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(Options(wait_s=0.2))
    insert = store._database.insert

    def insert_slowly(*rows: Any) -> None:
        time.sleep(0.5)
        insert(*rows)

    with monkeypatch.context() as patched:
        patched.setattr(store._database, "insert", insert_slowly)
        records = [a_record(n) for n in range(20)]
        assert [store.keep(record) for record in records] == ["outbox"] * 20
        wait_until(lambda: store.waiting() == 0)
        assert sorted(rows_of(url)) == [record.id for record in records]
    wait_until(lambda: store.available)


def test_a_thread_that_died_is_started_again(
    opened: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    store.keep(a_record())
    first = store._writer._thread
    assert first is not None
    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", died.append)

    def be_wrong() -> None:
        raise AssertionError("a defect of ours")

    with pytest.raises(StoreUnavailableError, match="thread has ended"):
        store._writer.run(be_wrong)
    first.join()
    assert len(died) == 1
    assert store.keep(a_record()) == "database"
    assert store._writer._thread is not first


def test_what_is_left_in_the_outbox_is_moved_without_being_asked(
    opened: Callable[..., Store], tmp_path: Path
) -> None:
    record = a_record()
    first = opened()
    first._outbox.put(to_row(record))
    first.close()
    second = opened()
    assert second.available
    wait_until(lambda: second.waiting() == 0)
    assert second.get(record.id) == record


def test_closing_keeps_what_comes_later_in_the_outbox(opened: Callable[..., Store]) -> None:
    store = opened()
    store.close()
    assert store.keep(a_record()) == "outbox"
    assert not store.available
    with pytest.raises(StoreUnavailableError, match="closed"):
        store.flush_outbox()


def test_closing_does_not_wait_for_a_frozen_server(
    own_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    url = own_postgres.empty_database()
    store = Store.open(url, outbox_dir=tmp_path, options=Options(wait_s=0.2))
    store.keep(a_record())
    own_postgres.freeze()
    assert store.keep(a_record()) == "outbox"
    store.close()
