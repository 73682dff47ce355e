import logging
import uuid
from types import SimpleNamespace

from flask import request, url_for
from support.answers import as_base64, code_of
from support.fakes import drawn_digit, send_digit


def test_sane_request_id_comes_back_and_others_are_replaced(client):
    for path in ("/health", "/nowhere"):
        response = client.get(path, headers={"X-Request-ID": "job-7.A_1"})
        assert response.headers["X-Request-ID"] == "job-7.A_1"
    for sent in ("", "a b", "x" * 65, "é", "<script>"):
        response = client.get("/health", headers={"X-Request-ID": sent})
        assert uuid.UUID(response.headers["X-Request-ID"]), sent


def test_one_line_a_request_with_what_an_operator_asks_for(client, caplog):
    picture = drawn_digit()
    caplog.set_level(logging.DEBUG, logger="inkdigits")
    send_digit(client, "/predict?record=false", X_Request_ID="abc")
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
        "model_version": "fake-1",
    }
    client.post("/predict", json={"images": [as_base64(picture), "!"]})
    fields = caplog.records[-1].fields
    assert (fields["pictures"], fields["failed"]) == (2, 1)
    client.post("/predict")
    assert caplog.records[-1].fields["error"] == "empty_body"
    client.get("/health")  # a probe
    assert [record.levelname for record in caplog.records] == ["INFO"] * 3 + ["DEBUG"]


def test_body_that_stops_to_come_is_waited_for_once(client):
    waited = []

    def read(_size=-1):
        waited.append(1)
        raise BlockingIOError

    sent = {
        "wsgi.input": SimpleNamespace(read=read),
        "CONTENT_LENGTH": "1000",
        "CONTENT_TYPE": "image/png",
    }
    response = client.post("/predict", environ_overrides=sent)
    assert (code_of(response), len(waited)) == ((400, "incomplete_body"), 1)


def test_client_that_goes_while_it_sends_too_much_is_no_error_of_the_service(client, caplog):
    def read(_size=-1):
        raise ConnectionResetError

    sent = {"wsgi.input": SimpleNamespace(read=read), "CONTENT_LENGTH": str(10**9)}
    response = client.post("/predict", environ_overrides=sent)
    assert code_of(response) == (413, "body_too_large")
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_head_gets_the_headers_of_the_answer_and_no_body(client):
    whole, head = client.get("/health/live"), client.head("/health/live")
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == str(len(whole.data))


def test_addresses_of_pages_have_the_path_prefix_and_the_host_that_was_asked_for(client):
    app = client.application
    asked = {"base_url": "https://ü.example:8443/digits", "query_string": {"q": "é"}}
    with app.test_request_context("/health", **asked):
        assert url_for("service.live") == "/digits/health/live"
        assert request.url_rule.rule == "/health"
