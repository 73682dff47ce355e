from datetime import UTC, datetime

import pytest

from inkdigits.errors import QueryError
from inkdigits.log.record import ANYONE
from inkdigits.serving.web.query import filters_of, link_of
from inkdigits.types import NO_DIGIT


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        *(("digit", "0", 0), ("digit", "none", NO_DIGIT), ("digit", "", None)),
        *(("decision", "review", "review"), ("feedback", "wrong", "wrong")),
        ("since", "2026-01-05", datetime(2026, 1, 5, tzinfo=UTC)),
        ("until", "2026-01-05", datetime(2026, 1, 6, tzinfo=UTC)),
    ],
)
def test_filters_are_read_from_a_query(name, text, value):
    assert getattr(filters_of({name: text}, ANYONE), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("digit", digit) for digit in ("10", "x", "\u0663")),
        *(("decision", "x"), ("feedback", "x"), ("since", "yesterday")),
        *(("since", "2026-1-32"), ("until", "9999-12-31")),
    ],
)
def test_invalid_filter_is_an_error(name, value):
    with pytest.raises(QueryError, match=f"not '{value}'|filter|must"):
        filters_of({name: value}, ANYONE)


def test_link_keeps_the_filters_and_leaves_out_what_is_empty():
    query = {"digit": "7", "since": "", "cursor": "old", "other": "x"}
    assert link_of(query, cursor="new", format=None) == "digit=7&cursor=new"
