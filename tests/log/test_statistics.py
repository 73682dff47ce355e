"""The dashboard's figures, on both databases."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from support.databases import START, a_record

from inkdigits.errors import QueryError
from inkdigits.log.statistics import CALIBRATION_BINS, Proportion
from inkdigits.types import NO_DIGIT

pytest_plugins = ["support.databases"]


def test_the_figures_are_those_counted_by_hand(store, records):
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
    assert found.rejected == Proportion.of(
        sum(r.decision == "reject" for r in scribbles), len(scribbles)
    )
    assert found.missed == len(corrected) - len(digits) - len(scribbles)


def test_calibration_compares_confidence_with_accuracy(store, records):
    found = store.statistics()
    digits = [r for r in records if r.true_digit not in {None, NO_DIGIT} and r.digit is not None]
    error = 0.0
    for k, bin_ in enumerate(found.calibration):
        inside = [r for r in digits if min(int(r.confidence * 10 + 1e-9), 9) == k]
        assert (bin_.low, bin_.high) == (k / 10, (k + 1) / 10)
        if not inside:
            assert bin_.confidence is None
            continue
        right = sum(r.digit == r.true_digit for r in inside)
        assert bin_.accuracy == Proportion.of(right, len(inside))
        assert bin_.confidence == pytest.approx(np.mean([r.confidence for r in inside]))
        error += abs(right - sum(r.confidence for r in inside)) / len(digits)
    assert len(found.calibration) == CALIBRATION_BINS
    assert found.calibration_error == pytest.approx(error)


@pytest.mark.parametrize(("bucket", "hours"), [("hour", 1), ("day", 24)])
def test_time_is_counted_in_buckets_without_gaps(store, records, bucket, hours):
    gap = a_record(created_at=records[-1].created_at + timedelta(days=3), decision="review")
    store.keep(gap)
    over_time = store.statistics(bucket=bucket).over_time
    step = timedelta(hours=hours)
    first = records[0].created_at.replace(hour=12 if hours == 1 else 0)
    assert [i.start for i in over_time] == [first + n * step for n in range(len(over_time))]
    assert over_time[-1].start <= gap.created_at < over_time[-1].start + step
    moments = [*records, gap]
    for interval in over_time:
        inside = Counter(
            r.decision for r in moments if interval.start <= r.created_at < interval.start + step
        )
        for decision in ("accept", "review", "reject"):
            assert getattr(interval, decision) == inside[decision]


def test_figures_are_of_one_time_and_one_owner(store, records):
    since, until = START + timedelta(hours=10), START + timedelta(hours=40)
    found = store.statistics(since=since, until=until, owner="mine")
    meant = [r for r in records if since <= r.created_at < until and r.owner == "mine"]
    assert found.total == len(meant)
    assert found.corrected == sum(r.true_digit is not None for r in meant)


def test_an_empty_log_has_no_figures_and_no_division_by_zero(store):
    found = store.statistics()
    assert (found.total, found.corrected, found.over_time) == (0, 0, ())
    assert found.accuracy == Proportion(0, 0, None, None, None)
    assert found.calibration_error is None
    assert np.sum(found.confusion) == 0


def test_too_many_buckets_are_rejected(store):
    store.keep(a_record(created_at=START))
    store.keep(a_record(created_at=START - timedelta(hours=10_000)))
    with pytest.raises(QueryError, match="10,001 hours"):
        store.statistics(bucket="hour")
    assert len(store.statistics(bucket="day").over_time) == 417 + 1
    week: Any = "week"
    with pytest.raises(QueryError, match="the bucket is hour or day"):
        store.statistics(bucket=week)


@pytest.mark.parametrize(
    "which", [{}, {"since": START, "until": START + timedelta(days=9)}, {"owner": "mine"}]
)
def test_the_dashboard_counts_on_indexes(plans_of, which):
    def ask(store):
        for n in range(3):
            store.keep(a_record(n, owner="mine"))
        store.statistics(**which)

    reads = [line for line in plans_of(ask) if " predictions" in line]
    assert len(reads) == 2
    assert all("INDEX ix_predictions_" in line for line in reads)
    if "owner" not in which:
        assert all("USING COVERING INDEX" in line for line in reads)


def test_times_are_utc_whatever_zone_they_come_in(store):
    zone = datetime.fromisoformat("2026-03-02T01:30:00+05:30")
    record = a_record(created_at=zone)
    store.keep(record)
    assert store.get(record.id).created_at == datetime(2026, 3, 1, 20, tzinfo=UTC)
    assert store.statistics().over_time[0].start == datetime(2026, 3, 1, tzinfo=UTC)
