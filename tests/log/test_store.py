"""The prediction log on SQLite and on PostgreSQL: what it keeps, for whom, and through what."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.databases import (
    START,
    EmbeddedPostgres,
    Outage,
    a_record,
    opened,
    rows_of,
    wait_until,
)

from inkdigits.errors import (
    QueryError,
    RecordError,
    RecordNotFoundError,
    StoreUnavailableError,
)
from inkdigits.log.database import Options
from inkdigits.log.outbox import Outbox
from inkdigits.log.queries import Filters
from inkdigits.log.record import ANYONE, Record, new_id, to_row
from inkdigits.log.store import Store
from inkdigits.log.writer import Writer
from inkdigits.types import NO_DIGIT

pytest_plugins = ["support.databases"]

SPAWN = multiprocessing.get_context("spawn")
SHORT = Options(wait_s=0.5)
"""For outages: the first call of each costs this much."""


def kept_by(store: Store, records: list[Record]) -> Counter[str]:
    """Where the records are kept; the machine may be busy, so any may go to the outbox."""
    return Counter(store.keep(record) for record in records)


# Keeping and finding


def test_what_was_recorded_comes_back_as_it_was(store: Store) -> None:
    moment = datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)
    record = a_record(3, created_at=moment, confidence=1 / 3, novelty=-0.1, owner="browser-1")
    blank = a_record(digit=None, confidence=0, decision="reject", reason="blank", novelty=None)
    assert store.keep(record) == "database"
    assert store.keep(blank) == "database"
    for kept in (record, blank):
        found = store.get(kept.id)
        assert found == kept
        assert found.ink.tolist() == kept.ink.tolist()
    assert store.available


def test_keeping_again_changes_nothing(store: Store) -> None:
    record = a_record(1)
    store.keep(record)
    store.give_feedback(record.id, 7, "page")
    store.keep(record)
    assert store.get(record.id).true_digit == 7
    assert len(store.page().records) == 1


def test_a_picture_is_kept_only_if_the_operator_wants_it(database_url: str, tmp_path: Path) -> None:
    plain, kept = a_record(picture=b"plain"), a_record(picture=b"kept")
    with opened(database_url, tmp_path) as store:
        store.keep(plain)
        assert store.get(plain.id).picture is None
    with opened(database_url, tmp_path, keep_pictures=True) as store:
        store.keep(kept)
        assert store.get(kept.id).picture == b"kept"
        assert all(record.picture is None for record in store.page().records)


def test_feedback_is_given_replaced_and_cleared(store: Store) -> None:
    record = a_record(3)
    store.keep(record)
    before = datetime.now(UTC)
    corrected = store.give_feedback(record.id, 5, "page")
    assert (corrected.true_digit, corrected.feedback_by) == (5, "page")
    assert corrected.feedback_at is not None
    assert before <= corrected.feedback_at <= datetime.now(UTC)
    assert store.give_feedback(record.id, NO_DIGIT, "api").true_digit == NO_DIGIT
    assert store.get(record.id).feedback_by == "api"
    assert store.clear_feedback(record.id) == record


@pytest.mark.parametrize("true_digit", [-2, 10, True, "7", 1.5])
def test_invalid_feedback_is_rejected(store: Store, true_digit: Any) -> None:
    record = a_record()
    store.keep(record)
    with pytest.raises(RecordError, match="true digit"):
        store.give_feedback(record.id, true_digit, "page")
    with pytest.raises(RecordError, match="giver"):
        store.give_feedback(record.id, 3, "a b")
    assert store.get(record.id).true_digit is None


def test_another_browsers_record_is_as_if_it_were_not_there(store: Store) -> None:
    record = a_record(3, owner="mine")
    store.keep(record)
    for owner in ("yours", "MINE"):
        with pytest.raises(RecordNotFoundError):
            store.get(record.id, owner=owner)
        with pytest.raises(RecordNotFoundError):
            store.give_feedback(record.id, 5, "page", owner=owner)
        with pytest.raises(RecordNotFoundError):
            store.clear_feedback(record.id, owner=owner)
        with pytest.raises(RecordNotFoundError):
            store.delete(record.id, owner=owner)
        assert store.delete_all(owner=owner) == 0
    assert store.get(record.id, owner="mine") == record


def test_a_missing_owner_never_means_everybody(store: Store) -> None:
    nobody: Any = None
    record = a_record()
    store.keep(record)
    for question in (
        lambda: store.get(record.id, owner=nobody),
        lambda: store.delete(record.id, owner=nobody),
        lambda: store.delete_all(owner=nobody),
        lambda: store.statistics(owner=nobody),
        lambda: store.page(Filters(owner=nobody)),
    ):
        with pytest.raises(QueryError, match="the owner is"):
            question()
    assert store.get(record.id) == record


def test_what_is_deleted_is_gone(store: Store) -> None:
    records = [a_record(n, owner="mine" if n < 3 else "yours") for n in range(6)]
    for record in records:
        store.keep(record)
    store.delete(records[0].id)
    with pytest.raises(RecordNotFoundError):
        store.get(records[0].id)
    with pytest.raises(RecordNotFoundError):
        store.delete(records[0].id)
    assert store.delete_all(owner="mine") == 2
    assert {record.owner for record in store.page().records} == {"yours"}
    assert store.delete_all(owner=ANYONE) == 3
    assert store.page().records == ()


def test_strange_ids_are_not_found(store: Store) -> None:
    for strange in ("", "7", "x" * 100, "' OR 1=1 --", "\0" * 36, "\ud800", new_id()):
        with pytest.raises(RecordNotFoundError):
            store.get(strange)


def test_retention_deletes_the_old_and_keeps_the_rest(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inkdigits.log.store._DELETED_ROWS", 3)
    monkeypatch.setattr(Writer, "_tend", lambda writer: None)  # no purge by its own clock
    with opened(database_url, tmp_path) as store:
        assert store.purge() == 0
    with opened(database_url, tmp_path, retention_days=30) as store:
        for n in range(10):
            store.keep(a_record(created_at=START - timedelta(days=n)))
        on_the_limit = START + timedelta(days=27)  # 30 days after the fourth
        assert store.purge(on_the_limit) == 6
        kept = [record.created_at for record in store.page().records]
        assert kept == [START - timedelta(days=n) for n in range(4)]


def test_retention_works_without_being_asked(database_url: str, tmp_path: Path) -> None:
    with opened(database_url, tmp_path) as store:
        store.keep(a_record(created_at=datetime.now(UTC) - timedelta(days=31)))
        store.keep(a_record(created_at=datetime.now(UTC) - timedelta(days=29)))
    with opened(database_url, tmp_path, retention_days=30) as store:
        wait_until(lambda: len(store.page().records) == 1)


# While the database is unavailable


def test_what_is_kept_during_an_outage_is_there_once_after_it(
    outage: Outage, tmp_path: Path
) -> None:
    records = [a_record(n) for n in range(60)]
    with opened(outage.url, tmp_path, SHORT) as store:
        assert kept_by(store, records[:20]).total() == 20
        wait_until(lambda: store.available and store.waiting() == 0)
        outage.begin()
        assert kept_by(store, records[20:40]) == {"outbox": 20}
        assert not store.available
        assert store.waiting() == 20
        outage.end()
        wait_until(lambda: store.available and store.waiting() == 0)
        assert kept_by(store, records[40:])["lost"] == 0
        wait_until(lambda: store.waiting() == 0)
        assert sorted(rows_of(outage.url)) == sorted(record.id for record in records)
        assert list(reversed(store.page(limit=100).records)) == records


def test_no_call_hangs_while_the_database_is_unavailable(outage: Outage, tmp_path: Path) -> None:
    before, waiting = a_record(1, owner="mine"), a_record(2, owner="mine")
    with opened(outage.url, tmp_path, SHORT) as store:
        store.keep(before)
        wait_until(lambda: store.available and store.waiting() == 0)
        outage.begin()
        if outage.is_remote:  # a locked file may still answer who reads
            with pytest.raises(StoreUnavailableError):
                store.page()
        assert store.keep(waiting) == "outbox"
        for write in (
            lambda: store.give_feedback(before.id, 5, "page"),
            lambda: store.clear_feedback(before.id),
            lambda: store.delete(before.id),
            lambda: store.delete(waiting.id),
            lambda: store.delete_all(owner="mine"),
        ):
            with pytest.raises(StoreUnavailableError):
                write()
        assert store.get(waiting.id) == waiting
        assert store.give_feedback(waiting.id, 5, "page", owner="mine").true_digit == 5
        with pytest.raises(StoreUnavailableError):
            store.give_feedback(waiting.id, 5, "page", owner="yours")
        outage.end()
        wait_until(lambda: store.available and store.waiting() == 0)
        assert store.get(waiting.id).true_digit == 5
        assert store.get(before.id) == before


def test_a_store_opens_without_its_database_and_migrates_later(
    outage: Outage, tmp_path: Path
) -> None:
    outage.begin()
    record = a_record(4)
    with opened(outage.url, tmp_path, SHORT) as store:
        assert not store.available
        assert store.keep(record) == "outbox"
        with pytest.raises(StoreUnavailableError):
            store.page()
        outage.end()
        wait_until(lambda: store.available and store.waiting() == 0)
        assert store.get(record.id) == record


def test_a_full_disk_sends_predictions_to_the_outbox(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'log.sqlite3'}"
    records = [a_record(n) for n in range(60)]
    with opened(url, tmp_path) as store:
        engine = store._database.engine
        with engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()

        def limit(connection: Any, _: object) -> None:
            connection.execute(f"PRAGMA max_page_count = {pages + 5}")

        sa.event.listen(engine, "connect", limit)
        engine.dispose()
        kept = kept_by(store, records)
        assert set(kept) == {"database", "outbox"}
        sa.event.remove(engine, "connect", limit)
        engine.dispose()
        wait_until(lambda: store.available and store.waiting() == 0)
        assert sorted(rows_of(url)) == sorted(record.id for record in records)


def test_a_deleted_database_is_made_again_and_loses_nothing_that_comes_after(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.sqlite3"
    first, *others = [a_record(n) for n in range(20)]
    with opened(f"sqlite:///{path}", tmp_path) as store:
        assert store.keep(first) == "database"
        for end in ("", "-wal", "-shm"):
            path.with_name(path.name + end).unlink()
        assert kept_by(store, others)["lost"] == 0
        wait_until(lambda: store.available and store.waiting() == 0)
        assert sorted(rows_of(f"sqlite:///{path}")) == sorted(record.id for record in others)


def test_where_both_database_and_outbox_fail_a_prediction_is_lost_and_that_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path / 'log.sqlite3'}"
    with opened(url, tmp_path, SHORT, outbox_limit_bytes=100_000) as store:
        with sqlite3.connect(tmp_path / "log.sqlite3", isolation_level=None) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            records = [a_record(n) for n in range(200)]
            outcomes = [store.keep(record) for record in records]
        lock.close()
        assert set(outcomes) == {"outbox", "lost"}
        assert "a prediction is lost" in caplog.text
        kept = [r.id for r, kept in zip(records, outcomes, strict=True) if kept == "outbox"]
        wait_until(lambda: store.available and store.waiting() == 0)
        assert sorted(rows_of(url)) == sorted(kept)
        assert store.keep(a_record()) != "lost"


def test_feedback_finds_a_record_that_another_process_has_put_into_the_outbox(
    database_url: str, tmp_path: Path
) -> None:
    record, other = a_record(3), a_record(4)
    with opened(database_url, tmp_path) as store:
        store.keep(other)
        Outbox(tmp_path / "outbox").put(to_row(record))
        assert store.give_feedback(record.id, 5, "page").true_digit == 5
        store.flush_outbox()
        assert store.waiting() == 0
        assert store.get(record.id).true_digit == 5
        assert store.clear_feedback(record.id) == record


def test_feedback_given_while_a_record_is_moved_is_not_lost(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = a_record(3)
    with opened(database_url, tmp_path) as store:
        insert = store._database.insert

        def insert_late(*rows: Any) -> None:
            insert(*rows)
            store.give_feedback(record.id, 5, "page")

        with monkeypatch.context() as patched:
            patched.setattr(store._database, "insert", insert_late)
            Outbox(tmp_path / "outbox").put(to_row(record))
            store._writer._deliver(store._outbox.first(9))
        store.flush_outbox()
        assert store.get(record.id).true_digit == 5
        assert len(rows_of(database_url)) == 1


def test_what_is_deleted_does_not_come_back_from_the_outbox(
    database_url: str, tmp_path: Path
) -> None:
    mine, yours, one = a_record(owner="mine"), a_record(owner="yours"), a_record()
    outbox = Outbox(tmp_path / "outbox")
    with opened(database_url, tmp_path) as store:
        for record in (mine, yours, one):
            outbox.put(to_row(record))
        assert store.delete_all(owner="mine") == 1
        store.delete(one.id)
        store.flush_outbox()
        assert [record.id for record in store.page().records] == [yours.id]


def test_values_that_the_database_rejects_do_not_block_the_others(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(tmp_path / "outbox")
    with opened(database_url, tmp_path) as store:
        with store._database.transaction(writes=True) as connection:
            connection.execute(sa.text("CREATE UNIQUE INDEX once ON predictions (confidence)"))
        for n in range(4):
            outbox.put(to_row(a_record(n, confidence=0.5 if n < 2 else n / 10)))
        store.flush_outbox()
        assert sorted(rows_of(database_url, "confidence")) == [0.2, 0.3, 0.5]
        assert "set aside" in caplog.text
        assert store.waiting() == 0
        assert store.keep(a_record(confidence=0.5)) == "lost"
        assert store.keep(a_record(confidence=0.6)) == "database"


# When processes end


def keep_many(url: str, folder: Path, count: int, ids: Path, go: Event) -> None:
    """Several threads of one process keep records; where each is kept is written down."""
    records = [a_record(n) for n in range(count)]
    with (
        opened(url, folder, SHORT) as store,
        ids.open("w", buffering=1) as file,
        ThreadPoolExecutor(4) as pool,
    ):
        go.wait()
        for record, outcome in zip(records, pool.map(store.keep, records), strict=True):
            file.write(f"{record.id} {outcome}\n")


@pytest.mark.parametrize("how", ["fast", "immediate", "frozen"])
def test_postgresql_stopped_under_load_and_started_again_has_each_prediction_once(
    own_postgres: EmbeddedPostgres, tmp_path: Path, how: str
) -> None:
    url, go = own_postgres.empty_database(), SPAWN.Event()
    outage = Outage(url, own_postgres, how)
    files = [tmp_path / f"ids {n}" for n in range(2)]
    processes = [
        SPAWN.Process(target=keep_many, args=(url, tmp_path, 1000, file, go)) for file in files
    ]
    for process in processes:
        process.start()

    def outcomes() -> Counter[str]:
        lines = [line for file in files if file.exists() for line in file.read_text().splitlines()]
        return Counter(line.split()[1] for line in lines if len(line.split()) == 2)

    go.set()
    wait_until(lambda: outcomes()["database"] > 100)
    outage.begin()
    wait_until(lambda: outcomes()["outbox"] > 100)
    outage.end()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    with opened(url, tmp_path) as store:
        store.flush_outbox()
        assert store.waiting() == 0
    kept = [line.split() for file in files for line in file.read_text().splitlines()]
    assert {outcome for _, outcome in kept} == {"database", "outbox"}
    assert len(kept) == 2 * 1000
    assert sorted(rows_of(url)) == sorted(name for name, _ in kept)


def keep_until_killed(url: str, folder: Path, ids: Path) -> None:
    store = opened(url, folder, SHORT)
    with ids.open("w", buffering=1) as file:
        for n in range(10**6):
            record = a_record(n)
            store.keep(record)
            file.write(f"{record.id}\n")


@pytest.mark.parametrize("is_unavailable", [True, False])
def test_a_process_killed_with_sigkill_has_lost_nothing_that_it_kept(
    outage: Outage, tmp_path: Path, is_unavailable: bool
) -> None:
    ids = tmp_path / "ids"
    ids.touch()
    if is_unavailable:
        outage.begin()
    process = SPAWN.Process(target=keep_until_killed, args=(outage.url, tmp_path, ids))
    process.start()
    wait_until(lambda: ids.stat().st_size > 37 * 50)
    process.kill()
    process.join()
    if is_unavailable:
        outage.end()
    with opened(outage.url, tmp_path) as store:
        store.flush_outbox()
        promised = [line for line in ids.read_text().splitlines() if len(line) == 36]
        found = rows_of(outage.url)
        assert store.waiting() == 0
    assert len(found) == len(set(found))
    assert set(promised) <= set(found)
    assert len(found) - len(promised) in {0, 1}  # one may be kept and not yet written down


def connection_of(store: Store) -> object:
    with store._database.transaction() as connection:
        return connection.connection.dbapi_connection


def test_a_forked_process_records_on_connections_of_its_own(
    database_url: str, tmp_path: Path
) -> None:
    ours, theirs = a_record(1), a_record(2)
    with opened(database_url, tmp_path) as store:
        store.keep(ours)
        parents = connection_of(store)
        with warnings.catch_warnings():
            # Python 3.12 warns of forks among threads, which is what is tried here.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            is_own = connection_of(store) is not parents
            is_well = is_own and store.keep(theirs) == "database" and store.get(ours.id) == ours
            store.close()
            os._exit(0 if is_well else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert store.get(ours.id) == ours
        assert store.get(theirs.id) == theirs
