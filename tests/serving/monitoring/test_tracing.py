import gzip
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from flask import Flask, request
from support.fakes import FakeReader, send_digit
from support.local_http import served
from support.server import free_port, running

from inkdigits.client import Client
from inkdigits.errors import BackendUnavailableError
from inkdigits.serving.app import create_app
from inkdigits.serving.preflight import check
from inkdigits.settings import Settings

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Collector:
    """Takes OTLP over HTTP: spans as dictionaries."""

    def __init__(self):
        self.url, self.spans = "", []

    def named(self, name):
        return [span for span in self.spans if span["name"] == name]

    def take(self, path, body):
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

        request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            service = _values(resource.resource.attributes)["service.name"]
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                made = {"path": path, "service": service, "name": span.name}
                made |= {"trace": span.trace_id.hex(), "id": span.span_id.hex()}
                made |= {"parent": span.parent_span_id.hex(), "failed": span.status.code == 2}
                made |= {"start": span.start_time_unix_nano, "end": span.end_time_unix_nano}
                self.spans.append({**made, "attributes": _values(span.attributes)})


def _values(attributes):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@pytest.fixture
def collector():
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    one, app = Collector(), Flask("collector")

    @app.post("/<path:path>")
    def take(path):
        packed = request.headers.get("Content-Encoding") == "gzip"
        one.take(f"/{path}", gzip.decompress(request.data) if packed else request.data)
        return ""

    with served(app) as one.url:
        yield one


@contextmanager
def traced(collector, reader=None):
    app = create_app(Settings(page="off", otlp_endpoint=collector.url), reader or FakeReader())
    yield app
    app.extensions["inkdigits.tracing"].shutdown()


def test_request_is_a_span_in_its_clients_trace_with_its_stages_inside(collector):
    with traced(collector) as app:
        path = "/predict?risk=0.01"
        answer = send_digit(app.test_client(), path, traceparent=PARENT, X_Request_ID="r1")
        assert answer.status_code == 200
    (span,) = collector.named("POST /predict")
    assert (span["path"], span["service"]) == ("/v1/traces", "inkdigits")
    assert (span["trace"], span["parent"]) == (TRACE, "b7ad6b7169203331")
    assert span["attributes"] == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "url.path": "/predict",
        "inkdigits.request_id": "r1",
        "inkdigits.decision": "accept",
        "inkdigits.model_version": "fake-1",
    }
    (inference,), (preprocessing,) = map(collector.named, ("inference", "preprocessing"))
    assert inference["parent"] == preprocessing["parent"] == span["id"]
    assert inference["end"] - inference["start"] == 500_000
    assert preprocessing["end"] - preprocessing["start"] == 250_000
    assert preprocessing["end"] == inference["start"]


def test_refusal_is_traced_and_a_failure_of_ours_is_marked(collector):
    reader = FakeReader()
    with traced(collector, reader) as app:
        client = app.test_client()
        client.post("/predict", data=b"text", content_type="image/png")
        client.get("/no/such/path")
        reader.failure = RuntimeError("broken")
        client.post("/predict", json={"image": "AAAA"})
    assert {
        (one["name"], one["attributes"].get("error.type"), one["failed"])
        for one in collector.spans
        if "http.request.method" in one["attributes"]
    } == {
        ("POST /predict", "not_an_image", False),
        ("POST /predict", "internal_error", True),
        ("GET", "not_found", False),
    }


def test_trace_goes_on_in_the_model_service(collector):
    with (
        traced(collector) as model,
        served(model) as url,
        Client(url) as reader,
        traced(collector, reader) as web,
    ):
        send_digit(web.test_client(), traceparent=PARENT)
    first, second = sorted(collector.named("POST /predict"), key=lambda span: span["start"])
    assert first["trace"] == second["trace"] == TRACE
    assert (first["parent"], second["parent"]) == ("b7ad6b7169203331", first["id"])


@pytest.mark.e2e
def test_served_request_has_its_wait_and_the_log_has_its_trace(collector):
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "INKDIGITS_SLOTS": "1"}
    with running("--delay", "1", **settings) as service:
        with ThreadPoolExecutor(2) as pool:
            for asked in [pool.submit(service.predict) for _ in range(2)]:
                assert asked.result()[0] == 200
        service.process.terminate()
        assert service.process.wait(60) == 0
    spans = collector.named("POST /predict")
    # The first request may wait a moment too.
    waits = {wait["parent"] for wait in collector.named("queue")}
    assert waits
    assert waits <= {span["id"] for span in spans}
    entries = [json.loads(line) for line in service.lines]
    lines = [entry for entry in entries if entry.get("path") == "/predict"]
    assert {line["trace_id"] for line in lines} == {span["trace"] for span in spans}


def test_collector_without_the_library_is_an_error_at_start(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    settings = Settings(port=free_port(), otlp_endpoint="http://localhost:4318")
    message = "OTEL_EXPORTER_OTLP_ENDPOINT needs OpenTelemetry, which"
    with pytest.raises(BackendUnavailableError, match=message):
        check(settings, lambda _: FakeReader())
