"""Bodies that are compressed, damaged or too long, on every route that takes one."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from typing import Any

import pytest
from flask.testing import FlaskClient
from support.fakes import FakeReader, drawn_digit

from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

LIMIT = 5000
TEXT = base64.b64encode(drawn_digit()).decode()
TENSOR = {"name": "picture", "datatype": "BYTES", "shape": [1], "data": [TEXT]}
BODIES = {
    ("/predict", "image/png"): drawn_digit(),
    ("/predict", "application/json"): json.dumps({"image": TEXT}).encode(),
    ("/v2/models/inkdigits/infer", "application/json"): json.dumps({"inputs": [TENSOR]}).encode(),
}


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    return create_app(Settings(page="off", max_bytes=LIMIT), FakeReader()).test_client()


def sent(client: FlaskClient, route: tuple[str, str], body: bytes, encoding: str) -> Any:
    headers = {"Content-Encoding": encoding, "Content-Type": route[1]}
    return client.post(route[0], data=body, headers=headers)


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP", "identity", ""])
def test_body_may_be_compressed(client: FlaskClient, route: tuple[str, str], encoding: str) -> None:
    pack: Any = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding.lower(), bytes)
    assert sent(client, route, pack(BODIES[route]), encoding).status_code == 200


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize(
    ("body", "encoding", "status", "said"),
    [
        (gzip.compress(bytes(2_000_000)), "gzip", 413, f"{LIMIT} bytes once it is decompressed"),
        (zlib.compress(bytes(2_000_000)), "deflate", 413, f"{LIMIT} bytes once"),
        (b"text", "gzip", 400, "not gzip"),
        (gzip.compress(b"ink")[:-4], "gzip", 400, "truncated"),
        (gzip.compress(b"ink") + b"more", "gzip", 400, "something follows"),
        (gzip.compress(b""), "gzip", 400, "no body"),
        (b"ink", "br", 415, "'br' is unsupported"),
    ],
)
def test_body_that_cannot_be_decompressed_within_the_limit_is_denied(
    client: FlaskClient, route: tuple[str, str], body: bytes, encoding: str, status: int, said: str
) -> None:
    response = sent(client, route, body, encoding)
    assert response.status_code == status
    assert said in json.dumps(response.json)


def test_form_may_not_be_compressed(client: FlaskClient) -> None:
    response = sent(client, ("/predict", "multipart/form-data; boundary=x"), b"--x--", "gzip")
    assert response.status_code == 415
