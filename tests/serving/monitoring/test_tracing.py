"""Traces, taken by a collector of the test's own; and nothing of them where none is named."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.fakes import FakeReader, drawn_digit
from support.local_http import served
from support.repository import TESTS
from support.server import free_port, run_to_its_end, running

from inkdigits.client import Client
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Collector:
    """Takes OTLP over HTTP: spans as dictionaries."""

    def __init__(self) -> None:
        spans: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
                    ExportTraceServiceRequest,
                )

                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                sent = ExportTraceServiceRequest.FromString(body)
                for resource in sent.resource_spans:
                    service = _values(resource.resource.attributes)["service.name"]
                    for scope in resource.scope_spans:
                        spans.extend(
                            {
                                "path": self.path,
                                "service": service,
                                "name": span.name,
                                "trace": span.trace_id.hex(),
                                "id": span.span_id.hex(),
                                "parent": span.parent_span_id.hex(),
                                "start": span.start_time_unix_nano,
                                "end": span.end_time_unix_nano,
                                "attributes": _values(span.attributes),
                                "failed": span.status.code == 2,
                            }
                            for span in scope.spans
                        )
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self.spans = spans
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def named(self, name: str) -> dict[str, Any]:
        (found,) = (span for span in self.spans if span["name"] == name)
        return found


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    one = Collector()
    thread = threading.Thread(target=one.server.serve_forever)
    thread.start()
    yield one
    one.server.shutdown()
    thread.join()
    one.server.server_close()


def test_request_is_a_span_in_its_clients_trace_with_its_stages_inside(
    collector: Collector,
) -> None:
    app = create_app(Settings(page="off", otlp_endpoint=collector.url), FakeReader())
    headers = {"traceparent": PARENT, "X-Request-ID": "r1"}
    answer = app.test_client().post(
        "/predict?risk=0.01", data=drawn_digit(), content_type="image/png", headers=headers
    )
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
        web.test_client().post(
            "/predict",
            data=drawn_digit(),
            content_type="image/png",
            headers={"traceparent": PARENT},
        )
    for app in (web, model):
        app.extensions["inkdigits.tracing"].shutdown()
    ours = [s for s in collector.spans if s["name"] == "POST /predict"]
    assert [s["trace"] for s in ours] == [TRACE] * 2
    (first,) = (s for s in ours if s["parent"] == "b7ad6b7169203331")
    (second,) = (s for s in ours if s is not first)
    assert second["parent"] == first["id"]


def test_served_request_has_its_wait_and_the_log_has_its_trace(collector: Collector) -> None:
    with running(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as service:
        service.predict()
        service.process.terminate()
        assert service.process.wait(60) == 0
    span = collector.named("POST /predict")
    waits = [s for s in collector.spans if s["name"] == "queue" and s["parent"] == span["id"]]
    assert len(waits) == 1
    assert waits[0]["start"] == span["start"]
    entries = [json.loads(line) for line in service.lines]
    (line,) = (e for e in entries if e.get("path") == "/predict")
    assert line["trace_id"] == span["trace"]


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
