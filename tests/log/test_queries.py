"""Pages, filters, the dashboard's figures and the exports, on both databases."""

from __future__ import annotations

import base64
import csv
import io
import random
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from support.databases import START, a_record

from inkdigits.errors import BackendUnavailableError, QueryError
from inkdigits.log import export as history_export
from inkdigits.log import queries as history
from inkdigits.log import statistics as dashboard
from inkdigits.log.queries import Filters
from inkdigits.log.record import Record, to_row
from inkdigits.log.statistics import CALIBRATION_BINS, Proportion
from inkdigits.log.store import Store
from inkdigits.types import NO_DIGIT

pytest_plugins = ["support.databases"]

ZERO = "00000000-0000-0000-0000-000000000000"


def a_history() -> list[Record]:
    """200 records of many kinds, oldest first, several to a second; 80 of them with feedback."""
    choose = random.Random(7)
    records = []
    for number in range(200):
        digit = choose.choice([*range(10), None])
        decision = "reject" if digit is None else choose.choice(["accept", "review", "reject"])
        changes: dict[str, Any] = {
            "created_at": START + timedelta(hours=number // 3),
            "digit": digit,
            "decision": decision,
            "reason": "blank" if digit is None else None,
            "confidence": 0.0 if digit is None else choose.choice([0.1, 0.55, 0.72, 0.99, 1.0]),
            "owner": choose.choice(["mine", "yours", None]),
            "input_kind": choose.choice(["drawn", "uploaded", "api"]),
        }
        if number % 5 < 2:
            true = choose.choice([digit, digit, choose.randrange(10), NO_DIGIT])
            changes["true_digit"] = NO_DIGIT if true is None else true
            changes["feedback_at"] = START + timedelta(days=30)
            changes["feedback_by"] = "page"
        records.append(a_record(number, **changes))
    return sorted(records, key=lambda record: (record.created_at, record.id))


@pytest.fixture
def records(store: Store) -> list[Record]:
    """What the store holds: `a_history`."""
    made = a_history()
    store._database.insert([to_row(record) for record in made])
    return made


# Pages


def test_pages_lead_through_all_records_and_back(store: Store, records: list[Record]) -> None:
    newest_first = list(reversed(records))
    pages = [store.page(limit=30)]
    while pages[-1].older is not None:
        pages.append(store.page(cursor=pages[-1].older, limit=30))
    assert [len(page.records) for page in pages] == [30] * 6 + [20]
    assert [record for page in pages for record in page.records] == newest_first
    assert pages[0].newer is None
    for page, newer in zip(reversed(pages), list(reversed(pages))[1:], strict=False):
        assert store.page(cursor=page.newer, limit=30).records == newer.records
    assert store.page(cursor=pages[1].newer, limit=30).newer is None


def test_a_last_page_that_is_full_has_no_older_one(store: Store, records: list[Record]) -> None:
    page = store.page(limit=len(records))
    assert len(page.records) == len(records)
    assert page.older is None


def test_a_page_stays_put_while_records_come_in(store: Store, records: list[Record]) -> None:
    first = store.page(limit=10)
    before = store.page(cursor=first.older, limit=10)
    store.keep(a_record(created_at=START + timedelta(days=300)))
    assert store.page(cursor=first.older, limit=10) == before


def test_an_empty_log_has_one_empty_page(store: Store) -> None:
    page = store.page()
    assert (page.records, page.older, page.newer) == ((), None, None)


FILTERS = {
    "digit": (Filters(digit=3), lambda r: r.digit == 3),
    "nothing read": (Filters(digit=NO_DIGIT), lambda r: r.digit is None),
    "decision": (Filters(decision="review"), lambda r: r.decision == "review"),
    "with feedback": (Filters(feedback="given"), lambda r: r.true_digit is not None),
    "without feedback": (Filters(feedback="none"), lambda r: r.true_digit is None),
    "right": (Filters(feedback="right"), lambda r: r.was_right is True),
    "wrong": (Filters(feedback="wrong"), lambda r: r.was_right is False),
    "since": (
        Filters(since=START + timedelta(hours=20)),
        lambda r: r.created_at >= START + timedelta(hours=20),
    ),
    "until": (
        Filters(until=START + timedelta(hours=20)),
        lambda r: r.created_at < START + timedelta(hours=20),
    ),
    "owner": (Filters(owner="mine"), lambda r: r.owner == "mine"),
    "several": (
        Filters(decision="accept", owner="mine", feedback="given", since=START),
        lambda r: (r.decision, r.owner) == ("accept", "mine") and r.true_digit is not None,
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_finds_what_it_says(store: Store, records: list[Record], name: str) -> None:
    filters, is_meant = FILTERS[name]
    expected = [record for record in reversed(records) if is_meant(record)]
    assert expected, "the history has none of these to find"
    assert len(expected) < len(records)
    found, cursor = [], None
    while True:
        page = store.page(filters, cursor=cursor, limit=7)
        found += page.records
        if (cursor := page.older) is None:
            break
    assert found == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"digit": 10},
        {"digit": -2},
        {"decision": "maybe"},
        {"feedback": "yes"},
        {"since": datetime(2026, 1, 1)},
        {"owner": ""},
    ],
)
def test_a_filter_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(QueryError):
        Filters(**wrong)


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "o.1", f"o.x.{ZERO}", f"q.1.{ZERO}", f"o.{10**30}.{ZERO}", "o.1." + "\0" * 36],
)
def test_a_cursor_that_no_page_gave_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(QueryError, match="cursor"):
        store.page(cursor=cursor)


@pytest.mark.parametrize("limit", [0, -1, 501])
def test_a_page_of_no_or_too_many_records_is_refused(store: Store, limit: int) -> None:
    with pytest.raises(QueryError, match="1 to 500"):
        store.page(limit=limit)


# Statistics


def test_the_figures_are_those_counted_by_hand(store: Store, records: list[Record]) -> None:
    found = store.statistics()
    corrected = [r for r in records if r.true_digit is not None]
    digits = [r for r in corrected if r.true_digit != NO_DIGIT and r.digit is not None]
    scribbles = [r for r in corrected if r.true_digit == NO_DIGIT]
    assert found.total == 200
    for decision in ("accept", "review", "reject"):
        of_it = [r for r in digits if r.decision == decision]
        assert found.decisions[decision] == sum(r.decision == decision for r in records)
        proportion = Proportion.of(sum(r.digit == r.true_digit for r in of_it), len(of_it))
        assert found.accuracy_by_decision[decision] == proportion
    assert found.corrected == len(corrected)
    right = [r for r in digits if r.digit == r.true_digit]
    assert 0 < len(right) < len(digits)
    assert found.accuracy == Proportion.of(len(right), len(digits))
    confusion = np.zeros((10, 10), int)
    for r in digits:
        confusion[r.true_digit, r.digit] += 1
    assert found.confusion == tuple(map(tuple, confusion.tolist()))
    assert found.refused == Proportion.of(
        sum(r.decision == "reject" for r in scribbles), len(scribbles)
    )
    assert found.missed == len(corrected) - len(digits) - len(scribbles)


def test_calibration_compares_confidence_with_accuracy(store: Store, records: list[Record]) -> None:
    found = store.statistics()
    digits = [r for r in records if r.true_digit not in {None, NO_DIGIT} and r.digit is not None]
    error = 0.0
    for k, bin_ in enumerate(found.calibration):
        inside = [r for r in digits if min(int(r.confidence * 10 + 1e-9), 9) == k]
        assert (bin_.low, bin_.high) == (k / 10, (k + 1) / 10)
        assert bin_.accuracy.total == len(inside)
        if not inside:
            assert bin_.confidence is None
            continue
        confidence = np.mean([r.confidence for r in inside])
        accuracy = np.mean([r.digit == r.true_digit for r in inside])
        assert bin_.confidence == pytest.approx(confidence)
        assert bin_.accuracy.value == pytest.approx(accuracy)
        error += len(inside) / len(digits) * abs(accuracy - confidence)
    assert len(found.calibration) == CALIBRATION_BINS
    assert found.calibration_error == pytest.approx(error)


@pytest.mark.parametrize(("bucket", "hours"), [("hour", 1), ("day", 24)])
def test_time_is_counted_in_buckets_without_gaps(
    store: Store, records: list[Record], bucket: Any, hours: int
) -> None:
    gap = a_record(created_at=records[-1].created_at + timedelta(days=3), decision="review")
    store.keep(gap)
    over_time = store.statistics(bucket=bucket).over_time
    step = timedelta(hours=hours)
    first = records[0].created_at.replace(hour=12 if hours == 1 else 0)
    assert [i.start for i in over_time] == [first + n * step for n in range(len(over_time))]
    assert over_time[-1].start <= gap.created_at < over_time[-1].start + step
    for interval in over_time:
        inside = [
            r.decision
            for r in [*records, gap]
            if interval.start <= r.created_at < interval.start + step
        ]
        counts = (interval.accept, interval.review, interval.reject)
        assert counts == tuple(inside.count(d) for d in ("accept", "review", "reject"))


def test_figures_are_of_one_time_and_one_owner(store: Store, records: list[Record]) -> None:
    since, until = START + timedelta(hours=10), START + timedelta(hours=40)
    found = store.statistics(since=since, until=until, owner="mine")
    meant = [r for r in records if since <= r.created_at < until and r.owner == "mine"]
    assert found.total == len(meant)
    assert found.corrected == sum(r.true_digit is not None for r in meant)


def test_an_empty_log_has_no_figures_and_no_division_by_zero(store: Store) -> None:
    found = store.statistics()
    assert (found.total, found.corrected, found.over_time) == (0, 0, ())
    assert found.accuracy == Proportion(0, 0, None, None, None)
    assert found.calibration_error is None
    assert np.sum(found.confusion) == 0


def test_too_many_buckets_are_refused(store: Store) -> None:
    store.keep(a_record(created_at=START))
    store.keep(a_record(created_at=START - timedelta(hours=10_000)))
    with pytest.raises(QueryError, match="10,001 hours"):
        store.statistics(bucket="hour")
    assert len(store.statistics(bucket="day").over_time) == 417 + 1
    week: Any = "week"
    with pytest.raises(QueryError, match="the bucket is one of"):
        store.statistics(bucket=week)


# Exports


def test_csv_has_every_figure_as_it_was(store: Store, records: list[Record]) -> None:
    file = io.BytesIO()
    assert store.export("csv", file) == len(records)
    assert not file.closed
    rows = list(csv.DictReader(io.StringIO(file.getvalue().decode())))
    assert [row["id"] for row in rows] == [record.id for record in records]
    for row, record in zip(rows, records, strict=True):
        assert datetime.fromisoformat(row["created_at"]) == record.created_at
        assert float(row["confidence"]) == record.confidence
        assert row["digit"] == ("" if record.digit is None else str(record.digit))
        assert row["true_digit"] == ("" if record.true_digit is None else str(record.true_digit))
        assert tuple(float(row[f"probability_{k}"]) for k in range(10)) == record.probabilities
        assert base64.b64decode(row["ink"]) == record.ink.tobytes()
    assert not {"owner", "picture"} & rows[0].keys()
    assert "mine" not in file.getvalue().decode()


def test_parquet_has_every_figure_with_its_type(store: Store, records: list[Record]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    filters = Filters(feedback="given")
    assert store.export("parquet", file, filters) == 80
    rows = parquet.read_table(io.BytesIO(file.getvalue())).to_pylist()
    meant = [record for record in records if record.true_digit is not None]
    assert [row["id"] for row in rows] == [record.id for record in meant]
    for row, record in zip(rows, meant, strict=True):
        assert row["created_at"] == record.created_at
        assert row["feedback_at"] == record.feedback_at
        assert (row["digit"], row["true_digit"]) == (record.digit, record.true_digit)
        assert row["confidence"] == record.confidence
        assert row["ink"] == record.ink.tobytes()
    assert not {"owner", "picture"} & rows[0].keys()


def test_an_empty_log_is_exported_with_its_columns(store: Store) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    text, table, archive = io.BytesIO(), io.BytesIO(), io.BytesIO()
    assert store.export("csv", text) == 0
    assert text.getvalue().startswith(b"id,created_at,digit,")
    assert store.export("parquet", table) == 0
    assert "true_digit" in parquet.read_table(io.BytesIO(table.getvalue())).column_names
    assert store.export("idx", archive) == 0
    images, labels = read_idx(archive)
    assert images.shape == (0, 28, 28)
    assert labels.shape == (0,)


def test_parquet_without_pyarrow_says_what_to_install(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendUnavailableError, match=r"inkdigits\[export\]"):
        store.export("parquet", io.BytesIO())


@pytest.mark.parametrize("form", ["csv", "parquet", "idx"])
def test_an_export_goes_through_a_pipe(
    store: Store, records: list[Record], tmp_path: Path, form: Any
) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    whole = io.BytesIO()
    store.export(form, whole)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        assert cat.stdin is not None
        assert cat.stdout is not None
        writer = threading.Thread(target=lambda: (store.export(form, cat.stdin), cat.stdin.close()))
        writer.start()
        piped = cat.stdout.read()
        writer.join()
    if form == "idx":
        assert np.array_equal(read_idx(io.BytesIO(piped))[0], read_idx(whole)[0])
    else:
        assert piped == whole.getvalue()


def test_an_unknown_format_is_refused(store: Store) -> None:
    wrong: Any = "xlsx"
    with pytest.raises(QueryError, match="csv, parquet or idx"):
        store.export(wrong, io.BytesIO())


def read_idx(archive: io.BytesIO) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """MNIST's format in a few lines, after its description and not after the writer."""
    arrays = []
    with zipfile.ZipFile(io.BytesIO(archive.getvalue())) as files:
        for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
            data = files.read(name)
            assert data[:3] == b"\0\0\x08"
            shape = np.frombuffer(data, ">u4", data[3], 4)
            arrays.append(np.frombuffer(data, np.uint8, -1, 4 + 4 * data[3]).reshape(shape))
    return arrays[0], arrays[1]


def test_idx_has_the_corrected_digits_to_train_on(store: Store, records: list[Record]) -> None:
    file = io.BytesIO()
    meant = [r for r in records if r.true_digit is not None and r.true_digit != NO_DIGIT]
    assert store.export("idx", file) == len(meant)
    images, labels = read_idx(file)
    assert labels.tolist() == [record.true_digit for record in meant]
    assert images.tolist() == [record.ink.tolist() for record in meant]


def test_torchvision_reads_the_idx_as_its_mnist(
    store: Store, records: list[Record], tmp_path: Path
) -> None:
    mnist = pytest.importorskip("torchvision.datasets.mnist")
    file = io.BytesIO()
    count = store.export("idx", file)
    with zipfile.ZipFile(io.BytesIO(file.getvalue())) as files:
        files.extractall(tmp_path)
    images = mnist.read_image_file(str(tmp_path / "train-images-idx3-ubyte"))
    labels = mnist.read_label_file(str(tmp_path / "train-labels-idx1-ubyte"))
    assert images.shape == (count, 28, 28)
    assert labels.tolist() == read_idx(file)[1].tolist()


def test_an_export_of_many_batches_has_each_record_once(
    store: Store, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_export, "BATCH", 7)
    file = io.BytesIO()
    assert store.export("csv", file) == len(records)
    rows = list(csv.DictReader(io.StringIO(file.getvalue().decode())))
    assert [row["id"] for row in rows] == [record.id for record in records]


# Query plans


@pytest.fixture
def plan_of(tmp_path: Path) -> Iterator[Any]:
    """SQLite's plan of a query, as lines."""
    url = f"sqlite:///{tmp_path / 'log.sqlite3'}"
    with Store.open(url, outbox_dir=tmp_path / "outbox") as store:

        def explain(query: sa.Select[Any]) -> list[str]:
            text = query.compile(store._database.engine, compile_kwargs={"literal_binds": True})
            with store._database.transaction() as connection:
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all()
            return [row[-1] for row in rows]

        yield explain


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        (Filters(), "time"),
        (Filters(since=START, until=START), "time"),
        (Filters(digit=3), "digit"),
        (Filters(digit=NO_DIGIT), "digit"),
        (Filters(decision="review"), "decision"),
        (Filters(owner="mine"), "owner"),
        (Filters(owner="mine", since=START), "owner"),
        (Filters(feedback="given"), "corrected"),
        (Filters(feedback="wrong"), "corrected"),
        (Filters(feedback="none"), "time"),
    ],
)
@pytest.mark.parametrize("direction", [None, "o", "n"])
def test_a_page_is_read_in_the_order_of_an_index(
    plan_of: Any, filters: Filters, index: str, direction: str | None
) -> None:
    cursor = direction and f"{direction}.1.{ZERO}"
    (line,) = plan_of(history.page_query(filters, cursor, 50))
    assert f"USING INDEX ix_predictions_{index}" in line


@pytest.mark.parametrize("filters", [Filters(), Filters(since=START), Filters(owner="mine")])
def test_the_dashboard_counts_on_indexes(plan_of: Any, filters: Filters) -> None:
    queries = [
        dashboard.span_query(filters),
        dashboard.over_time_query(filters, "day", range(3, 9)),
        dashboard.corrected_query(filters),
    ]
    for query in queries:
        reads = [line for line in plan_of(query) if " predictions" in line]
        assert reads
        assert all("INDEX ix_predictions_" in line for line in reads)
        if filters.owner is history.ANYONE:
            assert all("USING COVERING INDEX" in line for line in reads)


def test_times_are_utc_whatever_zone_they_come_in(store: Store) -> None:
    zone = datetime.fromisoformat("2026-03-02T01:30:00+05:30")
    record = a_record(created_at=zone)
    store.keep(record)
    assert store.get(record.id).created_at == datetime(2026, 3, 1, 20, tzinfo=UTC)
    assert store.statistics().over_time[0].start == datetime(2026, 3, 1, tzinfo=UTC)
