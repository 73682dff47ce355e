"""From pictures to answers and to the log: one, several, with a risk, with an explanation."""

from __future__ import annotations

import base64
import io
import json
import re
import uuid

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from support.answers import FIELDS, as_base64, code_of
from support.fakes import blank_picture, drawn_digit, empty_png, send_digit
from support.repository import REPOSITORY

from inkdigits.serving.api.predict import ink_url

PNG = "image/png"
API = REPOSITORY / "docs" / "api.md"


def test_json_answer_has_exactly_the_fields_of_the_contract(client: FlaskClient) -> None:
    response = client.post("/predict", json={"image": as_base64(drawn_digit())})
    assert response.status_code == 200
    assert list(response.json) == FIELDS
    assert response.json["prediction"] == 7
    assert response.json["confidence"] == 0.91
    assert len(response.json["probabilities"]) == 10
    assert response.json["decision"] == "accept"
    assert response.json["reason"] is None
    assert response.json["novelty"] == -3.1
    assert response.json["model_version"] == "fake-1"
    assert uuid.UUID(response.json["id"]).version == 7
    assert response.json["preprocessing_time_ms"] == 0.25
    assert response.json["inference_time_ms"] == 0.5
    assert response.json["total_time_ms"] > 0


def test_blank_picture_has_no_digit(client: FlaskClient) -> None:
    response = client.post("/predict", data=blank_picture(), content_type="image/png")
    assert response.status_code == 200
    assert response.json["prediction"] is None
    assert (response.json["decision"], response.json["reason"]) == ("reject", "blank")


def test_documented_answer_has_the_fields_of_the_real_one() -> None:
    example = re.search(r"```json\n(.*?)```", API.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    assert list(json.loads(example[1])) == FIELDS


def test_no_risk_no_mention_of_one(client: FlaskClient) -> None:
    assert list(send_digit(client).json) == FIELDS


def test_risk_in_json_and_in_the_query_come_back_with_their_coverage(client: FlaskClient) -> None:
    answers = [
        client.post("/predict", json={"image": as_base64(drawn_digit()), "risk": 0.01}),
        client.post("/predict?risk=0.01", data=drawn_digit(), content_type=PNG),
        client.post("/predict?risk=0.01", data={"image": (io.BytesIO(drawn_digit()), "a.png")}),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert list(answer.json) == [*FIELDS, "risk", "coverage"]
        assert (answer.json["risk"], answer.json["coverage"]) == (0.01, 0.99)
        assert answer.json["decision"] == "accept"


def test_risk_that_cannot_be_kept_accepts_nothing_and_says_so(client: FlaskClient) -> None:
    answer = client.post("/predict", json={"image": as_base64(drawn_digit()), "risk": 1e-4})
    assert (answer.json["decision"], answer.json["coverage"]) == ("review", 0.0)


def test_risk_holds_for_every_picture_of_a_batch(client: FlaskClient) -> None:
    texts = [as_base64(drawn_digit())] * 2
    answer = client.post("/predict", json={"images": texts, "risk": 1e-4})
    assert [p["decision"] for p in answer.json["predictions"]] == ["review"] * 2
    assert [p["risk"] for p in answer.json["predictions"]] == [1e-4] * 2


def test_json_goes_before_the_query(client: FlaskClient) -> None:
    body = {"image": as_base64(drawn_digit()), "risk": 0.01}
    assert client.post("/predict?risk=0.5", json=body).json["risk"] == 0.01


@pytest.mark.parametrize("risk", [0, 1, -0.1, 1.5, True, "0.01", None, []])
def test_risk_that_cannot_be_is_refused_with_its_limits(client: FlaskClient, risk: object) -> None:
    body = json.dumps({"image": as_base64(drawn_digit()), "risk": risk})
    response = client.post("/predict", data=body, content_type="application/json")
    assert code_of(response) == (422, "invalid_risk")
    assert "above 0 and below 1" in response.json["error"]["message"]


@pytest.mark.parametrize("risk", ["0", "1", "", "nan", "inf", "much"])
def test_risk_in_the_query_that_cannot_be_is_refused(client: FlaskClient, risk: str) -> None:
    response = client.post(f"/predict?risk={risk}", data=drawn_digit(), content_type=PNG)
    assert code_of(response) == (422, "invalid_risk")


@pytest.mark.parametrize("way", ["json", "query"])
def test_explanation_has_the_runner_up_and_two_pictures(client: FlaskClient, way: str) -> None:
    if way == "json":
        body = {"image": as_base64(drawn_digit()), "explain": True}
        answer = client.post("/predict", json=body).json
    else:
        answer = client.post("/predict?explain=true", data=drawn_digit(), content_type=PNG).json
    assert list(answer) == [*FIELDS, "explanation"]
    why = answer["explanation"]
    assert list(why) == [
        "runner_up",
        "runner_up_probability",
        "ink_png",
        "saliency_png",
        "saliency",
    ]
    assert (why["runner_up"], why["runner_up_probability"]) == (8, 0.01)
    sizes = []
    for name in ("ink_png", "saliency_png"):
        with Image.open(io.BytesIO(base64.b64decode(why[name], validate=True))) as image:
            sizes.append((image.format, image.size))
    assert sizes == [("PNG", (28, 28)), ("PNG", (280, 280))]
    assert [len(row) for row in why["saliency"]] == [28] * 28


def test_explanation_and_risk_go_together(client: FlaskClient) -> None:
    body = {"image": as_base64(drawn_digit()), "explain": True, "risk": 1e-4}
    answer = client.post("/predict", json=body).json
    assert list(answer) == [*FIELDS, "risk", "coverage", "explanation"]
    assert answer["decision"] == "review"


def test_blank_picture_has_no_runner_up(client: FlaskClient) -> None:
    body = {"image": as_base64(blank_picture()), "explain": True}
    assert client.post("/predict", json=body).json["explanation"]["runner_up"] is None


@pytest.mark.parametrize(
    "body",
    [
        {"image": as_base64(drawn_digit()), "explain": "yes"},
        {"image": as_base64(drawn_digit()), "explain": 1},
        {"images": [as_base64(drawn_digit())], "explain": True},
    ],
)
def test_explain_of_another_shape_is_refused(client: FlaskClient, body: dict[str, object]) -> None:
    response = client.post("/predict", json=body)
    assert code_of(response) == (422, "wrong_shape")
    assert "explain" in response.json["error"]["message"]


def test_picture_that_cannot_be_read_is_not_explained(client: FlaskClient) -> None:
    response = client.post("/predict?explain=true", data=b"text", content_type=PNG)
    assert code_of(response) == (400, "not_an_image")


def test_answers_are_in_the_order_of_the_pictures(client: FlaskClient) -> None:
    response = client.post(
        "/predict", json={"images": [as_base64(drawn_digit()), as_base64(blank_picture())]}
    )
    assert response.status_code == 200
    first, second = response.json["predictions"]
    assert list(first) == list(second) == FIELDS
    assert (first["prediction"], second["prediction"]) == (7, None)
    assert first["id"] != second["id"]


def test_bad_picture_gives_an_error_in_its_own_place(client: FlaskClient) -> None:
    good = as_base64(drawn_digit())
    bad = [
        "!!!",
        as_base64(b"text"),
        "data:text/plain;base64,QQ==",
        as_base64(empty_png(1000, 1001)),
        "",
    ]
    response = client.post("/predict", json={"images": [bad[0], good, *bad[1:], good]})
    assert response.status_code == 200
    places = [
        p["error"]["code"] if "error" in p else p["prediction"]
        for p in response.json["predictions"]
    ]
    assert places == [
        "invalid_base64",
        7,
        "not_an_image",
        "invalid_data_url",
        "image_too_large",
        "not_an_image",
        7,
    ]


def test_batch_of_bad_pictures_only_is_answered_too(client: FlaskClient) -> None:
    response = client.post("/predict", json={"images": ["!", "?"]})
    assert [p["error"]["code"] for p in response.json["predictions"]] == ["invalid_base64"] * 2


def test_ink_comes_out_of_its_data_url_as_it_went_in() -> None:
    ink = np.arange(784, dtype=np.uint8).reshape(28, 28)
    head, _, data = ink_url(ink).partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        np.testing.assert_array_equal(np.asarray(image), ink)
