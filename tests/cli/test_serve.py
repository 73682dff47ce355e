import pytest
from support.commands import run


@pytest.fixture
def served(monkeypatch):
    """The settings that the service was started with."""
    started = []
    monkeypatch.setattr("inkdigits.serving.gunicorn.serve", started.append)
    return started


def test_options_take_precedence_over_the_environment(served, monkeypatch):
    monkeypatch.setenv("INKDIGITS_THREADS", "7")
    monkeypatch.setenv("PORT", "6000")
    run("serve", "--port", 7000, "--no-page", "--risk", 0.01)
    (settings,) = served
    found = (settings.port, settings.threads, settings.page, settings.risk)
    assert found == (7000, 7, "off", 0.01)


def test_invalid_setting_is_one_line_and_exit_code_1(served, monkeypatch):
    monkeypatch.setenv("PORT", "no number")
    assert run("serve", exit_code=1).stderr.startswith("Error: PORT")
    assert not served
