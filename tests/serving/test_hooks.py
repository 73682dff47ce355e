"""Request ids and log lines."""

from __future__ import annotations

import logging
import uuid

import pytest
from flask.testing import FlaskClient
from support.answers import as_base64
from support.fakes import drawn_digit


def test_sane_request_id_comes_back(client: FlaskClient) -> None:
    for path in ("/health", "/nowhere"):
        response = client.get(path, headers={"X-Request-ID": "job-7.A_1"})
        assert response.headers["X-Request-ID"] == "job-7.A_1"


@pytest.mark.parametrize("sent", ["", "a b", "x" * 65, "é", "<script>"])
def test_other_request_ids_are_replaced(client: FlaskClient, sent: str) -> None:
    response = client.get("/health", headers={"X-Request-ID": sent})
    assert uuid.UUID(response.headers["X-Request-ID"])


def test_one_line_a_request_with_what_an_operator_asks_for(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
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
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        client.post("/predict", json={"images": [as_base64(drawn_digit()), "!"]})
    assert (caplog.records[-1].fields["pictures"], caplog.records[-1].fields["failed"]) == (
        2,
        1,
    )


def test_line_of_a_refusal_has_its_code(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        client.post("/predict")
    assert caplog.records[-1].fields["error"] == "empty_body"


def test_successful_probes_are_logged_at_debug_only(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        client.get("/health")
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
