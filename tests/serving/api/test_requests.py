import gzip
import io
import json
import zlib

import pytest
import werkzeug.formparser
from support.answers import as_base64, asker, code_of
from support.fakes import drawn_digit, send_digit

DIGIT = drawn_digit()
TEXT = as_base64(DIGIT)


@pytest.mark.parametrize(
    "way",
    [
        {"json": {"image": f"data:image/png;base64,{TEXT}"}},
        {"data": {"image": (io.BytesIO(DIGIT), "seven.png")}},
        *({"data": DIGIT, "content_type": f"image/{kind}"} for kind in ("png", "jpeg")),
        {"data": DIGIT, "content_type": "application/octet-stream"},
        *(
            {"data": json.dumps({"image": TEXT}), "content_type": f"application/{kind}"}
            for kind in ("json; charset=utf-8", "vnd.api+json")
        ),
    ],
)
def test_picture_may_be_json_or_the_whole_body_or_in_a_form(client, reader, way):
    assert client.post("/predict", **way).json["prediction"] == 7
    assert reader.received[-1] == DIGIT


def test_large_upload_is_not_written_to_disk(client, reader, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a temporary file was asked for")

    monkeypatch.setattr(werkzeug.formparser, "SpooledTemporaryFile", refuse)
    picture = drawn_digit("BMP", (1000, 1000))
    head = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a.bmp"\r\n\r\n'
    body = head + picture + b"\r\n--edge--\r\n"
    response = client.post("/predict", data=body, content_type="multipart/form-data; boundary=edge")
    assert (response.status_code, reader.received[-1]) == (200, picture)


JSON = "application/json"
DENIED = {
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
TEXTS = {
    "invalid_base64": ("!!!!", "QQ=Q", "Q", "QQ==QQ==", "QQ===", "Ä"),
    "not_an_image": ("", "  ", "data:image/png;base64,"),
    "invalid_data_url": (
        *(f"data:{head},QQ==" for head in ("text/plain;base64", ";base64", "image/png")),
        *("data:image/png;base64", "DATA:application/pdf;BASE64,QQ=="),
        "data:image/png;base64;charset=utf-8,QQ==",
    ),
}
DENIED_JSON = {
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
    **{(400, code): [{"image": text} for text in texts] for code, texts in TEXTS.items()},
}
for code, documents in DENIED_JSON.items():
    DENIED[code] = [*DENIED.get(code, []), *((JSON, json.dumps(one).encode()) for one in documents)]


@pytest.mark.parametrize(
    ("outcome", "kind", "body"),
    [(outcome, *sent) for outcome, several in DENIED.items() for sent in several],
)
def test_body_that_holds_no_picture_is_denied_by_name(client, outcome, kind, body):
    response = client.post("/predict", data=body, content_type=kind)
    assert code_of(response) == outcome
    if outcome[1] == "invalid_risk":
        assert "above 0 and below 1" in response.json["error"]["message"]


@pytest.mark.parametrize("risk", ["0", "1", "", "nan", "inf", "much"])
def test_risk_in_the_query_that_cannot_be_is_denied(client, risk):
    assert code_of(send_digit(client, f"/predict?risk={risk}")) == (422, "invalid_risk")


@pytest.mark.parametrize(
    ("field", "content", "outcome"),
    [
        ("file", [(io.BytesIO(DIGIT), "a.png")], (400, "missing_field")),
        ("image", "text", (400, "missing_field")),
        ("image", [(io.BytesIO(DIGIT), name) for name in "ab"], (422, "wrong_shape")),
        ("image", [(io.BytesIO(b""), "a.png")], (400, "not_an_image")),
    ],
)
def test_form_without_exactly_one_picture_is_denied(client, field, content, outcome):
    form = {"data": {field: content}, "content_type": "multipart/form-data"}
    response = client.post("/predict", **form)
    assert code_of(response) == outcome
    assert (", but text" in response.json["error"]["message"]) == (content == "text")


def test_unknown_name_in_a_query_json_or_form_is_denied(client):
    for path, request, name in (
        ("/predict?rsk=0.01", {"json": {"image": TEXT}}, "rsk"),
        ("/predict", {"json": {"image": TEXT, "record": False}}, "record"),
        ("/read", {"json": {"image": TEXT, "images": []}}, "images"),
        ("/predict", {"data": {"image": (io.BytesIO(DIGIT), "a"), "risk": "1"}}, "risk"),
    ):
        response = client.post(path, **request)
        assert code_of(response) == (422, "wrong_shape")
        assert f'"{name}" in the ' in response.json["error"]["message"]


def test_body_over_the_limit_in_every_form():
    client = asker(max_bytes=2048)
    picture = DIGIT + b"\0" * 2048
    for request in (
        *({"data": picture, "content_type": kind} for kind in ("image/png", "text/plain")),
        *({"json": {"image": as_base64(picture)}}, {"data": {"image": (io.BytesIO(picture), "a")}}),
    ):
        response = client.post("/predict", **request)
        assert code_of(response) == (413, "body_too_large")
        assert "Send a smaller picture" in response.json["error"]["message"]


@pytest.mark.parametrize(
    ("size", "environ", "outcome"),
    [
        (4096, {"HTTP_TRANSFER_ENCODING": "chunked"}, (413, "body_too_large")),
        (1000, {"CONTENT_LENGTH": "2000"}, (400, "incomplete_body")),
    ],
)
def test_body_is_limited_as_it_is_read_and_must_be_as_long_as_announced(size, environ, outcome):
    body = {"input_stream": io.BytesIO(bytes(size)), "content_type": "image/png"}
    environ = {"wsgi.input_terminated": True, **environ}
    response = asker(max_bytes=2048).post("/predict", environ_overrides=environ, **body)
    assert code_of(response) == outcome


LIMIT = 5000
TENSOR = {"name": "picture", "datatype": "BYTES", "shape": [1], "data": [TEXT]}
BODIES = {
    ("/predict", "image/png"): DIGIT,
    ("/predict", "application/json"): json.dumps({"image": TEXT}).encode(),
    ("/v2/models/inkdigits/infer", "application/json"): json.dumps({"inputs": [TENSOR]}).encode(),
}


@pytest.fixture(scope="module")
def tight():
    return asker(max_bytes=LIMIT)


def sent(client, route, body, encoding):
    headers = {"Content-Encoding": encoding, "Content-Type": route[1]}
    return client.post(route[0], data=body, headers=headers)


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP", "identity", ""])
def test_body_may_be_compressed(tight, route, encoding):
    pack = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding.lower(), bytes)
    assert sent(tight, route, pack(BODIES[route]), encoding).status_code == 200


ZEROS = bytes(2_000_000)
INK = gzip.compress(b"ink", mtime=0)


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize(
    ("body", "encoding", "status", "said"),
    [
        (
            gzip.compress(ZEROS, mtime=0),
            "gzip",
            413,
            f"decompressed body has more than {LIMIT:,} bytes",
        ),
        (
            zlib.compress(ZEROS),
            "deflate",
            413,
            f"decompressed body has more than {LIMIT:,} bytes",
        ),
        (b"text", "gzip", 400, "not gzip"),
        (INK[:-4], "gzip", 400, "truncated"),
        (INK + b"more", "gzip", 400, "trailing data"),
        (gzip.compress(b"", mtime=0), "gzip", 400, "body is empty"),
        (b"ink", "br", 415, "'br' is unsupported"),
    ],
)
def test_body_that_cannot_be_decompressed_is_denied(tight, route, body, encoding, status, said):
    response = sent(tight, route, body, encoding)
    assert (response.status_code, said in json.dumps(response.json)) == (status, True)


def test_form_may_not_be_compressed(tight):
    response = sent(tight, ("/predict", "multipart/form-data; boundary=x"), b"--x--", "gzip")
    assert response.status_code == 415
