"""The filters of the history, from a request's query and back into links."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from inkdigits.errors import QueryError
from inkdigits.log.queries import Filters
from inkdigits.log.record import Owner
from inkdigits.types import NO_DIGIT, NO_DIGIT_LABEL

NAMES: Final = ("digit", "decision", "feedback", "since", "until", "sort")
_DIGITS: Final = {NO_DIGIT_LABEL: NO_DIGIT} | {str(digit): digit for digit in range(10)}


def filters_of(query: Mapping[str, str], owner: Owner) -> Filters:
    """Read the filters; an empty one counts as not given.

    >>> filters_of({"digit": "7", "decision": ""}, "some-browser").digit
    7

    ``digit`` is 0 to 9 or ``none``; ``since`` and ``until`` are days of UTC, both included.

    Raises:
        QueryError: a value is invalid.
    """
    values: dict[str, Any] = {name: query[name] for name in NAMES if query.get(name)}
    values.pop("sort", None)
    if digit := values.get("digit"):
        if digit not in _DIGITS:
            raise QueryError(f"The digit must be 0 to 9 or none, not {digit!r}.")
        values["digit"] = _DIGITS[digit]
    for name, days in (("since", 0), ("until", 1)):
        if name in values:
            values[name] = _day(values[name], days)
    return Filters(owner=owner, **values)


def link_of(query: Mapping[str, str], **more: str | None) -> str:
    """Return the query string of the filters in a query, with more; empty ones are left out.

    >>> link_of({"digit": "7", "since": ""}, cursor="abc")
    'digit=7&cursor=abc'
    """
    values = {name: query.get(name) for name in NAMES} | more
    return urlencode({name: value for name, value in values.items() if value})


def _day(text: str, later: int) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=later)
    except (ValueError, OverflowError) as error:
        raise QueryError(f"A day must be YYYY-MM-DD, not {text!r}.") from error
