"""Spans leave the process where tracing is on, to whom the environment or the app names."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chat.testing import ChatClient
from sessions_app.testing import ScriptedEngine
from webchat_project.testing import running_hub
from webchat_project.tracing import exporting

Posts = list[tuple[str, bytes]]


@pytest.fixture
def collector(monkeypatch) -> Iterator[Posts]:
    """A stand-in for whoever collects spans, named by the environment. What it was sent."""
    posts: Posts = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posts.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield posts
        server.shutdown()
        thread.join(timeout=30)


@pytest.mark.parametrize("name", ["webchat", "the-support-desk"])
def test_spans_go_where_the_environment_says_under_the_services_name(
    collector: Posts, monkeypatch, name: str
):
    if name != "webchat":
        monkeypatch.setenv("OTEL_SERVICE_NAME", name)
    provider = exporting()
    provider.get_tracer("tests").start_span("a span of ours").end()
    provider.shutdown()
    [(path, body)] = collector
    assert path == "/v1/traces"
    assert b"a span of ours" in body
    assert name.encode() in body


@pytest.mark.django_db
@pytest.mark.parametrize("on", [False, True])
async def test_a_provider_that_is_there_gets_the_spans_where_tracing_is_on(settings, on: bool):
    exporter = InMemorySpanExporter()
    there = trace.get_tracer_provider()
    if isinstance(there, trace.ProxyTracerProvider):
        there = TracerProvider()
        trace.set_tracer_provider(there)
    assert isinstance(there, TracerProvider)
    there.add_span_processor(SimpleSpanProcessor(exporter))
    settings.WEBCHAT = {"PROFILES": [{"slug": "default"}], "TRACING": on}
    async with running_hub(engine=ScriptedEngine("hello")), ChatClient() as anna:
        await anna.ask("hi")
    exporter.shutdown()
    names = {span.name for span in exporter.get_finished_spans()}
    assert names == ({"invoke_agent default", "chat scripted"} if on else set())
    assert trace.get_tracer_provider() is there
