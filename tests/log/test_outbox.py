"""The outbox keeps what it took: full, damaged, deleted, shared by processes, or killed."""

import json
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

import pytest
from support.databases import START, a_record, opened, sqlite_url
from support.processes import running_together, wait_until

from inkdigits.errors import ConfigError, OutboxError
from inkdigits.log.locks import file_lock
from inkdigits.log.outbox import FILE_NAME, Outbox
from inkdigits.log.record import ANYONE, to_row


def a_row(number=0, **changes):
    return to_row(a_record(number, **changes))


def emptied(outbox):
    rows = []
    while waiting := outbox.first(100):
        rows += [w.row for w in waiting]
        outbox.remove(waiting)
    return rows


def test_rows_come_back_as_they_were_oldest_first_and_then_are_gone(tmp_path):
    outbox = Outbox(tmp_path / "outbox")
    feedback = {"label": "4", "feedback_at": START, "feedback_by": "page"}
    rows = [a_row(n, picture=b"\0png", confidence=1 / 3, **feedback) for n in range(120)]
    for row in rows:
        outbox.put(row)
    assert outbox.count() == 120
    for path in (outbox.folder, *outbox.folder.iterdir()):
        assert path.stat().st_mode & 0o077 == 0, "others may read it"
    assert [w.row for w in outbox.first(7)] == rows[:7]
    assert emptied(outbox) == rows
    assert outbox.count() == 0


def test_a_row_is_kept_once_and_found_by_its_owner(tmp_path):
    row = a_row(owner="mine")
    outbox = Outbox(tmp_path)
    outbox.put(row)
    Outbox(tmp_path).put(row)
    assert outbox.count() == 1
    for owner in ("mine", ANYONE):
        assert outbox.find(row["id"], owner) == row
    assert outbox.find(row["id"], "yours") is None
    assert outbox.delete(row["id"], "yours") == 0
    assert outbox.delete(None, "mine") == 1
    assert outbox.find(row["id"], ANYONE) is None


@pytest.mark.parametrize("text", ["{}", "null", '{"ink": "!", "picture": null}', '{"id": 7'])
def test_rows_that_are_no_records_are_set_aside(tmp_path, caplog, text):
    outbox, good, bad = Outbox(tmp_path), a_row(), a_row()
    for row in (good, bad):
        outbox.put(row)
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as file:
        file.execute("UPDATE waiting SET row = ? WHERE id = ?", [text, bad["id"]])
        assert [w.row for w in outbox.first(9)] == [good]
        found = file.execute("SELECT id FROM waiting WHERE rejected IS NOT NULL").fetchall()
    assert found == [(bad["id"],)]
    assert outbox.count() == 1
    assert "set aside" in caplog.text


def test_a_row_with_any_wrong_value_stops_neither_the_log_nor_the_other_rows(tmp_path, caplog):
    outbox, good, columns = Outbox(tmp_path / "outbox"), a_row(1), sorted(a_row())
    with closing(sqlite3.connect(outbox.folder / FILE_NAME, isolation_level=None)) as file:
        for name in columns:
            for wrong in (None, [], {}, "x\0", 2**63, -7, 1e300):
                outbox.put(bad := a_row())
                change = ("json_set(row, '$.' || ?, json(?))", name, json.dumps(wrong))
                file.execute(
                    f"UPDATE waiting SET row = {change[0]} WHERE id = ?", (*change[1:], bad["id"])
                )
        outbox.put(good)
        with opened(sqlite_url(tmp_path), tmp_path) as store:
            store.flush_outbox()
            assert store.available
            assert store.waiting() == 0
            assert store.get(good["id"]).id == good["id"]
            assert len(store.page(limit=500).records) == store.count()
        found = file.execute("SELECT rejected FROM waiting").fetchall()
    told = " ".join(reason for (reason,) in found)
    for name in ("decision", "reason", "input_kind", "queued", "digit", "reviews_due"):
        assert f"$.{name}" in told


def test_a_damaged_file_is_kept_and_a_new_one_made(tmp_path, caplog):
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 999)
    outbox = Outbox(tmp_path)
    outbox.put(a_row())
    assert outbox.count() == 1
    (kept,) = tmp_path.glob("*.damaged-*")
    assert kept.read_bytes().startswith(b"no database at all")
    assert str(kept) in caplog.text


def test_damage_that_cannot_be_set_aside_keeps_no_row_of_any_thread(tmp_path, monkeypatch):
    def fails(*_):
        raise PermissionError("the folder is read-only")

    outbox = Outbox(tmp_path)
    for path in tmp_path.glob(f"{FILE_NAME}*"):
        path.unlink()
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 999)
    monkeypatch.setattr(Path, "rename", fails)
    with ThreadPoolExecutor(3) as pool:
        with outbox._putting:
            together = [pool.submit(outbox.put, a_row()) for _ in range(3)]
            wait_until(lambda: len(outbox._pending) == 3)
        assert {type(one.exception()) for one in together} == {OutboxError}


def test_one_process_at_a_time_makes_a_new_file(tmp_path):
    outbox = Outbox(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    with ThreadPoolExecutor(1) as pool:
        with file_lock(tmp_path / "opening.lock"):
            kept = pool.submit(outbox.put, a_row())
            assert not wait([kept], 0.2).done
        kept.result()
    assert outbox.count() == 1


@pytest.mark.parametrize("with_folder", [False, True])
def test_a_deleted_file_is_made_again_and_loses_no_row_that_comes_after(tmp_path, with_folder):
    folder = tmp_path / "outbox"
    outbox, other = Outbox(folder), Outbox(folder)
    outbox.put(a_row(1))
    other.put(a_row(2))
    for path in folder.glob(f"{FILE_NAME}*"):
        path.unlink()
    if with_folder:
        shutil.rmtree(folder)
    third, fourth = a_row(3), a_row(4)
    outbox.put(third)
    other.put(fourth)
    assert [w.row for w in Outbox(folder).first(9)] == [third, fourth]


@pytest.mark.parametrize("limit", [0, -1, 1000])
def test_an_outbox_that_cannot_be_used_is_named_at_once(tmp_path, limit):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be used"):
        Outbox(tmp_path / "file")
    with pytest.raises(ConfigError, match="at least 65,536 bytes"):
        Outbox(tmp_path, limit)


def put_many(folder, count):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Outbox(folder).put, map(a_row, range(count))))


@pytest.mark.e2e
def test_many_threads_and_processes_lose_and_double_nothing(tmp_path):
    outbox, found = Outbox(tmp_path), []
    with running_together(put_many, [(tmp_path, 160)] * 2) as some_run:
        while some_run():
            found += emptied(outbox)
    found += emptied(outbox)
    assert len(found) == len({row["id"] for row in found}) == 2 * 160


def test_rows_older_than_the_retention_are_deleted_though_set_aside(tmp_path):
    outbox, rows = Outbox(tmp_path), [a_row(n) for n in range(3)]
    outbox.put(damaged := a_row(0, id="00000000-0000-7000-8000-000000000000"))
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as file:
        file.execute("UPDATE waiting SET row = '{' WHERE id = ?", [damaged["id"]])
    for row in rows:
        outbox.put(row)
    outbox.set_aside(rows[0]["id"], "its values are rejected")
    assert outbox.purge(rows[2]["created_us"]) == 3
    assert outbox.purge(rows[2]["created_us"]) == 0
    assert emptied(outbox) == rows[2:]
