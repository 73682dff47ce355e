from datetime import UTC, datetime, timedelta

import pytest

from inkdigits.log.statistics import Interval
from inkdigits.serving.web.charts import HEIGHT, columns, lines, shades


def intervals(counts):
    start = datetime(2026, 1, 5, tzinfo=UTC)
    return [Interval(start + timedelta(hours=k), n, n, 0) for k, n in enumerate(counts)]


def test_columns_stack_from_the_bottom_within_the_area():
    drawn = columns(intervals([1, 0, 3]), "hour")
    assert [column.total for column in drawn.columns] == [2, 0, 6]
    for column in drawn.columns:
        (_, accept, height), (_, review, _), _ = column.parts
        assert accept + height == pytest.approx(HEIGHT)
        assert 0 <= review <= accept
        assert 0 <= column.x <= column.x + column.width <= 100
    assert drawn.ticks == ((HEIGHT, 0), (HEIGHT / 2, 3), (0.0, 6))


@pytest.mark.parametrize(("hours", "drawn"), [(120, 120), (121, 61), (1000, 112)])
def test_many_intervals_share_columns_and_none_is_lost(hours, drawn):
    made = columns(intervals([1] * hours), "hour").columns
    assert len(made) == drawn
    assert sum(column.total for column in made) == 2 * hours


def test_shade_goes_by_the_largest_of_its_row():
    assert shades([[100, 1, 0], [0, 0, 0], [1, 2, 2]]) == ((5, 1, 0), (0, 0, 0), (3, 5, 5))


def test_curves_share_one_scale_from_the_highest_to_the_lowest_value():
    drawn = lines([[0.9, 0.95], [0.8, 1.0]], "{:.0%}")
    assert drawn.curves == ("0.0,50.0 100.0,25.0", "0.0,100.0 100.0,0.0")
    assert drawn.ticks == ((0.0, "100%"), (50.0, "90%"), (100.0, "80%"))
    assert lines([[0.5]], "{:g}").curves == ("0.0,0.0",)
