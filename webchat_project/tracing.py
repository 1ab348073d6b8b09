"""Where spans go. Import it only where WEBCHAT['TRACING'] is on."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def tracer() -> trace.Tracer:
    """The tracer of the process's provider, which is made here unless there is one already.

    What `opentelemetry-instrument` or an app has set up stays. Else spans go out by OTLP over HTTP,
    as the variables OTEL_… say: endpoint, headers, sampler, service name. At the end of the process
    the last ones are sent.
    """
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(exporting())
    return trace.get_tracer("webchat")


def exporting() -> TracerProvider:
    """A provider that sends its spans in batches, from a thread of its own."""
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "webchat"}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
