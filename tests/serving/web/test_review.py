"""The review page without a browser: who may, what it shows, and what it keeps."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.answers import code_of
from support.browser import HTML, TOKEN, Browser
from support.databases import a_record
from support.fakes import FakeReader, drawn_digit
from support.pictures import encoded

from inkdigits.errors import ConfigError
from inkdigits.serving.api.keys import ApiKey, digest_of
from inkdigits.serving.app import create_app

ADA, BOB = "ink_token-of-ada", "ink_token-of-bob"


@pytest.fixture
def settings(settings):
    tokens = (("ada", digest_of(ADA)), ("bob", digest_of(BOB)))
    return replace(settings, reviewers=tokens, keep_pictures="on")


@pytest.fixture
def record(store):
    record = a_record(7, decision="review", confidence=0.6)
    store.keep(record)
    return record


def reviewer(app, token=ADA):
    browser = Browser(app)
    response = browser.post("/sign-in", token=token)
    assert (response.status_code, response.location) == (303, "/review")
    return browser


def test_only_who_signed_in_reviews_and_a_reviewer_sees_no_more_than_that(
    settings, store, app, browser, record
):
    for path in ("/review/queue", f"/review/{record.id}/picture"):
        assert code_of(browser.client.get(path)) == (403, "forbidden")
    for path in (f"/review/{record.id}", f"/review/{record.id}/undo"):
        assert code_of(browser.post(path, label="3")) == (403, "forbidden")
    response = browser.client.get("/review", headers=HTML)
    assert (response.status_code, response.location) == (303, "/sign-in")
    assert browser.post("/sign-in", token="ink_unknown").status_code == 403
    assert ">Review</a>" not in browser.see()
    ada = reviewer(app)
    page = ada.see("/review")
    assert all(text in page for text in (">Review</a>", "You are reviewing as ada", "by ada"))
    assert ada.ids() == []  # the history of all is the operator's
    assert ada.post(f"/review/{record.id}").status_code == 400
    operator = Browser(create_app(settings, FakeReader(), store)).signed_in()
    assert "labelled by operator" in operator.see("/review")
    ada.post("/sign-out")
    assert code_of(ada.client.get("/review/queue")) == (403, "forbidden")


def test_without_tokens_there_is_no_review(settings, store):
    app = create_app(replace(settings, admin_token=None, reviewers=()), FakeReader(), store)
    assert app.test_client().get("/review", headers=HTML).status_code == 404


def test_tokens_may_be_in_a_file_and_none_is_called_operator(settings, store, tmp_path):
    path = tmp_path / "reviewers"
    path.write_text(f"# who may review\neve:{digest_of('ink_eve')}\n")
    ours = replace(settings, reviewers=(), reviewers_file=path)
    assert reviewer(create_app(ours, FakeReader(), store), "ink_eve").see("/review")
    path.write_text(f"operator:{digest_of('ink_eve')}\n")
    with pytest.raises(ConfigError, match="operator"):
        create_app(ours, FakeReader(), store)


def test_who_is_no_reviewer_any_more_is_signed_out(app, store, record):
    ada, bob = reviewer(app), reviewer(app, BOB)
    operator = app.extensions["inkdigits.operator"]
    operator.use([ApiKey("bob", digest_of(BOB))])
    assert code_of(ada.client.get("/review/queue")) == (403, "forbidden")
    assert (operator.name_of(ADA), operator.name_of(BOB)) == (None, "bob")
    assert bob.client.get("/review/queue").status_code == 200


def test_a_label_is_given_changed_and_taken_back(app, store, record):
    ada, bob = reviewer(app), reviewer(app, BOB)
    for label, agreed in (("7", 1), ("none", 0), ("42", 0)):
        answer = ada.post(f"/review/{record.id}", label=label).json
        assert (answer["label"], answer["progress"]["agreed"]) == (label, agreed)
        assert answer["progress"]["done"] == 1
    assert store.get(record.id).feedback_by == "review:ada"
    for wrong in ("", "x", "7 "):
        assert code_of(ada.post(f"/review/{record.id}", label=wrong)) == (422, "wrong_value")
    assert code_of(ada.client.post(f"/review/{record.id}", data={"label": "3"}))[0] == 403
    assert store.get(record.id).label == "42"
    bob.post(f"/review/{record.id}/undo")
    assert store.get(record.id).label == "42"
    assert ada.post(f"/review/{record.id}/undo").json["label"] is None


@pytest.mark.parametrize(
    ("decision", "reason", "is_closest", "is_number"),
    [
        ("review", None, False, False),
        ("reject", "not_a_digit", True, False),
        ("reject", "several_digits", True, True),
    ],
)
def test_a_rejected_picture_has_only_a_closest_digit(
    app, store, decision, reason, is_closest, is_number
):
    store.keep(a_record(3, decision=decision, reason=reason))
    (item,) = reviewer(app).client.get("/review/queue").json["items"]
    assert (item["is_closest"], item["is_number"]) == (is_closest, is_number)


def test_an_item_says_why_it_is_there_and_not_what_others_say(app, store, record):
    store.give_feedback(record.id, "1", "page")
    number = a_record(
        1,
        digit=None,
        text="42",
        digits=({"digit": 4}, {"digit": 2}),
        ink=np.zeros((2, 28, 28), np.uint8),
        decision="reject",
        reason="not_a_digit",
        confidence=0.3,
        picture=drawn_digit(),
    )
    store._keep_pictures = True
    store.keep(number)
    ada = reviewer(app)
    first, second = ada.client.get("/review/queue").json["items"]
    assert (first["id"], first["read"], first["is_number"]) == (number.id, "42", True)
    assert (first["is_closest"], first["why"]) == (False, "The picture was rejected: not a digit.")
    assert len(first["inks"]) == 2
    picture = ada.client.get(first["picture"])
    assert (picture.mimetype, picture.data[:4]) == ("image/png", b"\x89PNG")
    assert (second["read"], second["why"]) == ("7", "The model is not sure.")
    assert (second["runner_up"]["digit"], second["picture"]) == (0, None)
    assert "label" not in second
    assert code_of(ada.client.get(f"/review/{record.id}/picture")) == (404, "not_found")
    only = ada.client.get("/review/queue?why=unsure").json["items"]
    assert [item["id"] for item in only] == [record.id]
    last = ada.client.get(f"/review/queue?after={first['id']}").json["items"]
    assert [item["id"] for item in last] == [record.id]


def test_a_kept_picture_is_shown_up_to_the_limits_of_the_settings(settings, store):
    settings = replace(settings, max_pixels=26_000_000)
    ada = reviewer(create_app(settings, FakeReader(), store))
    store._keep_pictures = True
    store.keep(a_record(1, decision="review", picture=encoded(Image.new("1", (5100, 5000)))))
    (item,) = ada.client.get("/review/queue").json["items"]
    assert ada.client.get(item["picture"]).status_code == 200


def test_the_operators_token_reviews_without_a_browser(app, store, record):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    client = app.test_client()
    answer = client.post(f"/review/{record.id}", data={"label": "7"}, headers=headers)
    assert (answer.json["label"], answer.json["progress"]["left"]) == ("7", 0)
    assert store.get(record.id).feedback_by == "review:operator"
