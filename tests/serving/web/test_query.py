from datetime import UTC, datetime

import pytest

from inkdigits.errors import QueryError
from inkdigits.log.record import ANYONE
from inkdigits.serving.web.query import filters_of, link_of
from inkdigits.types import NO_DIGIT


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ({"digit": "0"}, "digit", 0),
        ({"digit": "none"}, "digit", NO_DIGIT),
        ({"digit": ""}, "digit", None),
        ({"decision": "review"}, "decision", "review"),
        ({"feedback": "wrong"}, "feedback", "wrong"),
        ({"since": "2026-01-05"}, "since", datetime(2026, 1, 5, tzinfo=UTC)),
        ({"until": "2026-01-05"}, "until", datetime(2026, 1, 6, tzinfo=UTC)),
    ],
)
def test_filters_are_read_from_a_query(query, name, value):
    assert getattr(filters_of(query, ANYONE), name) == value


@pytest.mark.parametrize(
    "query",
    [
        *({"digit": digit} for digit in ("10", "x", "\u0663")),
        *({"decision": "x"}, {"feedback": "x"}),
        *({"since": "yesterday"}, {"since": "2026-1-32"}, {"until": "0001-01-01"}),
    ],
)
def test_invalid_filter_is_an_error(query):
    with pytest.raises(QueryError):
        filters_of(query, ANYONE)


def test_link_keeps_the_filters_and_leaves_out_what_is_empty():
    query = {"digit": "7", "since": "", "cursor": "old", "other": "x"}
    assert link_of(query, cursor="new", format=None) == "digit=7&cursor=new"
