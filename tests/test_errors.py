"""The tree that errors.py draws is the tree that Python sees."""

from __future__ import annotations

import re

from inkdigits import errors


def drawn() -> dict[str, str]:
    """Class → its parent, as the module's docstring draws them."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([│├└─ ]*)(\w+Error)\b", line)
        if found is None:
            continue
        depth = len(found[1]) // 4
        path[depth:] = [found[2]]
        if depth:
            parents[found[2]] = path[depth - 1]
    return parents


def test_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type)]
    real = {c.__name__: c.__bases__[0].__name__ for c in classes if c is not errors.InkdigitsError}
    assert drawn() == real


def test_every_error_says_what_it_stands_for() -> None:
    for one in vars(errors).values():
        if isinstance(one, type):
            assert one.__doc__
            assert issubclass(one, errors.InkdigitsError)


def test_rate_limit_says_when_to_ask_again() -> None:
    error = errors.TooManyRequestsError(3)
    assert error.retry_after == 3
    assert "3 s" in str(error)
