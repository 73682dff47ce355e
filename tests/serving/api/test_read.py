import io
import uuid

import pytest
from support.answers import as_base64, code_of
from support.databases import opened, sqlite_url
from support.fakes import blank_picture, drawn_digit
from support.scrape import parse, value

from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

GOOD, BLANK = as_base64(drawn_digit()), as_base64(blank_picture())
FIELDS = [
    *("text", "confidence", "decision", "reason", "digits", "alternatives", "checks"),
    *("model_version", "id", "kept", "total_time_ms"),
]


def test_number_has_exactly_the_fields_of_the_contract(client):
    answer = client.post("/read", json={"image": GOOD}).json
    assert list(answer) == FIELDS
    assert (answer["text"], answer["decision"], answer["kept"]) == ("77", "accept", "off")
    assert uuid.UUID(answer["id"]).version == 7
    digit = answer["digits"][0]
    assert list(digit) == ["digit", "confidence", "box", "decision", "alternatives"]
    assert (digit["digit"], digit["box"]) == (7, [1, 2, 3, 4])
    assert digit["alternatives"] == [{"digit": 1, "confidence": 0.1}]
    assert answer["alternatives"] == [{"text": "70", "confidence": 0.1}]


@pytest.mark.parametrize(
    ("query", "way"),
    [
        ("", {"json": {"image": GOOD, "length": 2, "max": 9, "check": "luhn"}}),
        ("?length=5", {"json": {"image": GOOD, "length": [1, 3], "max": 9, "check": "luhn"}}),
        ("?length=1-3&max=9&check=luhn", {"data": drawn_digit(), "content_type": "image/png"}),
        (
            "?length=2&max=9&check=luhn",
            {"data": {"image": (io.BytesIO(drawn_digit()), "a.png")}},
        ),
    ],
)
def test_hints_are_checked_wherever_they_are_stated(client, query, way):
    checks = client.post(f"/read{query}", **way).json["checks"]
    named = {"length": True, "max": False, "luhn": False}
    assert {check["name"]: check["ok"] for check in checks} == named


def test_each_region_has_an_answer(client):
    boxes = [[0, 0, 5, 5], [5, 5, 9, 9]]
    answer = client.post("/read?ink=true", json={"image": GOOD, "regions": boxes}).json
    assert [field["text"] for field in answer["fields"]] == ["77", "77"]
    assert all(list(field) == FIELDS for field in answer["fields"])
    assert len({field["id"] for field in answer["fields"]}) == 2
    # A model that rejects numbers is rolled back too.
    labels = {"model_version": "fake-1", "decision": "accept"}
    figures = parse(client.get("/metrics").text)
    assert value(figures, "inkdigits_model_readings_total", **labels) == 2
    assert answer["fields"][0]["digits"][0]["ink"].startswith("data:image/png;base64,")


def test_empty_field_gives_nothing(client):
    answer = client.post("/read", json={"image": BLANK}).json
    assert (answer["text"], answer["digits"], answer["reason"]) == ("", [], "no_ink")


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"length": "5"}, "invalid_hint"),
        ({"length": [3, 2]}, "invalid_hint"),
        ({"length": []}, "invalid_hint"),
        ({"min": 1.5}, "invalid_hint"),
        ({"check": "crc"}, "invalid_hint"),
        ({"check": ["luhn"]}, "invalid_hint"),
        ({"regions": [[1, 2, 3]]}, "invalid_hint"),
        ({"regions": []}, "invalid_hint"),
        ({"regions": [[0, 0, 1, 1]] * 257}, "too_many_pictures"),
        ({"regions": [[0, 0, 5000, 2501]] * 2}, "image_too_large"),
        ({"risk": 2}, "invalid_risk"),
        ({"image": "!!!"}, "invalid_base64"),
        ({"image": 7}, "missing_field"),
    ],
)
def test_what_cannot_be_is_an_error_of_its_own(client, wrong, code):
    response = client.post("/read", json={"image": GOOD, **wrong})
    assert code_of(response)[1] == code
    assert response.status_code < 500


@pytest.mark.parametrize("query", ["length=x", "length=1-2-3", "min=-1", "max=two", "check=no"])
def test_hint_of_the_query_that_cannot_be_is_an_error(client, query):
    response = client.post(f"/read?{query}", data=drawn_digit(), content_type="image/png")
    assert code_of(response) == (422, "invalid_hint")


def test_number_is_kept_in_the_log_with_its_digits(reader, tmp_path):
    with opened(sqlite_url(tmp_path), tmp_path) as store:
        client = create_app(Settings(page="off"), reader, store).test_client()
        answer = client.post("/read", json={"image": GOOD}).json
        record = store.get(answer["id"])
        unkept = client.post("/read?record=false", json={"image": GOOD}).json
    assert (answer["kept"], unkept["kept"]) == ("database", "off")
    assert (record.text, record.digit, record.ink.shape) == ("77", None, (2, 28, 28))
    assert record.digits[0] == {"digit": 7, "confidence": 0.9, "box": [1, 2, 3, 4]}
