"""Pages and filters of the log, on both databases."""

from datetime import datetime, timedelta

import pytest
from support.databases import START, a_record
from support.fakes import FakeReader, drawn_digit

from inkdigits.errors import QueryError
from inkdigits.log.queries import Filters
from inkdigits.log.record import Record, new_id
from inkdigits.types import NO_DIGIT

pytest_plugins = ["support.databases"]

HOUR_20 = START + timedelta(hours=20)
ZERO = "00000000-0000-0000-0000-000000000000"


def test_pages_lead_through_all_records_and_back(store, records):
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
    whole = store.page(limit=len(records))
    assert (len(whole.records), whole.older) == (len(records), None)
    store.keep(a_record(created_at=START + timedelta(days=300)))
    assert store.page(cursor=pages[0].older, limit=30) == pages[1]


FILTERS = {
    "digit": (Filters(digit=3), lambda r: r.digit == 3),
    "nothing read": (Filters(digit=NO_DIGIT), lambda r: r.digit is None),
    "decision": (Filters(decision="review"), lambda r: r.decision == "review"),
    "with feedback": (Filters(feedback="given"), lambda r: r.true_digit is not None),
    "without feedback": (Filters(feedback="none"), lambda r: r.true_digit is None),
    "right": (Filters(feedback="right"), lambda r: r.was_right is True),
    "wrong": (Filters(feedback="wrong"), lambda r: r.was_right is False),
    "since": (Filters(since=HOUR_20), lambda r: r.created_at >= HOUR_20),
    "until": (Filters(until=HOUR_20), lambda r: r.created_at < HOUR_20),
    "owner": (Filters(owner="mine"), lambda r: r.owner == "mine"),
    "several": (
        Filters(decision="accept", owner="mine", feedback="given", since=START),
        lambda r: (r.decision, r.owner) == ("accept", "mine") and r.true_digit is not None,
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_finds_what_it_says(store, records, name):
    filters, is_meant = FILTERS[name]
    expected = [record for record in reversed(records) if is_meant(record)]
    assert expected, "the history has none of these to find"
    assert len(expected) < len(records)
    page = store.page(filters, limit=7)
    found = [*page.records]
    while page.older is not None:
        page = store.page(filters, cursor=page.older, limit=7)
        found += page.records
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
def test_a_filter_that_is_invalid_is_rejected(wrong):
    with pytest.raises(QueryError):
        Filters(**wrong)


CURSORS = ["", "x", "o.1", f"o.x.{ZERO}", f"q.1.{ZERO}", f"o.{10**30}.{ZERO}", "o.1." + "\0" * 36]


@pytest.mark.parametrize(
    "wrong", [*({"cursor": cursor} for cursor in CURSORS), *({"limit": n} for n in (0, -1, 501))]
)
def test_a_cursor_that_no_page_gave_and_an_invalid_limit_are_rejected(store, wrong):
    with pytest.raises(QueryError, match="cursor" if "cursor" in wrong else "1 to 500"):
        store.page(**wrong)


def test_a_number_is_not_taken_for_nothing_read(store):
    store.keep(Record.of(FakeReader().read(drawn_digit()), record_id=new_id()))
    assert store.count(Filters()) == 1
    assert store.count(Filters(digit=NO_DIGIT)) == 0


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
def test_a_page_is_read_in_the_order_of_an_index(plans_of, filters, index, direction):
    cursor = direction and f"{direction}.1.{ZERO}"
    (line,) = plans_of(lambda store: store.page(filters, cursor=cursor))
    assert f"USING INDEX ix_predictions_{index}" in line


def test_records_are_sorted_by_confidence_with_ids_of_an_index(store, records, plans_of):
    for filters, is_meant in ((Filters(), lambda r: True), FILTERS["decision"]):
        expected = sorted(filter(is_meant, records), key=lambda r: (r.confidence, r.id))
        assert store.count(filters) == len(expected)
        pages = [store.page(filters, limit=30, sort="confidence")]
        while pages[-1].older is not None:
            pages.append(store.page(filters, cursor=pages[-1].older, limit=30, sort="confidence"))
        assert [record for page in pages for record in page.records] == expected
        back = store.page(filters, cursor=pages[1].newer, limit=30, sort="confidence")
        assert (back.records, back.newer) == (pages[0].records, None)
    plans = plans_of(lambda store: store.page(sort="confidence"))
    assert "USING COVERING INDEX ix_predictions_time" in plans[0]
