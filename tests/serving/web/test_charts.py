from datetime import UTC, datetime, timedelta

import pytest

from inkdigits.log.statistics import Interval
from inkdigits.serving.web.charts import columns, lines, reliability, shades


def intervals(counts):
    start = datetime(2026, 1, 5, tzinfo=UTC)
    return [Interval(start + timedelta(hours=k), n, n, 0) for k, n in enumerate(counts)]


def test_scale_of_columns_has_a_round_top_and_a_whole_middle():
    drawn, top = columns(intervals([1, 0, 3]), "hour")
    assert [sum(counts.values()) for _, counts in drawn] == [2, 0, 6]
    assert top == 6
    assert columns(intervals([0]), "day")[1] == 2
    assert columns(intervals([107]), "day")[1] == 300


@pytest.mark.parametrize(("hours", "drawn"), [(120, 120), (121, 61), (1000, 112)])
def test_many_intervals_share_columns_and_none_is_lost(hours, drawn):
    made, _ = columns(intervals([1] * hours), "hour")
    assert len(made) == drawn
    assert sum(sum(counts.values()) for _, counts in made) == 2 * hours


def test_reliability_is_pooled_over_the_sets_of_a_group():
    sets = [
        {"group": "other", "reliability": [[0.92, 8, 10], [0.55, 1, 2]]},
        {"group": "other", "reliability": [[0.98, 9, 10], [1.0, 10, 10]]},
        {"group": "clean"},  # from before sets had any
    ]
    low, high = reliability(sets)["other"]
    assert (low.accuracy.count, low.accuracy.total, low.confidence) == (1, 2, 0.55)
    assert (high.accuracy.count, high.accuracy.total) == (27, 30)
    assert high.confidence == pytest.approx(0.9667, abs=1e-4)


def test_shade_goes_by_the_largest_of_its_row():
    assert shades([[100, 1, 0], [0, 0, 0], [1, 2, 2]]) == [[5, 1, 0], [0, 0, 0], [3, 5, 5]]


def test_curves_share_one_scale_from_the_highest_to_the_lowest_value():
    curves, ticks = lines([[0.9, 0.95], [0.8, 1.0]], "{:.0%}")
    assert curves == ["0.0,50.0 100.0,25.0", "0.0,100.0 100.0,0.0"]
    assert ticks == [(0.0, "100%"), (50.0, "90%"), (100.0, "80%")]
    assert lines([[0.5]], "{:g}")[0] == ["0.0,0.0"]
