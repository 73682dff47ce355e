import base64
import io
import json
import re
import uuid

import numpy as np
import pytest
from PIL import Image
from support.answers import FIELDS, as_base64, code_of
from support.fakes import (
    FakeReader,
    SeesSeveral,
    blank_picture,
    drawn_digit,
    empty_png,
    send_digit,
)
from support.repository import REPOSITORY

from inkdigits.serving.api import load_shedding
from inkdigits.serving.api.predict import ink_url
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

PNG = "image/png"
API = REPOSITORY / "docs" / "api.md"
GOOD, BLANK = as_base64(drawn_digit()), as_base64(blank_picture())


def test_json_answer_has_exactly_the_fields_of_the_contract_and_of_its_document(client):
    answer = client.post("/predict", json={"image": GOOD}).json
    example = re.search(r"```json\n(.*?)```", API.read_text(encoding="utf-8"), re.DOTALL)
    assert list(answer) == list(json.loads(example[1])) == FIELDS
    assert len(answer["probabilities"]) == 10
    assert uuid.UUID(answer["id"]).version == 7
    assert answer["total_time_ms"] > 0
    assert {
        "prediction": 7,
        "confidence": 0.91,
        "decision": "accept",
        "reason": None,
        "novelty": -3.1,
        "model_version": "fake-1",
        "preprocessing_time_ms": 0.25,
        "inference_time_ms": 0.5,
    }.items() <= answer.items()


@pytest.mark.parametrize(
    ("query", "way"),
    [
        ("?risk=0.5", {"json": {"image": GOOD, "risk": 0.01}}),  # the body goes before the query
        ("?risk=0.01", {"data": drawn_digit(), "content_type": PNG}),
        ("?risk=0.01", {"data": {"image": (io.BytesIO(drawn_digit()), "a.png")}}),
    ],
)
def test_risk_comes_back_with_its_coverage(client, query, way):
    answer = client.post(f"/predict{query}", **way).json
    assert list(answer) == [*FIELDS, "risk", "coverage"]
    assert [answer[name] for name in ("risk", "coverage", "decision")] == [0.01, 0.99, "accept"]


def test_several_digits_come_with_the_number_that_they_are():
    client = create_app(Settings(page="off"), SeesSeveral()).test_client()
    answer = send_digit(client, "/predict?ink=true").json
    assert (answer["reason"], answer["hint"][:10]) == ("several_digits", "POST /read")
    number = send_digit(client, "/read?ink=true").json
    same = ("text", "confidence", "digits")
    assert [answer["number"][name] for name in same] == [number[name] for name in same]
    assert [answer["number"][name] for name in ("id", "kept")] == [answer["id"], "off"]


def test_risk_that_cannot_be_kept_accepts_nothing_in_a_batch_nor_explained(client):
    explained = client.post("/predict", json={"image": GOOD, "explain": True, "risk": 1e-4}).json
    assert list(explained) == [*FIELDS, "risk", "coverage", "explanation"]
    batch = client.post("/predict", json={"images": [GOOD] * 2, "risk": 1e-4}).json["predictions"]
    assert len(batch) == 2
    for one in (explained, *batch):
        assert (one["decision"], one["risk"], one["coverage"]) == ("review", 1e-4, 0.0)


@pytest.mark.parametrize(
    ("query", "way"),
    [
        ("", {"json": {"image": GOOD, "explain": True}}),
        ("?explain=true", {"data": drawn_digit(), "content_type": PNG}),
    ],
)
def test_explanation_has_the_runner_up_and_two_pictures(client, query, way):
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


def test_picture_without_a_digit_has_no_runner_up(client):
    answer = client.post("/predict", json={"image": BLANK, "explain": True}).json
    assert answer["explanation"]["runner_up"] is None
    response = client.post("/predict?explain=true", data=b"text", content_type=PNG)
    assert code_of(response) == (400, "not_an_image")


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
def test_each_picture_of_a_batch_has_an_answer_or_an_error_in_its_place(client, images, places):
    response = client.post("/predict", json={"images": images})
    assert response.status_code == 200
    answers = response.json["predictions"]
    assert places == [a["error"]["code"] if "error" in a else a["prediction"] for a in answers]
    read = [answer for answer in answers if "error" not in answer]
    assert all(list(answer) == FIELDS for answer in read)
    assert len({answer["id"] for answer in read}) == len(read)


def test_ink_comes_out_of_its_data_url_as_it_went_in():
    ink = np.arange(784, dtype=np.uint8).reshape(28, 28)
    head, _, data = ink_url(ink).partition(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), ink)


def test_a_batch_gives_its_slot_away_between_a_few_pictures(client, reader, monkeypatch):
    sizes = []

    def predict_batch(pictures, **how):
        sizes.append(len(pictures))
        return FakeReader.predict_batch(reader, pictures, **how)

    monkeypatch.setattr(reader, "predict_batch", predict_batch, raising=False)
    answer = client.post("/predict", json={"images": [GOOD] * 20})
    assert (len(answer.json["predictions"]), sizes) == (20, [8, 8, 4])
    monkeypatch.setattr(load_shedding, "CPU_SECONDS", 0.0)
    answer = client.post("/predict", json={"images": [GOOD]})
    assert answer.json["predictions"][0]["error"]["code"] == "image_too_large"
