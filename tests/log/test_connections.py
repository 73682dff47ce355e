"""URLs of databases, and what connections to them are set to."""

import pytest

from inkdigits.errors import BackendUnavailableError, ConfigError
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
def test_a_wrong_url_is_named_without_its_password(url, message):
    with pytest.raises(ConfigError, match=message) as caught:
        connect(url)
    assert "secret" not in str(caught.value)


def test_postgresql_without_its_driver_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BackendUnavailableError, match=r"\[postgres\]"):
        connect("postgresql://host/name")
