import socket

import pytest
from support.commands import run


@pytest.fixture
def served(monkeypatch):
    """The settings that the service was started with."""
    started = []

    def serve(settings, when_ready):
        started.append(settings)
        when_ready("http://127.0.0.1:7000")

    monkeypatch.setattr("inkdigits.serving.gunicorn.serve", serve)
    return started


def test_options_take_precedence_over_the_environment(served, monkeypatch):
    monkeypatch.setenv("INKDIGITS_THREADS", "7")
    monkeypatch.setenv("PORT", "6000")
    run("serve", "--port", 7000, "--no-page", "--risk", 0.01)
    (settings,) = served
    found = (settings.port, settings.threads, settings.page, settings.risk)
    assert found == (7000, 7, "off", 0.01)


def test_next_free_port_is_taken_and_the_browser_opened_if_asked(served, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("PORT", str(port))
        run("serve", "--port", "auto", "--open", "--device", "cpu")
    assert port < served[0].port <= port + 100
    assert (served[0].device, opened) == ("cpu", ["http://127.0.0.1:7000"])


def test_key_says_what_to_do_with_it():
    done = run("key", "ada")
    assert done.stdout.startswith("key   ink_")
    assert "to ada" in done.stderr
    assert "INKDIGITS_API_KEYS_FILE" in done.stderr
    assert "NAME must consist" in run("key", "a/b", exit_code=2).stderr


def test_invalid_setting_is_one_line_and_exit_code_1(served, monkeypatch):
    monkeypatch.setenv("PORT", "no number")
    assert run("serve", exit_code=1).stderr.startswith("Error: PORT")
    monkeypatch.delenv("PORT")
    assert "needs --shadow" in run("serve", "--share", 0.5, exit_code=2).stderr
    assert not served
