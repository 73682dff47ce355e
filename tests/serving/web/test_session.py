import stat
import time
from dataclasses import replace

import pytest
from support.answers import code_of
from support.browser import HTML, TOKEN, Browser
from support.fakes import FakeReader, drawn_digit

from inkdigits.errors import ConfigError, StoreUnavailableError
from inkdigits.serving.app import create_app
from inkdigits.serving.web.session import KEY_NAME, OPERATOR_HOURS, session_key
from inkdigits.settings import Settings


@pytest.mark.parametrize(("https", "secure"), [("off", False), ("on", True)])
def test_cookie_is_for_this_site_and_not_for_scripts(settings, store, https, secure):
    app = create_app(replace(settings, https=https), FakeReader(), store)
    response = app.test_client().get("/", headers=HTML)
    cookie = set(response.headers["Set-Cookie"].split("; "))
    assert {"HttpOnly", "SameSite=Lax"} <= cookie
    assert ("Secure" in cookie) is secure
    assert ("Strict-Transport-Security" in response.headers) is secure


@pytest.mark.parametrize(
    "path", ["/history", "/history/x/feedback", "/history/x/delete", "/history/delete"]
)
def test_nothing_is_changed_without_the_token(browser, path):
    for headers in ({}, {"X-CSRF-Token": "guessed"}):
        response = browser.client.post(path, data=drawn_digit(), headers=headers)
        assert code_of(response) == (403, "forbidden")


def test_key_is_made_once_and_for_its_user_alone(settings, tmp_path):
    key = session_key(settings)
    assert len(key) == 64
    lock = (settings.data_folder / KEY_NAME).with_suffix(".lock")
    lock.unlink()
    lock.mkdir()  # as in a read-only folder, it cannot be opened for writing
    assert session_key(settings) == key
    assert stat.S_IMODE((settings.data_folder / KEY_NAME).stat().st_mode) == 0o600
    assert session_key(Settings(secret_key="s" * 32)) == "s" * 32
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file.*INKDIGITS_DATA_DIR"):
        session_key(Settings(data_dir=tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"several replicas.*INKDIGITS_SECRET_KEY"):
        session_key(replace(settings, rate_limit_url="redis://r:1/0"))


def test_cookie_of_a_replica_with_another_key_is_nobodys_and_said_to_be(open_with, browser, caplog):
    record_id = browser.draw()["id"]
    another = open_with(browser.cookie, secret_key="another" * 8)
    assert another.ids() == []
    assert another.post(f"/history/{record_id}/delete").status_code == 403
    messages = [record.getMessage() for record in caplog.records]
    assert sum("replicas need the same INKDIGITS_SECRET_KEY" in one for one in messages) == 1


@pytest.fixture
def open_with(settings, store):
    """Return a function that opens the page of another worker, or service, with a cookie."""

    def opened(cookie, **changes):
        another = Browser(create_app(replace(settings, **changes), FakeReader(), store))
        another.client.set_cookie("inkdigits", cookie)
        return another

    return opened


def test_token_opens_everybodys_until_signed_out_also_with_a_copied_cookie(app, open_with, browser):
    record_id = browser.draw()["id"]
    first, second = Browser(app), Browser(app).signed_in()
    assert first.ids() == []
    copy = first.signed_in().cookie
    assert TOKEN not in copy
    thief = open_with(copy)
    assert first.ids() == thief.ids() == [record_id]
    assert open_with(copy, admin_token="b" * 16).ids() == []
    assert first.post("/sign-out").status_code == 303
    assert first.ids() == thief.ids() == open_with(copy).ids() == []
    assert second.ids() == [record_id]


def test_sign_out_that_cannot_be_kept_is_said_and_nobody_is_signed_in_until_it_can(
    app, store, browser, monkeypatch
):
    def fail():
        raise StoreUnavailableError("the disk is full")

    record_id = browser.draw()["id"]
    operator = Browser(app).signed_in()
    monkeypatch.setattr(store._database, "migrate", fail)
    store._database.fail("the disk is full")
    response = operator.post("/sign-out")
    assert code_of(response) == (503, "history_unavailable")
    assert "Signing out failed" in response.text
    assert "You cannot sign in because the prediction log is unavailable." in operator.see("/model")
    assert operator.client.get("/sign-in").status_code == 503
    assert operator.ids() == []
    monkeypatch.undo()
    store.flush_outbox()
    assert operator.ids() == [record_id]
    assert operator.post("/sign-out").status_code == 303
    assert operator.ids() == []


def test_operator_is_signed_in_for_some_hours(app, browser, monkeypatch):
    record_id = browser.draw()["id"]
    operator = Browser(app).signed_in()
    end = time.time() + OPERATOR_HOURS * 3600
    for now, seen in ((end - 60, [record_id]), (end + 60, [])):
        monkeypatch.setattr("time.time", lambda now=now: now)
        assert operator.ids() == seen


def test_attempts_to_sign_in_are_limited(app, browser):
    Browser(app).draw()
    statuses = {browser.post("/sign-in", token=f"guess {k}").status_code for k in range(20)}
    assert statuses == {403, 429}
    assert browser.ids() == []
    response = browser.post("/sign-in", token=TOKEN)
    assert (response.status_code, 1 <= int(response.headers["Retry-After"]) <= 60) == (429, True)


def test_programs_bring_the_token_in_the_request_where_there_is_one(app, settings, store, browser):
    record_id = browser.draw()["id"]
    client = app.test_client()
    right, wrong = ({"Authorization": f"Bearer {t}"} for t in (TOKEN, "x" * 16))
    assert record_id in client.get("/history/export", headers=right, buffered=True).text
    assert record_id not in client.get("/history/export", headers=wrong, buffered=True).text
    without = create_app(replace(settings, admin_token=None), FakeReader(), store).test_client()
    assert without.get("/sign-in").status_code == 404
    empty = {"Authorization": "Bearer "}
    assert record_id not in without.get("/history/export", headers=empty, buffered=True).text
    assert client.post(f"/history/{record_id}/delete", headers=wrong).status_code == 403
    response = client.post(f"/history/{record_id}/delete", headers=right)
    assert response.json == {"deleted": 1}
