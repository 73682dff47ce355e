"""URLs of databases, and what connections to them are set to."""

from __future__ import annotations

import pytest

from inkdigits.errors import ConfigError
from inkdigits.log.connections import connect


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://localhost/x", "begins with 'mysql'"),
        ("no url at all", "not a database URL"),
        ("postgresql://user:secret@host:port/name", "not a database URL"),
        ("sqlite://", "names a file"),
        ("sqlite:///:memory:", "names a file"),
        ("sqlite:////tmp", "is a folder"),
        ("sqlite:////dev/null/x/log.sqlite3", "folder of the database"),
    ],
)
def test_a_wrong_url_is_named_without_its_password(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        connect(url)
    assert "secret" not in str(caught.value)


def test_postgresql_without_its_driver_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"inkdigits\[postgres\]"):
        connect("postgresql://host/name")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_each_way_to_write_postgresql_means_psycopg_3(scheme: str) -> None:
    engine = connect(f"{scheme}://user:secret@host/name")
    assert engine.url.drivername == "postgresql+psycopg"
    assert engine.url.password == "secret"
