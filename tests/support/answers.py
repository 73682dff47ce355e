"""Services to ask, and what their answers look like."""

import base64
from typing import Any

from flask.testing import FlaskClient
from support.fakes import FakeReader

from inkdigits.serving.api.keys import digest_of
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

FIELDS = [
    *("prediction", "confidence", "probabilities", "decision", "reason", "novelty"),
    *("model_version", "id", "kept"),
    *("preprocessing_time_ms", "inference_time_ms", "total_time_ms"),
]
"""Of a prediction, in their order."""


KEY = "ink_of-ada"
KEYS = (("ada", digest_of(KEY)), ("bob", digest_of("ink_of-bob")))
"""API keys, of which KEY is the first."""


def asker(**settings: Any) -> FlaskClient:
    """A client of a service with these settings, without a page."""
    return create_app(Settings(**{"page": "off", **settings}), FakeReader()).test_client()


def as_base64(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def code_of(response: Any) -> tuple[int, str]:
    assert list(response.json) == ["error"]
    assert sorted(response.json["error"]) == ["code", "message"]
    assert response.json["error"]["message"]
    return response.status_code, response.json["error"]["code"]
