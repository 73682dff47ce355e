from __future__ import annotations

import base64
import io
import json
import logging
import re
import uuid
from typing import Any

import pytest
import werkzeug.formparser
from flask.testing import FlaskClient
from PIL import Image
from support.fakes import FakeReader, blank_picture, drawn_digit, empty_png
from support.repository import REPOSITORY

from inkdigits.errors import ArtifactCorruptError, UnsupportedImageError
from inkdigits.serving.api.error_handlers import HTTP_CODES, STATUSES
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

PNG = "image/png"
API = REPOSITORY / "docs" / "api.md"

FIELDS = [
    "prediction",
    "confidence",
    "probabilities",
    "decision",
    "reason",
    "novelty",
    "model_version",
    "id",
    "kept",
    "preprocessing_time_ms",
    "inference_time_ms",
    "total_time_ms",
]


@pytest.fixture
def reader() -> FakeReader:
    return FakeReader()


@pytest.fixture
def client(reader: FakeReader) -> FlaskClient:
    return create_app(Settings(), reader).test_client()


def limited(**limits: int) -> FlaskClient:
    return create_app(Settings(**limits), FakeReader()).test_client()


def as_base64(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def code_of(response: Any) -> tuple[int, str]:
    assert list(response.json) == ["error"]
    assert sorted(response.json["error"]) == ["code", "message"]
    assert response.json["error"]["message"]
    return response.status_code, response.json["error"]["code"]


class TestWaysToSendAPicture:
    def test_json_answer_has_exactly_the_fields_of_the_contract(self, client: FlaskClient) -> None:
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

    def test_data_url_is_read_like_base64(self, client: FlaskClient, reader: FakeReader) -> None:
        picture = drawn_digit()
        url = f"data:image/png;base64,{as_base64(picture)}"
        assert client.post("/predict", json={"image": url}).status_code == 200
        assert reader.read[-1] == picture

    @pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "application/octet-stream"])
    def test_picture_as_the_whole_body(
        self, client: FlaskClient, reader: FakeReader, kind: str
    ) -> None:
        picture = drawn_digit()
        response = client.post("/predict", data=picture, content_type=kind)
        assert response.json["prediction"] == 7
        assert reader.read[-1] == picture

    def test_picture_in_a_form(self, client: FlaskClient, reader: FakeReader) -> None:
        picture = drawn_digit()
        response = client.post("/predict", data={"image": (io.BytesIO(picture), "seven.png")})
        assert response.json["prediction"] == 7
        assert reader.read[-1] == picture

    def test_large_upload_is_not_written_to_disk(
        self, client: FlaskClient, reader: FakeReader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*args: object, **kwargs: object) -> None:
            raise AssertionError("a temporary file was asked for")

        monkeypatch.setattr(werkzeug.formparser, "SpooledTemporaryFile", refuse)
        picture = drawn_digit("BMP", (1000, 1000))
        head = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a.bmp"\r\n\r\n'
        body = head + picture + b"\r\n--edge--\r\n"
        response = client.post(
            "/predict", data=body, content_type="multipart/form-data; boundary=edge"
        )
        assert response.status_code == 200
        assert reader.read[-1] == picture

    def test_blank_picture_has_no_digit(self, client: FlaskClient) -> None:
        response = client.post("/predict", data=blank_picture(), content_type="image/png")
        assert response.status_code == 200
        assert response.json["prediction"] is None
        assert (response.json["decision"], response.json["reason"]) == ("reject", "blank")

    def test_json_with_another_subtype_and_charset_is_taken(self, client: FlaskClient) -> None:
        body = json.dumps({"image": as_base64(drawn_digit())})
        for kind in ("application/json; charset=utf-8", "application/vnd.api+json"):
            assert client.post("/predict", data=body, content_type=kind).status_code == 200


class TestRisk:
    def test_no_risk_no_mention_of_one(self, client: FlaskClient) -> None:
        assert list(client.post("/predict", data=drawn_digit(), content_type=PNG).json) == FIELDS

    def test_risk_in_json_and_in_the_query_come_back_with_their_coverage(
        self, client: FlaskClient
    ) -> None:
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

    def test_risk_that_cannot_be_kept_accepts_nothing_and_says_so(
        self, client: FlaskClient
    ) -> None:
        answer = client.post("/predict", json={"image": as_base64(drawn_digit()), "risk": 1e-4})
        assert (answer.json["decision"], answer.json["coverage"]) == ("review", 0.0)

    def test_risk_holds_for_every_picture_of_a_batch(self, client: FlaskClient) -> None:
        texts = [as_base64(drawn_digit())] * 2
        answer = client.post("/predict", json={"images": texts, "risk": 1e-4})
        assert [p["decision"] for p in answer.json["predictions"]] == ["review"] * 2
        assert [p["risk"] for p in answer.json["predictions"]] == [1e-4] * 2

    def test_json_goes_before_the_query(self, client: FlaskClient) -> None:
        body = {"image": as_base64(drawn_digit()), "risk": 0.01}
        assert client.post("/predict?risk=0.5", json=body).json["risk"] == 0.01

    @pytest.mark.parametrize("risk", [0, 1, -0.1, 1.5, True, "0.01", None, []])
    def test_risk_that_cannot_be_is_refused_with_its_limits(
        self, client: FlaskClient, risk: object
    ) -> None:
        body = json.dumps({"image": as_base64(drawn_digit()), "risk": risk})
        response = client.post("/predict", data=body, content_type="application/json")
        assert code_of(response) == (422, "invalid_risk")
        assert "above 0 and below 1" in response.json["error"]["message"]

    @pytest.mark.parametrize("risk", ["0", "1", "", "nan", "inf", "much"])
    def test_risk_in_the_query_that_cannot_be_is_refused(
        self, client: FlaskClient, risk: str
    ) -> None:
        response = client.post(f"/predict?risk={risk}", data=drawn_digit(), content_type=PNG)
        assert code_of(response) == (422, "invalid_risk")


class TestExplanation:
    @pytest.mark.parametrize("way", ["json", "query"])
    def test_explanation_has_the_runner_up_and_two_pictures(
        self, client: FlaskClient, way: str
    ) -> None:
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

    def test_explanation_and_risk_go_together(self, client: FlaskClient) -> None:
        body = {"image": as_base64(drawn_digit()), "explain": True, "risk": 1e-4}
        answer = client.post("/predict", json=body).json
        assert list(answer) == [*FIELDS, "risk", "coverage", "explanation"]
        assert answer["decision"] == "review"

    def test_blank_picture_has_no_runner_up(self, client: FlaskClient) -> None:
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
    def test_explain_of_another_shape_is_refused(
        self, client: FlaskClient, body: dict[str, object]
    ) -> None:
        response = client.post("/predict", json=body)
        assert code_of(response) == (422, "wrong_shape")
        assert "explain" in response.json["error"]["message"]

    def test_picture_that_cannot_be_read_is_not_explained(self, client: FlaskClient) -> None:
        response = client.post("/predict?explain=true", data=b"text", content_type=PNG)
        assert code_of(response) == (400, "not_an_image")


class TestBatch:
    def test_answers_are_in_the_order_of_the_pictures(self, client: FlaskClient) -> None:
        response = client.post(
            "/predict", json={"images": [as_base64(drawn_digit()), as_base64(blank_picture())]}
        )
        assert response.status_code == 200
        first, second = response.json["predictions"]
        assert list(first) == list(second) == FIELDS
        assert (first["prediction"], second["prediction"]) == (7, None)
        assert first["id"] != second["id"]

    def test_bad_picture_gives_an_error_in_its_own_place(self, client: FlaskClient) -> None:
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

    def test_batch_of_bad_pictures_only_is_answered_too(self, client: FlaskClient) -> None:
        response = client.post("/predict", json={"images": ["!", "?"]})
        assert [p["error"]["code"] for p in response.json["predictions"]] == ["invalid_base64"] * 2

    def test_more_pictures_than_allowed_are_refused(self) -> None:
        response = limited(max_batch=2).post("/predict", json={"images": ["QQ=="] * 3})
        assert code_of(response) == (413, "too_many_pictures")
        assert "limit is 2" in response.json["error"]["message"]


class TestRefusals:
    @pytest.mark.parametrize("kind", [None, "application/json", "image/png", "text/plain"])
    def test_empty_body(self, client: FlaskClient, kind: str | None) -> None:
        assert code_of(client.post("/predict", content_type=kind)) == (400, "empty_body")

    @pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
    def test_body_of_a_type_that_is_not_taken(self, client: FlaskClient, kind: str | None) -> None:
        response = client.post("/predict", data=drawn_digit(), content_type=kind)
        assert code_of(response) == (415, "unsupported_media_type")

    @pytest.mark.parametrize(
        "body",
        [
            *(b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"image": "\\ud800"}'),
            *(b'{"risk": NaN}', b'{"risk": 1e400}', b'{"risk": 1' + b"0" * 400 + b"}"),
        ],
    )
    def test_body_that_is_not_json(self, client: FlaskClient, body: bytes) -> None:
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
    def test_json_of_the_wrong_shape(self, client: FlaskClient, document: object) -> None:
        body = json.dumps(document)
        response = client.post("/predict", data=body, content_type="application/json")
        assert code_of(response) == (422, "wrong_shape")

    @pytest.mark.parametrize("document", [{}, {"picture": "QQ=="}])
    def test_json_without_a_picture(self, client: FlaskClient, document: object) -> None:
        assert code_of(client.post("/predict", json=document)) == (400, "missing_field")

    def test_form_without_a_picture(self, client: FlaskClient) -> None:
        for form in ({"file": (io.BytesIO(drawn_digit()), "a.png")}, {"image": "text"}):
            response = client.post("/predict", data=form, content_type="multipart/form-data")
            assert code_of(response) == (400, "missing_field")

    def test_form_with_two_pictures(self, client: FlaskClient) -> None:
        files = [(io.BytesIO(drawn_digit()), "a.png"), (io.BytesIO(drawn_digit()), "b.png")]
        assert code_of(client.post("/predict", data={"image": files})) == (422, "wrong_shape")

    def test_form_with_an_empty_file(self, client: FlaskClient) -> None:
        response = client.post("/predict", data={"image": (io.BytesIO(b""), "a.png")})
        assert code_of(response) == (400, "not_an_image")

    def test_form_of_many_parts(self, client: FlaskClient) -> None:
        form = {f"field{i}": "x" for i in range(17)}
        response = client.post("/predict", data=form, content_type="multipart/form-data")
        assert code_of(response) == (413, "body_too_large")

    def test_bytes_that_are_no_picture(self, client: FlaskClient) -> None:
        response = client.post("/predict", data=b"no picture", content_type="image/png")
        assert code_of(response) == (400, "not_an_image")

    @pytest.mark.parametrize("text", ["!!!!", "QQ=Q", "Q", "QQ==QQ==", "QQ===", "Ä"])
    def test_text_that_is_not_base64(self, client: FlaskClient, text: str) -> None:
        assert code_of(client.post("/predict", json={"image": text})) == (400, "invalid_base64")

    @pytest.mark.parametrize("text", ["", "  ", "data:image/png;base64,"])
    def test_base64_of_nothing(self, client: FlaskClient, text: str) -> None:
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
    def test_data_url_that_is_no_base64_picture(self, client: FlaskClient, url: str) -> None:
        assert code_of(client.post("/predict", json={"image": url})) == (400, "invalid_data_url")

    def test_format_that_the_reader_does_not_take(
        self, client: FlaskClient, reader: FakeReader
    ) -> None:
        reader.failure = UnsupportedImageError("An icon is not taken.")
        response = client.post("/predict", data=drawn_digit("ICO"), content_type="image/x-icon")
        assert code_of(response) == (415, "unsupported_image")

    def test_unknown_path_and_wrong_method_are_json_too(self, client: FlaskClient) -> None:
        assert code_of(client.get("/nowhere")) == (404, "not_found")
        response = client.get("/predict")
        assert code_of(response) == (405, "method_not_allowed")
        assert set(response.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}

    def test_other_error_of_the_reader_is_internal_and_gives_nothing_away(
        self, client: FlaskClient, reader: FakeReader, caplog: pytest.LogCaptureFixture
    ) -> None:
        for failure in (RuntimeError("secret detail"), ArtifactCorruptError("secret detail")):
            reader.failure = failure
            response = client.post(
                "/predict",
                data=drawn_digit(),
                content_type="image/png",
                headers={"X-Request-ID": "abc-1"},
            )
            assert code_of(response) == (500, "internal_error")
            assert "secret" not in response.text
            assert "abc-1" in response.json["error"]["message"]
        tracebacks = [record for record in caplog.records if record.exc_info]
        assert [record.fields for record in tracebacks] == [{"request_id": "abc-1"}] * 2
        assert "secret detail" in str(tracebacks[0].exc_info[1])


class TestLimits:
    def test_body_over_the_limit_in_every_form(self) -> None:
        client = limited(max_bytes=2048)
        picture = drawn_digit() + b"\0" * 2048
        for request in (
            {"data": picture, "content_type": "image/png"},
            {"json": {"image": as_base64(picture)}},
            {"data": {"image": (io.BytesIO(picture), "a.png")}},
            {"data": picture, "content_type": "text/plain"},
        ):
            assert code_of(client.post("/predict", **request)) == (413, "body_too_large")

    def test_body_without_a_length_is_limited_as_it_is_read(self) -> None:
        response = limited(max_bytes=2048).post(
            "/predict",
            input_stream=io.BytesIO(b"\0" * 4096),
            content_type="image/png",
            environ_overrides={"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
        )
        assert code_of(response) == (413, "body_too_large")

    def test_body_shorter_than_announced_is_the_clients_fault(self, client: FlaskClient) -> None:
        response = client.post(
            "/predict",
            input_stream=io.BytesIO(drawn_digit()),
            content_type="image/png",
            environ_overrides={"wsgi.input_terminated": True, "CONTENT_LENGTH": "100000"},
        )
        assert code_of(response) == (400, "incomplete_body")

    def test_picture_of_too_many_pixels(self, client: FlaskClient) -> None:
        response = client.post("/predict", data=empty_png(1000, 1001), content_type="image/png")
        assert code_of(response) == (413, "image_too_large")


class TestHealth:
    def test_healthy_once_a_warm_up_prediction_has_worked(
        self, client: FlaskClient, reader: FakeReader
    ) -> None:
        assert len(reader.read) == 1
        response = client.get("/health")
        assert response.status_code == 200
        assert response.json["status"] == "healthy"
        assert response.json["model_loaded"] is True
        assert response.json["model_version"] == "fake-1"
        assert client.get("/health/ready").json == {"status": "ready", "log": "off"}
        assert client.get("/health/live").json == {"status": "alive"}
        assert len(reader.read) == 1

    def test_not_ready_until_the_warm_up_works_and_ready_after(self) -> None:
        reader = FakeReader(failure=ArtifactCorruptError("secret detail"))
        client = create_app(Settings(), reader).test_client()
        health = client.get("/health")
        assert health.status_code == 503
        assert health.json["status"] == "unhealthy"
        assert health.json["model_loaded"] is False
        assert health.json["error"]["code"] == "not_ready"
        assert "secret" not in health.text
        assert code_of(client.get("/health/ready")) == (503, "not_ready")
        refused = client.post("/predict", data=drawn_digit(), content_type="image/png")
        assert code_of(refused) == (503, "not_ready")
        assert refused.headers["Retry-After"] == "1"
        assert client.get("/health/live").status_code == 200
        reader.failure = None
        assert client.get("/health").status_code == 200

    def test_reader_that_sees_no_digit_in_the_warm_up_is_not_ready(self) -> None:
        reader = FakeReader()
        reader.digit = None  # type: ignore[assignment]
        reader.predict = lambda picture: FakeReader.predict(FakeReader(), blank_picture())  # type: ignore[method-assign]
        assert create_app(Settings(), reader).test_client().get("/health").status_code == 503

    def test_index_names_the_version_and_the_endpoints(self, client: FlaskClient) -> None:
        index = client.get("/api").json
        assert client.get("/").json == index
        assert index["name"] == "inkdigits"
        assert "POST /predict" in index["endpoints"]
        for endpoint in index["endpoints"]:
            method, path = endpoint.split()
            assert client.open(path, method=method).status_code != 404 or path == "/api/model"


class TestRequestIdsAndLog:
    def test_sane_request_id_comes_back(self, client: FlaskClient) -> None:
        for path in ("/health", "/nowhere"):
            response = client.get(path, headers={"X-Request-ID": "job-7.A_1"})
            assert response.headers["X-Request-ID"] == "job-7.A_1"

    @pytest.mark.parametrize("sent", ["", "a b", "x" * 65, "é", "<script>"])
    def test_other_request_ids_are_replaced(self, client: FlaskClient, sent: str) -> None:
        response = client.get("/health", headers={"X-Request-ID": sent})
        assert uuid.UUID(response.headers["X-Request-ID"])

    def test_one_line_a_request_with_what_an_operator_asks_for(
        self, client: FlaskClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        picture = drawn_digit()
        with caplog.at_level(logging.INFO):
            client.post(
                "/predict?name=somebody",
                data=picture,
                content_type="image/png",
                headers={"X-Request-ID": "abc"},
            )
        (record,) = caplog.records
        line = dict(record.fields)
        assert line.pop("duration_ms") > 0
        assert line == {
            "request_id": "abc",
            "method": "POST",
            "path": "/predict",
            "status": 200,
            "bytes_in": len(picture),
            "decision": "accept",
        }

    def test_line_of_a_batch_counts_its_pictures(
        self, client: FlaskClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            client.post("/predict", json={"images": [as_base64(drawn_digit()), "!"]})
        assert (caplog.records[-1].fields["pictures"], caplog.records[-1].fields["failed"]) == (
            2,
            1,
        )

    def test_line_of_a_refusal_has_its_code(
        self, client: FlaskClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            client.post("/predict")
        assert caplog.records[-1].fields["error"] == "empty_body"

    def test_successful_probes_are_logged_at_debug_only(
        self, client: FlaskClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            client.get("/health")
        assert [record.levelname for record in caplog.records] == ["DEBUG"]

    def test_creating_the_application_configures_no_logging(self) -> None:
        before = list(logging.getLogger().handlers)
        create_app(Settings(), FakeReader())
        assert logging.getLogger().handlers == before

    def test_answers_are_not_to_be_cached(self, client: FlaskClient) -> None:
        assert client.get("/health").headers["Cache-Control"] == "no-store"


def test_documented_error_codes_are_the_ones_that_there_are() -> None:
    table = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", API.read_text(encoding="utf-8"), re.MULTILINE)
    mapped = {(str(status), code) for status, code in STATUSES.values()}
    from_http = {(str(status), code) for code, status in HTTP_CODES.items()}
    assert len(table) == len(set(table))
    assert set(table) == mapped | from_http


def test_documented_answer_has_the_fields_of_the_real_one() -> None:
    example = re.search(r"```json\n(.*?)```", API.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    assert list(json.loads(example[1])) == FIELDS
