"""From a prediction to the answer and to the record that the log keeps."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path

import numpy as np
import pytest
from flask import Flask, g
from PIL import Image
from support.databases import PATIENT
from support.fakes import FakeReader, drawn_digit

from inkdigits.log.ids import new_id
from inkdigits.log.store import Store
from inkdigits.serving.api.predict import explanation_body, ink_url, keep, prediction_body


def test_ink_comes_out_of_its_data_url_as_it_went_in() -> None:
    ink = np.arange(784, dtype=np.uint8).reshape(28, 28)
    head, _, data = ink_url(ink).partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        np.testing.assert_array_equal(np.asarray(image), ink)


@pytest.mark.parametrize("risk", [None, 0.01])
def test_risk_and_ink_are_in_the_answer_only_if_asked_for(risk: float | None) -> None:
    prediction = FakeReader().predict(drawn_digit(), risk=risk)
    with Flask(__name__).app_context():
        g.began = time.perf_counter()
        plain = prediction_body(prediction, "an-id", "off", with_ink=False)
        full = prediction_body(prediction, "an-id", "off", with_ink=True)
    assert {"risk", "coverage"} & set(plain) == ({"risk", "coverage"} if risk else set())
    assert set(full) - set(plain) == {"ink"}


def test_explanation_has_a_row_of_28_for_each_row_of_the_ink() -> None:
    body = explanation_body(FakeReader().explain(drawn_digit()))
    assert [len(row) for row in body["saliency"]] == [28] * 28
    assert base64.b64decode(body["saliency_png"]).startswith(b"\x89PNG")


def test_prediction_is_kept_under_the_id_of_its_answer(tmp_path: Path) -> None:
    prediction, name = FakeReader().predict(drawn_digit()), new_id()
    url = f"sqlite:///{tmp_path / 'log.sqlite3'}"
    with Store.open(url, outbox_dir=tmp_path, options=PATIENT) as store:
        kept = keep(store, prediction, name, kind="api", owner=None, picture=None)
        assert (kept, store.get(name).digit) == ("database", 7)
    assert keep(None, prediction, name, kind="api", owner=None, picture=None) == "off"
