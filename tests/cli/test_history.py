import csv
import io

import pytest
from support.commands import run
from support.databases import PATIENT, a_record

from inkdigits.log.store import Store


@pytest.fixture
def log(tmp_path, monkeypatch):
    """A log with three predictions, the first corrected, and the environment that names it."""
    url = f"sqlite:///{tmp_path / 'log.sqlite3'}"
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("INKDIGITS_SPOOL_DIR", str(tmp_path / "outbox"))
    records = [a_record(number) for number in range(3)]
    with Store(url, outbox_dir=tmp_path / "outbox", options=PATIENT) as store:
        for record in records:
            store.keep(record)
        store.give_feedback(records[0].id, "4", "tester")

    def ids():
        with Store(url, outbox_dir=tmp_path / "outbox", options=PATIENT) as store:
            return {record.id for record in store.page().records}

    return records, ids


def test_export_writes_every_prediction_or_those_of_a_filter_as_csv(log, tmp_path):
    target = tmp_path / "out.csv"
    export = ("history", "export", target)
    assert "1 prediction in" in run(*export, "--feedback", "given").output
    assert "exists; add --overwrite" in run(*export, exit_code=1).stderr
    assert f"3 predictions in {target}" in run(*export, "--overwrite").output
    rows = list(csv.DictReader(io.StringIO(target.read_text())))
    assert {row["id"] for row in rows} == {record.id for record in log[0]}


def test_format_is_that_of_the_name(log, tmp_path):
    run("history", "export", target := tmp_path / "out.parquet")
    assert target.read_bytes()[:4] == b"PAR1"
    assert ".csv or .parquet" in run("history", "export", tmp_path / "a.b", exit_code=2).stderr


def test_delete_takes_one_away_for_good_after_asking(log):
    records, ids = log
    delete = ("history", "delete", records[1].id)
    question = run(*delete, answer="n\n", exit_code=1).output
    assert f"labelled 4) of {records[0].created_at:%Y-%m-%d}" not in question
    assert "no label) of " in question
    assert "log.sqlite3?" in question
    assert len(ids()) == 3
    run(*delete, answer="y\n")
    assert ids() == {records[0].id, records[2].id}
    assert "Error" in run(*delete, "--yes", exit_code=1).stderr


def test_delete_all_needs_to_be_said(log):
    run("history", "delete", "--yes", exit_code=2)
    assert "3 predictions deleted" in run("history", "delete", "--all", "--yes").output
    assert log[1]() == set()


def test_purge_and_flush_say_what_they_did(log):
    assert "0 predictions deleted" in run("history", "purge").output
    assert "0 predictions moved" in run("history", "flush").output


def test_without_a_log_it_says_so(monkeypatch):
    monkeypatch.setenv("INKDIGITS_PAGE", "off")
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert "there is no prediction log" in run("history", "purge", exit_code=1).stderr
