"""Traces, taken by a collector of the test's own; and nothing of them where none is named."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from support.fakes import FakeReader, send_digit
from support.local_http import served
from support.repository import TESTS
from support.server import free_port, run_to_its_end, running

from inkdigits.client import Client
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@dataclass
class Collector:
    """Takes OTLP over HTTP: spans as dictionaries."""

    url: str = ""
    spans: list[dict[str, Any]] = field(default_factory=list)

    def named(self, name: str) -> dict[str, Any]:
        (found,) = (span for span in self.spans if span["name"] == name)
        return found

    def take(self, path: str, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _values(resource.resource.attributes)["service.name"]
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                made = {"path": path, "service": service, "name": span.name}
                made |= {"trace": span.trace_id.hex(), "id": span.span_id.hex()}
                made |= {"parent": span.parent_span_id.hex(), "failed": span.status.code == 2}
                made |= {"start": span.start_time_unix_nano, "end": span.end_time_unix_nano}
                self.spans.append({**made, "attributes": _values(span.attributes)})


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    one, app = Collector(), Flask("collector")

    @app.post("/<path:path>")
    def take(path: str) -> str:
        packed = request.headers.get("Content-Encoding") == "gzip"
        one.take(f"/{path}", gzip.decompress(request.data) if packed else request.data)
        return ""

    with served(app) as one.url:
        yield one


def test_request_is_a_span_in_its_clients_trace_with_its_stages_inside(
    collector: Collector,
) -> None:
    app = create_app(Settings(page="off", otlp_endpoint=collector.url), FakeReader())
    path = "/predict?risk=0.01"
    answer = send_digit(app.test_client(), path, traceparent=PARENT, X_Request_ID="r1")
    assert answer.status_code == 200
    app.extensions["inkdigits.tracing"].shutdown()
    span = collector.named("POST /predict")
    assert (span["path"], span["service"]) == ("/v1/traces", "inkdigits")
    assert (span["trace"], span["parent"]) == (TRACE, "b7ad6b7169203331")
    assert span["attributes"] == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "url.path": "/predict",
        "inkdigits.request_id": "r1",
        "inkdigits.decision": "accept",
    }
    inference, preprocessing = collector.named("inference"), collector.named("preprocessing")
    assert inference["parent"] == preprocessing["parent"] == span["id"]
    assert inference["end"] - inference["start"] == 500_000
    assert preprocessing["end"] - preprocessing["start"] == 250_000
    assert preprocessing["end"] == inference["start"]


def test_refusal_is_traced_and_a_failure_of_ours_is_marked(collector: Collector) -> None:
    reader = FakeReader()
    app = create_app(Settings(page="off", otlp_endpoint=collector.url), reader)
    client = app.test_client()
    client.post("/predict", data=b"text", content_type="image/png")
    client.get("/no/such/path")
    reader.failure = RuntimeError("broken")
    client.post("/predict", json={"image": "AAAA"})
    app.extensions["inkdigits.tracing"].shutdown()
    outcomes = {
        (one["name"], one["attributes"].get("error.type"), one["failed"])
        for one in collector.spans
        if "http.request.method" in one["attributes"]
    }
    assert outcomes == {
        ("POST /predict", "not_an_image", False),
        ("POST /predict", "internal_error", True),
        ("GET", "not_found", False),
    }


def test_trace_goes_on_in_the_model_service(collector: Collector) -> None:
    settings = Settings(page="off", otlp_endpoint=collector.url)
    model = create_app(settings, FakeReader())
    with served(model) as url, Client(url) as reader:
        web = create_app(settings, reader)
        send_digit(web.test_client(), traceparent=PARENT)
    for app in (web, model):
        app.extensions["inkdigits.tracing"].shutdown()
    ours = [s for s in collector.spans if s["name"] == "POST /predict"]
    assert [s["trace"] for s in ours] == [TRACE] * 2
    (first,) = (s for s in ours if s["parent"] == "b7ad6b7169203331")
    (second,) = (s for s in ours if s is not first)
    assert second["parent"] == first["id"]


def test_served_request_has_its_wait_and_the_log_has_its_trace(collector: Collector) -> None:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "INKDIGITS_SLOTS": "1"}
    with running("--delay", "1", **settings) as service:
        with ThreadPoolExecutor(2) as pool:
            for asked in [pool.submit(service.predict) for _ in range(2)]:
                assert asked.result()[0] == 200
        service.process.terminate()
        assert service.process.wait(60) == 0
    spans = [span for span in collector.spans if span["name"] == "POST /predict"]
    (wait,) = (span for span in collector.spans if span["name"] == "queue")
    assert wait["parent"] in {span["id"] for span in spans}
    entries = [json.loads(line) for line in service.lines]
    lines = [entry for entry in entries if entry.get("path") == "/predict"]
    assert {line["trace_id"] for line in lines} == {span["trace"] for span in spans}


def test_nothing_of_opentelemetry_is_imported_where_no_collector_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from support.fakes import FakeReader; from inkdigits.serving.app import create_app\n"
        "from inkdigits.settings import Settings\n"
        "create_app(Settings(page='off'), FakeReader())\n"
        "assert not [n for n in sys.modules if n.startswith('opentelemetry.')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=TESTS)


def test_collector_without_the_library_is_an_error_at_start(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('not here')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['fake_service']\n"
        "from support import fake_service; fake_service.main()"
    )
    result = run_to_its_end(
        free_port(), program=["-c", code], OTEL_EXPORTER_OTLP_ENDPOINT="http://localhost:4318"
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: OTEL_EXPORTER_OTLP_ENDPOINT needs: pip install")
