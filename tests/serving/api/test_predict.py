"""From pictures to answers and to the log: one, several, with a risk, with an explanation."""

from __future__ import annotations

import base64
import io
import json
import re
import uuid
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from support.answers import FIELDS, as_base64, code_of
from support.fakes import blank_picture, drawn_digit, empty_png
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


def test_documented_answer_has_the_fields_of_the_real_one() -> None:
    example = re.search(r"```json\n(.*?)```", API.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    assert list(json.loads(example[1])) == FIELDS


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


@pytest.mark.parametrize(
    ("query", "way"),
    [
        ("", {"json": {"image": as_base64(drawn_digit()), "explain": True}}),
        ("?explain=true", {"data": drawn_digit(), "content_type": PNG}),
    ],
)
def test_explanation_has_the_runner_up_and_two_pictures(
    client: FlaskClient, query: str, way: dict[str, Any]
) -> None:
    answer = client.post(f"/predict{query}", **way).json
    assert list(answer) == [*FIELDS, "explanation"]
    why = answer["explanation"]
    pictures = ["ink_png", "saliency_png"]
    assert list(why) == ["runner_up", "runner_up_probability", *pictures, "saliency"]
    assert (why["runner_up"], why["runner_up_probability"]) == (8, 0.01)
    for name, side in zip(pictures, (28, 280), strict=True):
        with Image.open(io.BytesIO(base64.b64decode(why[name], validate=True))) as image:
            assert (image.format, image.size) == ("PNG", (side, side))
    assert [len(row) for row in why["saliency"]] == [28] * 28


def test_explanation_and_risk_go_together(client: FlaskClient) -> None:
    body = {"image": as_base64(drawn_digit()), "explain": True, "risk": 1e-4}
    answer = client.post("/predict", json=body).json
    assert list(answer) == [*FIELDS, "risk", "coverage", "explanation"]
    assert answer["decision"] == "review"


def test_picture_without_a_digit_has_no_runner_up(client: FlaskClient) -> None:
    body = {"image": as_base64(blank_picture()), "explain": True}
    assert client.post("/predict", json=body).json["explanation"]["runner_up"] is None
    response = client.post("/predict?explain=true", data=b"text", content_type=PNG)
    assert code_of(response) == (400, "not_an_image")


GOOD, BLANK = as_base64(drawn_digit()), as_base64(blank_picture())
BAD = {
    "!!!": "invalid_base64",
    as_base64(b"text"): "not_an_image",
    "data:text/plain;base64,QQ==": "invalid_data_url",
    as_base64(empty_png(1000, 1001)): "image_too_large",
    "": "not_an_image",
}


@pytest.mark.parametrize(
    ("images", "places"),
    [
        ([GOOD, BLANK], [7, None]),
        (["!!!", GOOD, *BAD, GOOD], ["invalid_base64", 7, *BAD.values(), 7]),
        (["!", "?"], ["invalid_base64"] * 2),
    ],
)
def test_each_picture_of_a_batch_has_an_answer_or_an_error_in_its_place(
    client: FlaskClient, images: list[str], places: list[Any]
) -> None:
    response = client.post("/predict", json={"images": images})
    assert response.status_code == 200
    answers = response.json["predictions"]
    assert places == [a["error"]["code"] if "error" in a else a["prediction"] for a in answers]
    read = [answer for answer in answers if "error" not in answer]
    assert all(list(answer) == FIELDS for answer in read)
    assert len({answer["id"] for answer in read}) == len(read)


def test_ink_comes_out_of_its_data_url_as_it_went_in() -> None:
    ink = np.arange(784, dtype=np.uint8).reshape(28, 28)
    head, _, data = ink_url(ink).partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        np.testing.assert_array_equal(np.asarray(image), ink)
