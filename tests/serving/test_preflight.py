"""What is an error before anything is served; the rest is in tests/e2e/test_gunicorn.py."""

import multiprocessing
import re
import socket

import pytest
from support.certificates import make_certificate
from support.fakes import FakeReader

from inkdigits.errors import ConfigError
from inkdigits.serving import preflight
from inkdigits.serving.preflight import check, free_port, tls_context
from inkdigits.settings import Settings


def test_port_in_use_is_named_and_the_next_free_one_is_found():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is in use"):
            check(Settings(port=port), lambda _: FakeReader())
        assert free_port("127.0.0.1", port) > port


def test_wait_for_the_log_is_said(monkeypatch):
    receiver, sender = multiprocessing.Pipe(duplex=False)
    said: list[str] = []

    def warn(message):
        said.append(message)
        sender.send("version")

    monkeypatch.setattr(preflight, "_WARNING_S", 0.01)
    monkeypatch.setattr(preflight.logger, "warning", warn)
    with receiver, sender:
        assert preflight._report_of_log(receiver) == "version"
    assert ["waits for the database of the log" in message for message in said] == [True]


def test_certificate_that_cannot_be_used_is_an_error(tmp_path):
    certificate, key = make_certificate(tmp_path)
    assert tls_context(Settings(tls_cert=certificate, tls_key=key)) is not None
    with pytest.raises(ConfigError, match="needed together"):
        tls_context(Settings(tls_key=key))
    for wrong in (tmp_path / "none.pem", key):
        with pytest.raises(ConfigError, match=re.escape(f"the certificate {wrong} with")):
            tls_context(Settings(tls_cert=wrong, tls_key=key))
