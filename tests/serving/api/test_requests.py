"""Every way to send a picture, and what is wrong with others: bodies, forms, JSON, base64."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zlib
from typing import Any

import pytest
import werkzeug.formparser
from flask.testing import FlaskClient
from support.answers import as_base64, code_of, limited
from support.fakes import FakeReader, drawn_digit


def test_data_url_is_read_like_base64(client: FlaskClient, reader: FakeReader) -> None:
    picture = drawn_digit()
    url = f"data:image/png;base64,{as_base64(picture)}"
    assert client.post("/predict", json={"image": url}).status_code == 200
    assert reader.read[-1] == picture


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "application/octet-stream"])
def test_picture_as_the_whole_body(client: FlaskClient, reader: FakeReader, kind: str) -> None:
    picture = drawn_digit()
    response = client.post("/predict", data=picture, content_type=kind)
    assert response.json["prediction"] == 7
    assert reader.read[-1] == picture


def test_picture_in_a_form(client: FlaskClient, reader: FakeReader) -> None:
    picture = drawn_digit()
    response = client.post("/predict", data={"image": (io.BytesIO(picture), "seven.png")})
    assert response.json["prediction"] == 7
    assert reader.read[-1] == picture


def test_large_upload_is_not_written_to_disk(
    client: FlaskClient, reader: FakeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a temporary file was asked for")

    monkeypatch.setattr(werkzeug.formparser, "SpooledTemporaryFile", refuse)
    picture = drawn_digit("BMP", (1000, 1000))
    head = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a.bmp"\r\n\r\n'
    body = head + picture + b"\r\n--edge--\r\n"
    response = client.post("/predict", data=body, content_type="multipart/form-data; boundary=edge")
    assert response.status_code == 200
    assert reader.read[-1] == picture


def test_json_with_another_subtype_and_charset_is_taken(client: FlaskClient) -> None:
    body = json.dumps({"image": as_base64(drawn_digit())})
    for kind in ("application/json; charset=utf-8", "application/vnd.api+json"):
        assert client.post("/predict", data=body, content_type=kind).status_code == 200


@pytest.mark.parametrize("kind", [None, "application/json", "image/png", "text/plain"])
def test_empty_body(client: FlaskClient, kind: str | None) -> None:
    assert code_of(client.post("/predict", content_type=kind)) == (400, "empty_body")


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_body_of_a_type_that_is_not_taken(client: FlaskClient, kind: str | None) -> None:
    response = client.post("/predict", data=drawn_digit(), content_type=kind)
    assert code_of(response) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "body",
    [
        *(b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"image": "\\ud800"}'),
        *(b'{"risk": NaN}', b'{"risk": 1e400}', b'{"risk": 1' + b"0" * 400 + b"}"),
    ],
)
def test_body_that_is_not_json(client: FlaskClient, body: bytes) -> None:
    response = client.post("/predict", data=body, content_type="application/json")
    assert code_of(response) == (400, "invalid_json")


@pytest.mark.parametrize(
    "document",
    [
        [],
        "text",
        None,
        {"image": 7},
        {"image": None},
        {"image": {"data": "QQ=="}},
        {"images": "QQ=="},
        {"images": []},
        {"images": ["QQ==", 7]},
        {"image": "QQ==", "images": ["QQ=="]},
    ],
)
def test_json_of_the_wrong_shape(client: FlaskClient, document: object) -> None:
    body = json.dumps(document)
    response = client.post("/predict", data=body, content_type="application/json")
    assert code_of(response) == (422, "wrong_shape")


@pytest.mark.parametrize("document", [{}, {"picture": "QQ=="}])
def test_json_without_a_picture(client: FlaskClient, document: object) -> None:
    assert code_of(client.post("/predict", json=document)) == (400, "missing_field")


def test_form_without_a_picture(client: FlaskClient) -> None:
    for form in ({"file": (io.BytesIO(drawn_digit()), "a.png")}, {"image": "text"}):
        response = client.post("/predict", data=form, content_type="multipart/form-data")
        assert code_of(response) == (400, "missing_field")


def test_form_with_two_pictures(client: FlaskClient) -> None:
    files = [(io.BytesIO(drawn_digit()), "a.png"), (io.BytesIO(drawn_digit()), "b.png")]
    assert code_of(client.post("/predict", data={"image": files})) == (422, "wrong_shape")


def test_form_with_an_empty_file(client: FlaskClient) -> None:
    response = client.post("/predict", data={"image": (io.BytesIO(b""), "a.png")})
    assert code_of(response) == (400, "not_an_image")


def test_bytes_that_are_no_picture(client: FlaskClient) -> None:
    response = client.post("/predict", data=b"no picture", content_type="image/png")
    assert code_of(response) == (400, "not_an_image")


@pytest.mark.parametrize("text", ["!!!!", "QQ=Q", "Q", "QQ==QQ==", "QQ===", "Ä"])
def test_text_that_is_not_base64(client: FlaskClient, text: str) -> None:
    assert code_of(client.post("/predict", json={"image": text})) == (400, "invalid_base64")


@pytest.mark.parametrize("text", ["", "  ", "data:image/png;base64,"])
def test_base64_of_nothing(client: FlaskClient, text: str) -> None:
    assert code_of(client.post("/predict", json={"image": text})) == (400, "not_an_image")


@pytest.mark.parametrize(
    "url",
    [
        "data:text/plain;base64,QQ==",
        "data:;base64,QQ==",
        "data:image/png,QQ==",
        "data:image/png;base64",
        "data:image/png;base64;charset=utf-8,QQ==",
        "DATA:application/pdf;BASE64,QQ==",
    ],
)
def test_data_url_that_is_no_base64_picture(client: FlaskClient, url: str) -> None:
    assert code_of(client.post("/predict", json={"image": url})) == (400, "invalid_data_url")


def test_body_over_the_limit_in_every_form() -> None:
    client = limited(max_bytes=2048)
    picture = drawn_digit() + b"\0" * 2048
    for request in (
        {"data": picture, "content_type": "image/png"},
        {"json": {"image": as_base64(picture)}},
        {"data": {"image": (io.BytesIO(picture), "a.png")}},
        {"data": picture, "content_type": "text/plain"},
    ):
        assert code_of(client.post("/predict", **request)) == (413, "body_too_large")


def test_body_without_a_length_is_limited_as_it_is_read() -> None:
    response = limited(max_bytes=2048).post(
        "/predict",
        input_stream=io.BytesIO(b"\0" * 4096),
        content_type="image/png",
        environ_overrides={"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
    )
    assert code_of(response) == (413, "body_too_large")


def test_body_shorter_than_announced_is_the_clients_fault(client: FlaskClient) -> None:
    response = client.post(
        "/predict",
        input_stream=io.BytesIO(drawn_digit()),
        content_type="image/png",
        environ_overrides={"wsgi.input_terminated": True, "CONTENT_LENGTH": "100000"},
    )
    assert code_of(response) == (400, "incomplete_body")


LIMIT = 5000
TEXT = base64.b64encode(drawn_digit()).decode()
TENSOR = {"name": "picture", "datatype": "BYTES", "shape": [1], "data": [TEXT]}
BODIES = {
    ("/predict", "image/png"): drawn_digit(),
    ("/predict", "application/json"): json.dumps({"image": TEXT}).encode(),
    ("/v2/models/inkdigits/infer", "application/json"): json.dumps({"inputs": [TENSOR]}).encode(),
}


@pytest.fixture(scope="module")
def tight() -> FlaskClient:
    return limited(max_bytes=LIMIT)


def sent(client: FlaskClient, route: tuple[str, str], body: bytes, encoding: str) -> Any:
    headers = {"Content-Encoding": encoding, "Content-Type": route[1]}
    return client.post(route[0], data=body, headers=headers)


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP", "identity", ""])
def test_body_may_be_compressed(tight: FlaskClient, route: tuple[str, str], encoding: str) -> None:
    pack: Any = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding.lower(), bytes)
    assert sent(tight, route, pack(BODIES[route]), encoding).status_code == 200


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
    tight: FlaskClient, route: tuple[str, str], body: bytes, encoding: str, status: int, said: str
) -> None:
    response = sent(tight, route, body, encoding)
    assert response.status_code == status
    assert said in json.dumps(response.json)


def test_form_may_not_be_compressed(tight: FlaskClient) -> None:
    response = sent(tight, ("/predict", "multipart/form-data; boundary=x"), b"--x--", "gzip")
    assert response.status_code == 415
