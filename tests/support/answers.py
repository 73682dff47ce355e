"""What answers of the API look like."""

from __future__ import annotations

import base64
from typing import Any

from flask.testing import FlaskClient
from support.fakes import FakeReader

from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

FIELDS = [
    *("prediction", "confidence", "probabilities", "decision", "reason", "novelty"),
    *("model_version", "id", "kept"),
    *("preprocessing_time_ms", "inference_time_ms", "total_time_ms"),
]
"""Of a prediction, in their order."""


def limited(**limits: int) -> FlaskClient:
    return create_app(Settings(**limits), FakeReader()).test_client()


def as_base64(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def code_of(response: Any) -> tuple[int, str]:
    assert list(response.json) == ["error"]
    assert sorted(response.json["error"]) == ["code", "message"]
    assert response.json["error"]["message"]
    return response.status_code, response.json["error"]["code"]
