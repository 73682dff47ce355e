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
from support.answers import as_base64, asker, code_of
from support.fakes import FakeReader, drawn_digit, send_digit

DIGIT = drawn_digit()
URL = f"data:image/png;base64,{as_base64(DIGIT)}"


@pytest.mark.parametrize(
    "way",
    [
        {"json": {"image": URL}},
        *(
            {"data": DIGIT, "content_type": kind}
            for kind in ("image/png", "image/jpeg", "application/octet-stream")
        ),
        *(
            {"data": json.dumps({"image": as_base64(DIGIT)}), "content_type": kind}
            for kind in ("application/json; charset=utf-8", "application/vnd.api+json")
        ),
    ],
)
def test_picture_may_be_json_or_the_whole_body(
    client: FlaskClient, reader: FakeReader, way: dict[str, Any]
) -> None:
    assert client.post("/predict", **way).json["prediction"] == 7
    assert reader.read[-1] == DIGIT


def test_picture_in_a_form(client: FlaskClient, reader: FakeReader) -> None:
    response = client.post("/predict", data={"image": (io.BytesIO(DIGIT), "seven.png")})
    assert response.json["prediction"] == 7
    assert reader.read[-1] == DIGIT


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


JSON = "application/json"
DENIED: dict[tuple[int, str], list[tuple[str | None, bytes]]] = {
    (400, "empty_body"): [(kind, b"") for kind in (None, JSON, "image/png", "text/plain")],
    (415, "unsupported_media_type"): [
        (kind, b"text") for kind in (None, "text/plain", "application/x-www-form-urlencoded")
    ],
    (400, "not_an_image"): [("image/png", b"no picture")],
    (400, "invalid_json"): [
        *((JSON, body) for body in (b"{", b"\xff\xfe\x00", b"[" * 100_000)),
        *((JSON, body) for body in (b'{"image": "\\ud800"}', b'{"risk": NaN}', b'{"risk": 1e400}')),
        (JSON, b'{"risk": 1' + b"0" * 400 + b"}"),
    ],
}
DENIED_JSON: dict[tuple[int, str], list[Any]] = {
    (422, "wrong_shape"): [
        *([], "text", None, {"image": 7}, {"image": None}, {"image": {"data": "QQ=="}}),
        *({"images": "QQ=="}, {"images": []}, {"images": ["QQ==", 7]}),
        *({"image": "QQ==", "images": ["QQ=="]}, {"images": ["QQ=="], "explain": True}),
        *({"image": "QQ==", "explain": "yes"}, {"image": "QQ==", "explain": 1}),
    ],
    (422, "invalid_risk"): [
        {"image": "QQ==", "risk": risk} for risk in (0, 1, -0.1, 1.5, True, "0.01", None, [])
    ],
    (400, "missing_field"): [{}, {"picture": "QQ=="}],
    (400, "invalid_base64"): [
        {"image": text} for text in ("!!!!", "QQ=Q", "Q", "QQ==QQ==", "QQ===", "Ä")
    ],
    (400, "not_an_image"): [{"image": text} for text in ("", "  ", "data:image/png;base64,")],
    (400, "invalid_data_url"): [
        *({"image": f"data:{text},QQ=="} for text in ("text/plain;base64", ";base64", "image/png")),
        *(
            {"image": text}
            for text in ("data:image/png;base64", "DATA:application/pdf;BASE64,QQ==")
        ),
        {"image": "data:image/png;base64;charset=utf-8,QQ=="},
    ],
}
for code, documents in DENIED_JSON.items():
    DENIED[code] = [*DENIED.get(code, []), *((JSON, json.dumps(one).encode()) for one in documents)]


@pytest.mark.parametrize(
    ("outcome", "kind", "body"),
    [(outcome, *sent) for outcome, several in DENIED.items() for sent in several],
)
def test_body_that_holds_no_picture_is_denied_by_name(
    client: FlaskClient, outcome: tuple[int, str], kind: str | None, body: bytes
) -> None:
    response = client.post("/predict", data=body, content_type=kind)
    assert code_of(response) == outcome
    if outcome[1] == "invalid_risk":
        assert "above 0 and below 1" in response.json["error"]["message"]


@pytest.mark.parametrize("risk", ["0", "1", "", "nan", "inf", "much"])
def test_risk_in_the_query_that_cannot_be_is_denied(client: FlaskClient, risk: str) -> None:
    assert code_of(send_digit(client, f"/predict?risk={risk}")) == (422, "invalid_risk")


@pytest.mark.parametrize(
    ("field", "contents", "outcome"),
    [
        ("file", [drawn_digit()], (400, "missing_field")),
        ("image", [drawn_digit()] * 2, (422, "wrong_shape")),
        ("image", [b""], (400, "not_an_image")),
    ],
)
def test_form_without_exactly_one_picture_is_denied(
    client: FlaskClient, field: str, contents: list[bytes], outcome: tuple[int, str]
) -> None:
    files = [(io.BytesIO(content), "a.png") for content in contents]
    assert code_of(client.post("/predict", data={field: files})) == outcome


def test_text_in_the_field_of_the_picture_is_no_picture(client: FlaskClient) -> None:
    form = {"data": {"image": "text"}, "content_type": "multipart/form-data"}
    assert code_of(client.post("/predict", **form)) == (400, "missing_field")


def test_body_over_the_limit_in_every_form() -> None:
    client = asker(max_bytes=2048)
    picture = drawn_digit() + b"\0" * 2048
    for request in (
        {"data": picture, "content_type": "image/png"},
        {"json": {"image": as_base64(picture)}},
        {"data": {"image": (io.BytesIO(picture), "a.png")}},
        {"data": picture, "content_type": "text/plain"},
    ):
        assert code_of(client.post("/predict", **request)) == (413, "body_too_large")


def test_body_without_a_length_is_limited_as_it_is_read() -> None:
    response = asker(max_bytes=2048).post(
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
    return asker(max_bytes=LIMIT)


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
        (
            gzip.compress(bytes(2_000_000), mtime=0),
            "gzip",
            413,
            f"{LIMIT} bytes once it is decompressed",
        ),
        (zlib.compress(bytes(2_000_000)), "deflate", 413, f"{LIMIT} bytes once"),
        (b"text", "gzip", 400, "not gzip"),
        (gzip.compress(b"ink", mtime=0)[:-4], "gzip", 400, "truncated"),
        (gzip.compress(b"ink", mtime=0) + b"more", "gzip", 400, "something follows"),
        (gzip.compress(b"", mtime=0), "gzip", 400, "no body"),
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
