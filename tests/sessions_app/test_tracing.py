"""Spans of inferences, model calls and tools: how they nest and end, and what they do not say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sessions_app.inference.engine import Infer
from sessions_app.inference.errors import InferenceFailed
from sessions_app.inference.events import ModelCallFinished, TextDelta, ThinkingDelta, Usage
from sessions_app.inference.executor import DefaultToolExecutor
from sessions_app.inference.runner import InferenceRunner
from sessions_app.inference.toolloop import ToolLoop
from sessions_app.inference.tools import ToolRegistry, tool
from sessions_app.inference.turns import ToolCall, Turn
from sessions_app.manager import SessionManager
from sessions_app.profiles import Profile, Profiles
from sessions_app.session import Session
from sessions_app.testing import Gate, IgnoreCancel, RecordingSink, ScriptedEngine, Sleep, Step
from sessions_app.tracing import InferenceSpans
from sessions_app.values import PromptRequest

pytestmark = pytest.mark.virtual

CANARY = "canary-of-the-spans"
USAGE = Usage(input_tokens=7, output_tokens=5, cached_tokens=3)
provider = TracerProvider()
exporter = InMemorySpanExporter()
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = provider.get_tracer("tests")


@tool
async def look(what: str) -> str:
    """Look something up."""
    with tracer.start_as_current_span("inside look"):
        await asyncio.sleep(1)
    return f"{what} is there"


@tool(secrets={"key"})
async def unlock(what: str, key: str) -> str:
    """Open something."""
    raise ValueError(f"{key} does not fit {what}")


def engine_work() -> None:
    tracer.start_span("inside the engine").end()


def around(infer: Infer) -> Infer:
    async def middleware(turn: Turn) -> Turn:
        answered = await infer(turn)
        tracer.start_span("after the call").end()
        return answered

    return middleware


class Bench:
    """A manager whose inferences are traced. It is also its builder and its streams."""

    def __init__(self, *script: Step | Sequence[Step], content: bool = False) -> None:
        exporter.clear()
        self.engine = ScriptedEngine(*script, model="openai-chat:gpt-x")
        self.sinks: dict[str, RecordingSink] = {}
        self.manager = SessionManager(
            profiles=Profiles([Profile(slug="chat")]),
            builder=self,
            streams=self,
            tools=ToolRegistry(),
            observers=[InferenceSpans(tracer, content=content)],
        )

    def build(self, session: Session) -> InferenceRunner:
        return InferenceRunner(
            self.engine,
            middlewares=[around],
            loop=ToolLoop(DefaultToolExecutor(), session.steps),
            tools=ToolRegistry([look, unlock]),
            cancel_grace=1,
        )

    def sink(self, conv_id: str) -> RecordingSink:
        return self.sinks.setdefault(conv_id, RecordingSink())

    def watched(self, conv_id: str) -> bool:
        return False

    def size(self, conv_id: str) -> int:
        return 0

    async def unload(self, conv_id: str) -> None: ...

    def forget(self, conv_id: str) -> None: ...

    async def send(self, prompt: str = f"tell me about {CANARY}") -> None:
        await self.manager.submit(PromptRequest(owner="visitor:a", prompt=prompt, conv_id="conv"))

    async def answer(self) -> None:
        await self.send()
        await self.idle()

    async def idle(self) -> None:
        session = self.manager._sessions["conv"]
        while session.active is not None:
            await session.active.wait()


def spans() -> dict[str, ReadableSpan]:
    """The ended spans by their name; no name twice."""
    ended = exporter.get_finished_spans()
    by_name = {span.name: span for span in ended}
    assert len(by_name) == len(ended)
    return by_name


def parent_of(span: ReadableSpan) -> str | None:
    names = {
        ended.context.span_id: ended.name
        for ended in exporter.get_finished_spans()
        if ended.context is not None
    }
    return None if span.parent is None else names[span.parent.span_id]


async def test_what_runs_inside_nests_and_what_runs_beside_does_not():
    bench = Bench(
        [engine_work, ToolCall(call_id="c1", name="look", arguments={"what": "it"})],
        ["Here you are."],
    )
    with tracer.start_as_current_span("the request"):
        await bench.send()
    await bench.idle()
    tree = [(span.name, parent_of(span)) for span in exporter.get_finished_spans()]
    assert sorted(tree, key=str) == sorted(
        [
            ("the request", None),
            ("invoke_agent chat", "the request"),
            ("chat gpt-x", "invoke_agent chat"),
            ("inside the engine", "chat gpt-x"),
            ("after the call", "invoke_agent chat"),
            ("execute_tool look", "invoke_agent chat"),
            ("inside look", "execute_tool look"),
            ("chat gpt-x", "invoke_agent chat"),
            ("after the call", "invoke_agent chat"),
        ],
        key=str,
    )


async def test_each_span_has_the_attributes_of_the_conventions():
    bench = Bench(
        [
            Sleep(1),
            ThinkingDelta("hm"),
            TextDelta("one"),
            ModelCallFinished(stop_reason="length", usage=USAGE),
        ]
    )
    await bench.answer()
    inference, call = spans()["invoke_agent chat"], spans()["chat gpt-x"]
    shared = {
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.conversation.id": "conv",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 3,
    }
    told = dict(call.attributes or {})
    assert told.pop("gen_ai.response.time_to_first_chunk") >= 0  # type: ignore[operator]
    assert told == {"gen_ai.operation.name": "chat", "gen_ai.request.stream": True, **shared}
    told = dict(inference.attributes or {})
    assert told.pop("webchat.inference.id") == bench.engine.turns[0].metadata.inference_id
    assert told == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "chat",
        "webchat.status": "completed",
        **shared,
    }
    assert (inference.kind, call.kind) == (trace.SpanKind.INTERNAL, trace.SpanKind.CLIENT)


async def test_a_tool_is_a_span_when_it_ran_with_its_end():
    bench = Bench(
        [
            ToolCall(call_id="c1", name="look", arguments={"what": "it"}),
            ToolCall(call_id="c2", name="unlock", arguments={"what": "it", "key": CANARY}),
            ToolCall(call_id="c3", name="made_up", arguments={}),
            ToolCall(call_id="c4", name="look", arguments={"wrong": 1}),
        ],
        ["Done."],
    )
    await bench.answer()
    tools = [s for s in exporter.get_finished_spans() if s.name.startswith("execute_tool")]
    assert {span.name: dict(span.attributes or {}) for span in tools} == {
        "execute_tool look": {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "look",
            "gen_ai.tool.call.id": "c1",
            "gen_ai.tool.type": "function",
            "webchat.status": "success",
        },
        "execute_tool unlock": {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "unlock",
            "gen_ai.tool.call.id": "c2",
            "gen_ai.tool.type": "function",
            "webchat.status": "error",
            "error.type": "error",
        },
    }


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("an engine's failure", "failed"),
        ("a bug", "failed"),
        ("a stop", "cancelled"),
        ("a stop that is ignored", "cancelled"),
    ],
)
async def test_however_it_ends_every_span_ends_once_and_says_how(how: str, status: str):
    gate = Gate("stop me")
    steps: dict[str, Step] = {
        "an engine's failure": InferenceFailed(f"it failed at {CANARY}"),
        "a bug": ValueError(CANARY),
        "a stop": gate,
        "a stop that is ignored": IgnoreCancel(gate),
    }
    bench = Bench(["half an answer ", steps[how]])
    await bench.send()
    if status == "cancelled":
        await asyncio.sleep(1)
        await bench.manager.cancel("conv")
    await bench.idle()
    assert set(spans()) == {"invoke_agent chat", "chat gpt-x"}
    for span in spans().values():
        assert span.attributes is not None
        assert span.attributes["webchat.status"] == status
        is_failure = status == "failed"
        assert (span.status.status_code is trace.StatusCode.ERROR) is is_failure
        assert span.attributes.get("error.type") == ("failed" if is_failure else None)
        assert CANARY not in span.to_json()
    gate.open()


async def test_a_prompt_that_waited_belongs_to_who_sent_it():
    gate = Gate("busy")
    bench = Bench([gate], ["two"])
    for name in ("first request", "second request"):
        with tracer.start_as_current_span(name):
            await bench.send()
    gate.open()
    await bench.idle()
    inferences = [s for s in exporter.get_finished_spans() if s.name == "invoke_agent chat"]
    assert [parent_of(span) for span in inferences] == ["first request", "second request"]


async def test_no_word_is_in_a_span_unless_that_is_asked_for():
    script: list[list[Step]] = [
        [
            f"I shall unlock {CANARY}",
            ToolCall(call_id="c1", name="look", arguments={"what": CANARY}),
        ],
        [f"an answer with {CANARY}"],
    ]
    await Bench(*script).answer()
    assert all(CANARY not in span.to_json() for span in exporter.get_finished_spans())
    await Bench(*script, content=True).answer()
    inference = spans_by_prefix("invoke_agent").attributes or {}
    assert json.loads(str(inference["gen_ai.input.messages"])) == [
        {"role": "user", "parts": [{"type": "text", "content": f"tell me about {CANARY}"}]}
    ]
    [answer] = json.loads(str(inference["gen_ai.output.messages"]))
    assert answer["parts"][0]["content"].endswith(f"an answer with {CANARY}")
    assert (answer["role"], answer["finish_reason"]) == ("assistant", "stop")
    tool_span = spans_by_prefix("execute_tool").attributes or {}
    assert json.loads(str(tool_span["gen_ai.tool.call.arguments"])) == {"what": CANARY}
    assert tool_span["gen_ai.tool.call.result"] == f"{CANARY} is there"


async def test_declared_secrets_stay_masked_where_words_are_asked_for():
    arguments = {"what": "the door", "key": "sesame-4711"}
    bench = Bench(
        [ToolCall(call_id="c1", name="unlock", arguments=arguments)], ["ok"], content=True
    )
    await bench.answer()
    told = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "the door" in told
    assert "sesame-4711" not in told


def spans_by_prefix(prefix: str) -> ReadableSpan:
    [found] = [s for s in exporter.get_finished_spans() if s.name.startswith(prefix)]
    return found
