"""Feedback by the API: what it takes, from whom, and that nothing else changes a label."""

import gzip
import json
import time
import uuid
from dataclasses import replace

import pytest
from support.answers import KEY, KEYS, code_of
from support.browser import TOKEN, Browser
from support.databases import opened, sqlite_url
from support.fakes import FakeReader, send_digit

from inkdigits.log.connections import Options
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

JSON = "application/json"
OTHER_KEY = {"X-API-Key": "ink_of-bob"}
MINE = {"X-API-Key": KEY}
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def store(tmp_path):
    with opened(sqlite_url(tmp_path), tmp_path) as made:
        yield made


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path, admin_token=TOKEN)


@pytest.fixture
def app(settings, store):
    return create_app(settings, FakeReader(), store)


def feedback(client, name, body, kind=JSON, **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    path = f"/predictions/{name}/feedback"
    return client.post(path, data=data, content_type=kind, headers=headers)


@pytest.mark.parametrize(
    ("label", "kept", "was_right"),
    [
        (7, "7", True),
        ("7", "7", True),
        (3, "3", False),
        ("none", "none", False),
        ("0042", "0042", False),
        ("1" * 64, "1" * 64, False),
    ],
)
def test_a_label_is_set_once_however_often_it_is_sent_and_null_removes_it(
    app, store, label, kept, was_right
):
    client = app.test_client()
    name = send_digit(client).json["id"]
    for _ in range(2):
        answer = feedback(client, name, {"label": label})
        assert answer.json == {"id": name, "label": kept, "was_right": was_right}
    assert (store.get(name).label, store.get(name).feedback_by) == (kept, "api")
    for _ in range(2):
        answer = feedback(client, name, {"label": None})
        assert answer.json == {"id": name, "label": None, "was_right": None}
    assert store.get(name).label is None


WRONG = {
    "empty": (b"", 400, "empty_body"),
    "no JSON": (b"7", 422, "wrong_shape"),
    "half": (b'{"label": ', 400, "invalid_json"),
    "bytes": (b"\xff\xfe", 400, "invalid_json"),
    "NaN": (b'{"label": NaN}', 422, "wrong_shape"),
    "deep": (b"[" * 1000, 400, "invalid_json"),
    "repeated": (b'{"label": 3, "label": 4}', 400, "invalid_json"),
    "long": (b'{"label": 3}' + b" " * 1024, 413, "body_too_large"),
    "list": ([{"label": 3}], 422, "wrong_shape"),
    "text": ("7", 422, "wrong_shape"),
    "null": (None, 422, "wrong_shape"),
    "no field": ({}, 400, "missing_field"),
    "former name": ({"true_digit": 3}, 400, "missing_field"),
    "upper case": ({"Label": 3}, 400, "missing_field"),
    "more fields": ({"label": 3, "by": "me"}, 422, "wrong_shape"),
    "true": ({"label": True}, 422, "wrong_shape"),
    "float": ({"label": 7.0}, 422, "wrong_shape"),
    "ten": ({"label": 10}, 422, "wrong_shape"),
    "minus one": ({"label": -1}, 422, "wrong_shape"),
    "list as label": ({"label": [7]}, 422, "wrong_shape"),
    "object as label": ({"label": {"digit": 7}}, 422, "wrong_shape"),
    "empty label": ({"label": ""}, 422, "wrong_value"),
    "too many digits": ({"label": "1" * 65}, 422, "wrong_value"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_body_is_an_error_and_changes_nothing(app, store, name):
    body, status, code = WRONG[name]
    client = app.test_client()
    mine = send_digit(client).json["id"]
    feedback(client, mine, {"label": 5})
    assert code_of(feedback(client, mine, body)) == (status, code)
    assert store.get(mine).label == "5"


def test_other_types_of_body_are_errors_and_a_compressed_one_is_not(app, store):
    client = app.test_client()
    mine = send_digit(client).json["id"]
    for kind in ("application/x-www-form-urlencoded", "text/plain", ""):
        assert code_of(feedback(client, mine, b"label=3", kind))[0] == 415
    body = gzip.compress(b'{"label": 3}')
    headers = {"Content-Encoding": "gzip"}
    assert feedback(client, mine, body, **headers).json["label"] == "3"


def test_only_who_made_a_prediction_and_the_operator_may_label_it(settings, store):
    app = create_app(replace(settings, api_keys=KEYS), FakeReader(), store)
    client = app.test_client()
    mine = send_digit(client, **MINE).json["id"]
    drawn = send_digit(create_app(settings, FakeReader(), store).test_client()).json["id"]
    assert store.get(mine).owner == "key:ada"
    for name, headers in ((mine, OTHER_KEY), (drawn, MINE), ("7", MINE), (str(uuid.uuid4()), MINE)):
        assert code_of(feedback(client, name, {"label": 3}, **headers)) == (404, "not_found")
    assert code_of(feedback(client, mine, {"label": 3})) == (401, "key_required")
    assert store.get(mine).label is None
    assert feedback(client, mine, {"label": 3}, **MINE).json["label"] == "3"
    assert store.get(mine).feedback_by == "key:ada"
    for name in (mine, drawn):
        assert feedback(client, name, {"label": "none"}, **OPERATOR).json["label"] == "none"
        assert store.get(name).feedback_by == "operator"


def test_a_browser_labels_its_own_and_strangers_without_its_cookie_do_not(app, store):
    browser = Browser(app)
    drawn = browser.draw()["id"]
    for client, headers in ((app.test_client(), {}), (browser.client, {})):
        assert code_of(feedback(client, drawn, {"label": 3}, **headers)) == (404, "not_found")
    assert code_of(feedback(Browser(app).client, drawn, {"label": 3}, **browser.token))[0] == 404
    assert feedback(browser.client, drawn, {"label": 3}, **browser.token).json["label"] == "3"
    assert store.get(drawn).feedback_by == "page"
    assert feedback(Browser(app).signed_in().client, drawn, {"label": 4}).status_code == 404


def test_a_label_waits_in_the_outbox_with_its_prediction(settings, tmp_path):
    with opened(sqlite_url(tmp_path), tmp_path, Options(wait_s=0.2)) as store:
        client = create_app(settings, FakeReader(), store).test_client()
        before = send_digit(client).json["id"]
        store._database.fail("unplugged")
        store._writer._retry_at = time.monotonic() + 1000
        waiting = send_digit(client).json
        assert waiting["kept"] == "outbox"
        assert feedback(client, waiting["id"], {"label": 3}).json["label"] == "3"
        answer = feedback(client, before, {"label": 3})
        assert code_of(answer) == (503, "history_unavailable")
        assert answer.headers["Retry-After"] == "1"
        store.flush_outbox()
        assert [record.label for record in store.page().records] == ["3", None]


def test_a_service_without_a_log_knows_no_prediction(client):
    assert code_of(feedback(client, uuid.uuid4(), {"label": 3})) == (404, "not_found")
