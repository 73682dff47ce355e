"""The prediction log on SQLite and on PostgreSQL: what it keeps, for whom, and through what."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from support.databases import START, Outage, a_record, opened, rows_of, sqlite_url
from support.processes import running_together, wait_until

from inkdigits.errors import QueryError, RecordError, RecordNotFoundError, StoreUnavailableError
from inkdigits.log.connections import Options
from inkdigits.log.outbox import FILE_NAME, Outbox
from inkdigits.log.queries import Filters, Page
from inkdigits.log.record import ANYONE, Shares, new_id, to_row
from inkdigits.log.writer import Writer
from inkdigits.types import NO_DIGIT

pytest_plugins = ["support.databases"]

SHORT = Options(wait_s=0.5)
"""For outages: the first call of each costs this much."""


def kept_by(store, records):
    """Where the records are kept; the machine may be busy, so any may go to the outbox."""
    return Counter(map(store.keep, records))


def wait_until_recovered(store):
    wait_until(lambda: store.available and store.waiting() == 0)


def ids_of(records):
    return sorted(record.id for record in records)


# Keeping and finding


def test_what_was_recorded_comes_back_as_it_was(store):
    moment = datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)
    for record in (
        a_record(3, created_at=moment, confidence=1 / 3, novelty=-0.1, owner="browser-1"),
        a_record(digit=None, confidence=0, decision="reject", reason="blank", novelty=None),
    ):
        assert store.keep(record) == "database"
        assert store.get(record.id) == record
        assert store.get(record.id).ink.tolist() == record.ink.tolist()


def test_a_picture_is_kept_only_if_the_operator_wants_it(database_url, tmp_path):
    plain, kept = a_record(picture=b"plain"), a_record(picture=b"kept")
    with opened(database_url, tmp_path) as store:
        store.keep(plain)
        assert store.get(plain.id).picture is None
    with opened(database_url, tmp_path, keep_pictures=True) as store:
        store.keep(kept)
        assert store.get(kept.id) == kept
        assert all(record.picture is None for record in store.page().records)


def test_feedback_is_given_replaced_kept_and_cleared(store):
    record = a_record(3)
    store.keep(record)
    before = datetime.now(UTC)
    corrected = store.give_feedback(record.id, "5", "page")
    assert (corrected.label, corrected.feedback_by) == ("5", "page")
    assert corrected.feedback_at is not None
    assert before <= corrected.feedback_at <= datetime.now(UTC)
    assert store.give_feedback(record.id, "none", "api").true_digit == NO_DIGIT
    store.keep(record)  # again, which changes nothing
    assert [(r.label, r.feedback_by) for r in store.page().records] == [("none", "api")]
    assert store.give_feedback(record.id, None, "page") == record


@pytest.mark.parametrize("label", ["", "-1", "7 ", "7\n", "٣", "None", "1" * 65, 7, True])
def test_invalid_feedback_is_rejected(store, label):
    record = a_record()
    store.keep(record)
    with pytest.raises(RecordError, match="A label is"):
        store.give_feedback(record.id, label, "page")
    with pytest.raises(RecordError, match="giver"):
        store.give_feedback(record.id, "3", "a b")
    assert store.get(record.id).label is None


def test_another_browsers_record_is_as_if_it_were_not_there(store):
    record = a_record(3, owner="mine")
    store.keep(record)
    for owner in ("yours", "MINE"):
        for call in (
            store.get,
            lambda name, owner: store.give_feedback(name, None, "page", owner=owner),
            store.delete,
            lambda name, owner: store.give_feedback(name, "5", "page", owner=owner),
        ):
            with pytest.raises(RecordNotFoundError):
                call(record.id, owner=owner)
        assert store.delete_all(owner=owner) == 0
    assert store.get(record.id, owner="mine") == record


def test_a_missing_owner_never_means_everybody(store):
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


def test_what_is_deleted_or_never_was_is_not_found(store):
    records = [a_record(n, owner="mine" if n < 3 else "yours") for n in range(6)]
    kept_by(store, records)
    store.delete(records[0].id)
    for name in (records[0].id, "", "7", "x" * 100, "' OR 1=1 --", "\0" * 36, "\ud800", new_id()):
        for call in (store.get, store.delete):
            with pytest.raises(RecordNotFoundError):
                call(name)
    assert store.delete_all(owner="mine") == 2
    assert {record.owner for record in store.page().records} == {"yours"}
    assert store.delete_all(owner=ANYONE) == 3
    assert store.page() == Page(records=(), older=None, newer=None)


def test_retention_deletes_the_old_and_keeps_the_rest(database_url, tmp_path, monkeypatch):
    monkeypatch.setattr("inkdigits.log.store._DELETED_ROWS", 3)
    monkeypatch.setattr(Writer, "_tend", lambda writer: None)  # no purge by its own clock
    with opened(database_url, tmp_path, retention_days=30) as store:
        for n in range(10):
            store.keep(a_record(created_at=START - timedelta(days=n)))
        on_the_limit = START + timedelta(days=27)  # 30 days after the fourth
        assert store.purge(on_the_limit) == 6
        kept = [record.created_at for record in store.page().records]
        assert kept == [START - timedelta(days=n) for n in range(4)]


def test_retention_works_without_being_asked(database_url, tmp_path):
    with opened(database_url, tmp_path) as store:
        for days in (29, 31):
            store.keep(a_record(created_at=datetime.now(UTC) - timedelta(days)))
        assert store.purge() == 0
    with opened(database_url, tmp_path, retention_days=30) as store:
        wait_until(lambda: len(store.page().records) == 1)


def test_replicas_decide_once_that_a_promotion_has_ended(store, database_url, tmp_path):
    assert store.ended_promotion("v@1") is None
    with opened(database_url, tmp_path / "other") as other, ThreadPoolExecutor() as pool:
        stores = [store, other] * 4
        (reason,) = set(pool.map(lambda n: stores[n].end_promotion("v@1", f"r{n}"), range(8)))
        assert other.ended_promotion("v@1") == reason
    assert store.end_promotion("v@2", "x" * 500) == "x" * 400
    assert store.available


# While the database is unavailable


@pytest.mark.e2e
def test_sign_in_that_has_ended_is_known_to_all_and_forgotten_later(store, database_url, tmp_path):
    for name in ("first", "first", "second"):
        store.end_sign_in(name, hours=12)
    with opened(database_url, tmp_path / "other") as other:
        assert [other.has_ended(name) for name in ("first", "second", "third")] == [
            True,
            True,
            False,
        ]
        other.end_sign_in("third", hours=0)
    assert [store.has_ended(name) for name in ("first", "third")] == [False, True]


def test_no_call_hangs_in_an_outage_and_what_is_kept_is_there_once_after_it(outage, tmp_path):
    records = [a_record(n, owner="mine") for n in range(60)]
    before, waiting = records[0], records[20]
    with opened(outage.url, tmp_path, SHORT, shares=Shares(audit=0.0)) as store:
        assert kept_by(store, records[:20])["lost"] == 0
        wait_until_recovered(store)
        outage.begin()
        if outage.is_remote:  # a locked file may still answer who reads
            with pytest.raises(StoreUnavailableError):
                store.page()
        assert kept_by(store, records[20:40]) == {"outbox": 20}
        assert not store.available
        assert store.waiting() == 20
        for write in (
            lambda: store.give_feedback(before.id, "5", "page"),
            lambda: store.give_feedback(waiting.id, "5", "page", owner="yours"),
            lambda: store.give_feedback(before.id, None, "page"),
            lambda: store.delete(before.id),
            lambda: store.delete(waiting.id),
            lambda: store.delete_all(owner="mine"),
        ):
            with pytest.raises(StoreUnavailableError):
                write()
        assert store.get(waiting.id) == waiting
        corrected = store.give_feedback(waiting.id, "5", "page", owner="mine")
        outage.end()
        wait_until_recovered(store)
        assert kept_by(store, records[40:])["lost"] == 0
        wait_until(lambda: store.waiting() == 0)
        assert sorted(rows_of(outage.url)) == ids_of(records)
        records[20] = corrected
        assert list(reversed(store.page(limit=100).records)) == records


@pytest.mark.e2e
def test_a_store_opens_without_its_database_and_migrates_later(outage, tmp_path):
    outage.begin()
    record = a_record(4)
    with opened(outage.url, tmp_path, SHORT) as store:
        assert not store.available
        assert store.keep(record) == "outbox"
        with pytest.raises(StoreUnavailableError):
            store.page()
        outage.end()
        wait_until_recovered(store)
        assert store.get(record.id) == record


def test_a_full_disk_sends_predictions_to_the_outbox(tmp_path):
    url = sqlite_url(tmp_path)
    records = [a_record(n) for n in range(60)]
    with opened(url, tmp_path) as store:
        engine = store._database.engine
        with engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()

        def limit(connection, _):
            connection.execute(f"PRAGMA max_page_count = {pages + 5}")

        sa.event.listen(engine, "connect", limit)
        engine.dispose()
        kept = kept_by(store, records)
        assert set(kept) == {"database", "outbox"}
        sa.event.remove(engine, "connect", limit)
        engine.dispose()
        wait_until_recovered(store)
        assert sorted(rows_of(url)) == ids_of(records)


def test_a_deleted_database_is_made_again_and_loses_nothing_that_comes_after(tmp_path):
    path = tmp_path / "log.sqlite3"
    first, *others = [a_record(n) for n in range(20)]
    with opened(f"sqlite:///{path}", tmp_path) as store:
        assert store.keep(first) == "database"
        for end in ("", "-wal", "-shm"):
            path.with_name(path.name + end).unlink()
        assert kept_by(store, others)["lost"] == 0
        wait_until_recovered(store)
        assert sorted(rows_of(f"sqlite:///{path}")) == ids_of(others)


@pytest.mark.e2e
def test_where_database_and_full_outbox_fail_a_prediction_is_lost_and_that_is_logged(
    tmp_path, caplog
):
    url = sqlite_url(tmp_path)
    outage = Outage(url)
    with opened(url, tmp_path, SHORT, outbox_limit_bytes=100_000) as store:
        outage.begin()
        outcomes = {record: store.keep(record) for record in map(a_record, range(200))}
        assert (tmp_path / "outbox" / FILE_NAME).stat().st_size <= 100_000
        outage.end()
        assert set(outcomes.values()) == {"outbox", "lost"}
        assert "a prediction is lost" in caplog.text
        wait_until_recovered(store)
        assert sorted(rows_of(url)) == ids_of(r for r, kept in outcomes.items() if kept != "lost")
        outage.begin()
        assert store.keep(a_record()) == "outbox"  # which has room again
        outage.end()


def test_feedback_given_while_a_record_is_moved_is_not_lost(store, database_url, monkeypatch):
    record = a_record(3)
    insert = store._database.insert

    def insert_late(*rows):
        insert(*rows)
        monkeypatch.undo()
        store.give_feedback(record.id, "5", "page")

    monkeypatch.setattr(store._database, "insert", insert_late)
    store._outbox.put(to_row(record))
    store.flush_outbox()
    store.flush_outbox()
    assert store.waiting() == 0
    assert rows_of(database_url, "id, label") == [(record.id, "5")]


def test_what_is_deleted_does_not_come_back_from_the_outbox(store, tmp_path):
    mine, yours, one = a_record(owner="mine"), a_record(owner="yours"), a_record()
    outbox = Outbox(tmp_path / "outbox")
    for record in (mine, yours, one):
        outbox.put(to_row(record))
    assert store.delete_all(owner="mine") == 1
    store.delete(one.id)
    store.flush_outbox()
    assert [record.id for record in store.page().records] == [yours.id]


def test_values_that_the_database_rejects_do_not_block_the_others(store, database_url, caplog):
    with store._database.transaction(writes=True) as connection:
        connection.execute(sa.text("CREATE UNIQUE INDEX once ON predictions (confidence)"))
    for n in range(4):
        store._outbox.put(to_row(a_record(n, confidence=0.5 if n < 2 else n / 10)))
    store.flush_outbox()
    assert sorted(rows_of(database_url, "confidence")) == [0.2, 0.3, 0.5]
    assert "set aside" in caplog.text
    assert store.waiting() == 0
    assert store.keep(a_record(confidence=0.5)) == "lost"
    assert store.keep(a_record(confidence=0.6)) == "database"


# When processes end


def keep_many(url, folder, ids):
    """Several threads of one process keep records; where each is kept is written down."""
    records = [a_record(n) for n in range(1000)]
    with (
        opened(url, folder, SHORT) as store,
        ids.open("w", buffering=1) as file,
        ThreadPoolExecutor(4) as pool,
    ):
        for record, outcome in zip(records, pool.map(store.keep, records), strict=True):
            file.write(f"{record.id} {outcome}\n")


@pytest.mark.parametrize("how", ["fast", "immediate", "frozen"])
def test_postgresql_stopped_under_load_and_started_again_has_each_prediction_once(
    own_postgres, tmp_path, how
):
    url = own_postgres.empty_database()
    outage = Outage(url, own_postgres, how)
    files = [tmp_path / f"ids {n}" for n in range(2)]

    def kept():
        lines = [line for file in files if file.exists() for line in file.read_text().split("\n")]
        return [line.split() for line in lines if line.count(" ") == 1]

    def is_kept_in(place):
        return sum(where == place for _, where in kept()) > 100

    with running_together(keep_many, [(url, tmp_path, file) for file in files]):
        wait_until(lambda: is_kept_in("database"))
        outage.begin()
        wait_until(lambda: is_kept_in("outbox"))
        outage.end()
    with opened(url, tmp_path) as store:
        store.flush_outbox()
        assert store.waiting() == 0
    assert {where for _, where in kept()} == {"database", "outbox"}
    assert len(kept()) == 2 * 1000
    assert sorted(rows_of(url)) == sorted(name for name, _ in kept())
