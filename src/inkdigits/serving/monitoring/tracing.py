"""Traces of requests by OpenTelemetry, sent to a collector; the ``tracing`` extra.

A request is one span, by the semantic conventions for HTTP servers. Its children are the wait for
a slot, preprocessing and inference. Spans hold no pictures, predictions, addresses or queries.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, Response, g, request
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from inkdigits.client import traceparent

if TYPE_CHECKING:
    from inkdigits.decision.prediction import Prediction
    from inkdigits.serving.monitoring.metrics import Metrics

_MILLISECOND: Final = 1_000_000


def install(app: Flask, endpoint: str, metrics: Metrics, version: str) -> None:
    """Trace requests: after any fork, and before the application has hooks of its own."""
    resource = Resource.create({"service.version": version})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "inkdigits"}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces")))
    app.extensions["inkdigits.tracing"] = provider
    spans = _RequestSpans(provider, version)
    app.before_request(spans.begin)
    app.after_request(spans.describe)
    app.teardown_request(spans.end)
    metrics.tell(spans.note)


class _RequestSpans:
    """The span of the request that the thread serves, kept in ``flask.g``."""

    def __init__(self, provider: TracerProvider, version: str) -> None:
        self._tracer = provider.get_tracer("inkdigits", version)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self) -> None:
        rule = None if request.url_rule is None else request.url_rule.rule
        # Strangers choose paths; a name for each would be of no use.
        span = self._tracer.start_span(
            request.method if rule is None else f"{request.method} {rule}",
            context=self._propagator.extract(request.headers),
            kind=SpanKind.SERVER,
            start_time=time.time_ns(),
            attributes={"http.request.method": request.method, "url.path": request.path},
        )
        if rule is not None:
            span.set_attribute("http.route", rule)
        where = span.get_span_context()
        g.span, g.spent, g.read_at = span, (0.0, 0.0), 0
        asked: Any = request
        trace_id = asked.trace_id = f"{where.trace_id:032x}"
        traceparent.set(f"00-{trace_id}-{where.span_id:016x}-{where.trace_flags:02x}")

    def note(self, prediction: Prediction) -> None:
        if "span" not in g:
            return
        # A batch is read as a whole before its first prediction is noted.
        g.read_at = g.read_at or time.time_ns()
        preprocessing, inference = g.spent
        g.spent = (preprocessing + prediction.preprocessing_ms, inference + prediction.inference_ms)

    def describe(self, response: Response) -> Response:
        span: Span = g.span
        asked: Any = request
        span.set_attribute("http.response.status_code", response.status_code)
        span.set_attribute("inkdigits.request_id", asked.request_id)
        if asked.error_code is not None:
            span.set_attribute("error.type", asked.error_code)
        for name, value in asked.outcome.items():
            span.set_attribute(f"inkdigits.{name}", value)
        if response.status_code >= 500:
            span.set_status(Status(StatusCode.ERROR))
        if g.read_at:
            self._add_stages(span, asked.waited)
        return response

    def _add_stages(self, span: Span, waited: float) -> None:
        context, end = set_span_in_context(span), g.read_at
        preprocessing, inference = g.spent
        stages = {"inference": inference, "preprocessing": preprocessing, "queue": waited * 1000}
        for name, milliseconds in stages.items():
            start = end - int(milliseconds * _MILLISECOND)
            if start < end:
                self._tracer.start_span(name, context=context, start_time=start).end(end)
            end = start

    def end(self, _error: BaseException | None) -> None:
        span: Span | None = g.pop("span", None)
        if span is not None:
            span.end()
            traceparent.set(None)
