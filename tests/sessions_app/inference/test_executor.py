"""From a call to its result: every call ends once, whatever the tool does."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from sessions_app.inference.errors import StreamStalled, ToolDenied, ToolError
from sessions_app.inference.events import (
    NEVER_BEGAN,
    AppEvent,
    Event,
    Origin,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
    publish,
    publishing_to,
)
from sessions_app.inference.executor import (
    CANCELLED,
    DefaultToolExecutor,
    PreparedCall,
    ToolAborted,
    ToolResult,
    ToolRun,
)
from sessions_app.inference.runner import Cancellation, InferenceRunner
from sessions_app.inference.steps import StepController
from sessions_app.inference.toolloop import ToolLoop
from sessions_app.inference.tools import MASK, Arguments, Tool, ToolContext, ToolRegistry, tool
from sessions_app.inference.turns import ToolCall, Turn, TurnMetadata
from sessions_app.testing import Gate, RecordingSink, ScriptedEngine

virtual = pytest.mark.virtual


class Bench:
    """An executor, the tools of a run, and what is published."""

    def __init__(self, *tools: Tool, executor: DefaultToolExecutor | None = None) -> None:
        self.sink = RecordingSink()
        self.executor = executor or DefaultToolExecutor()
        self.running = True
        self.run = ToolRun(
            registry=ToolRegistry(tools),
            session_id="s",
            inference_id="i",
            owner="o",
            user=None,
            ensure_running=self._ensure_running,
        )

    def _ensure_running(self) -> None:
        if not self.running:
            raise asyncio.CancelledError

    async def prepare(
        self, name: str, arguments: dict[str, Any] | str | None = None, call_id: str = "c"
    ) -> PreparedCall | ToolResult:
        given = {} if arguments is None else arguments
        call = ToolCall(call_id=call_id, name=name, arguments=given)
        with publishing_to(self.sink):
            return await self.executor.prepare(call, self.run)

    async def refused(self, name: str, arguments: dict[str, Any] | str | None = None) -> ToolResult:
        result = await self.prepare(name, arguments)
        assert isinstance(result, ToolResult)
        return result

    async def ready(self, name: str, arguments: dict[str, Any] | None, id: str) -> PreparedCall:
        prepared = await self.prepare(name, arguments, id)
        assert isinstance(prepared, PreparedCall)
        return prepared

    async def results(
        self, *names: str, arguments: dict[str, Any] | None = None
    ) -> Sequence[ToolResult]:
        """The results of calls to `names`, whose ids are c0, c1, …"""
        calls = [await self.ready(name, arguments, f"c{n}") for n, name in enumerate(names)]
        with publishing_to(self.sink):
            return await self.executor.execute(calls, self.run)

    async def result(self, name: str, arguments: dict[str, Any] | None = None) -> ToolResult:
        (result,) = await self.results(name, arguments=arguments)
        assert [event.status for event in self.finished] == [result.status]
        assert [event.result for event in self.finished] == [result.text]
        return result

    @property
    def finished(self) -> list[ToolCallFinished]:
        return [event for event in self.sink.events if isinstance(event, ToolCallFinished)]

    @property
    def notes(self) -> list[str]:
        return [event.note for event in self.sink.events if isinstance(event, ToolProgress)]


async def status_of(function: Callable[..., object], **options: Any) -> str:
    made = tool(**options)(function)
    return (await Bench(made).result(made.name)).status


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """The block takes no longer, by the clock of the running loop."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    yield
    assert loop.time() - began <= seconds


@tool
async def echo(text: str, times: int = 1) -> str:
    """Says it again."""
    return text * times


@tool
async def sleeper(seconds: float = 3600) -> str:
    await asyncio.sleep(seconds)
    return "awake"


def of_schema(parameters: dict[str, Any]) -> Tool:
    async def call(arguments: Arguments, context: ToolContext) -> str:
        return "called"

    return Tool(name="foreign", description="", parameters=parameters, call=call)


# --- Before a call runs ---------------------------------------------------------------------------


@virtual
async def test_a_call_that_fits_is_prepared_and_answered():
    bench = Bench(echo)
    assert (await bench.result("echo", {"text": "ha", "times": 2})).text == "haha"
    started, finished = bench.sink.events
    assert started == ToolCallStarted(call_id="c0", input={"text": "ha", "times": 2})
    assert isinstance(finished, ToolCallFinished)


@virtual
async def test_an_unknown_tool_says_which_there_are():
    result = await Bench(echo, sleeper).refused("ehco")
    assert result.status == "error"
    assert result.text == (
        "unknown tool 'ehco'; expected one of: echo, sleeper. Did you mean 'echo'?"
    )


@virtual
@pytest.mark.filterwarnings("ignore:Automatically retrieving")
async def test_a_schema_never_makes_us_fetch_an_address(monkeypatch):
    fetched: list[object] = []
    monkeypatch.setattr("urllib.request.urlopen", fetched.append)
    foreign = of_schema({"properties": {"a": {"$ref": "http://127.0.0.1:1/schema.json"}}})
    result = await Bench(foreign).refused("foreign", {"a": 1})
    assert result.text.startswith("the arguments of foreign cannot be checked: ")
    assert fetched == []


@virtual
async def test_a_schema_is_read_in_the_dialect_it_names():
    dialect = "http://json-schema.org/draft-07/schema#"
    pair = {"type": "array", "items": [{"type": "string"}, {"type": "integer"}]}
    bench = Bench(of_schema({"$schema": dialect, "properties": {"pair": pair}}))
    assert (await bench.result("foreign", {"pair": ["a", 1]})).text == "called"
    refused = await bench.refused("foreign", {"pair": ["a", "b"]})
    assert "'b' is not of type 'integer'" in refused.text


@virtual
@pytest.mark.parametrize("raw", ["{", '"text"', "", "not json"])
async def test_arguments_that_are_no_json_object_are_refused(raw: str):
    result = await Bench(echo).refused("echo", raw)
    assert result.status == "error"
    assert result.text == "the arguments of echo are not a JSON object; send one"


@virtual
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "arguments: 'text' is a required property"),
        ({"text": 1}, "text: 1 is not of type 'string'"),
        ({"text": "a", "times": "b"}, "times: 'b' is not of type 'integer'"),
        ({"text": "a", "x": 1}, "arguments: Additional properties are not allowed"),
    ],
)
async def test_arguments_that_do_not_fit_the_schema_say_where(
    arguments: dict[str, Any], problem: str
):
    result = await Bench(echo).refused("echo", arguments)
    assert result.status == "error"
    assert f"invalid arguments for echo: {problem}" in result.text


@virtual
@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "#/nowhere"}])
async def test_a_schema_that_is_none_is_a_result_and_not_a_crash(schema: dict[str, Any]):
    odd = Tool(name="odd", description="", parameters=schema, call=lambda a, c: None)
    result = await Bench(odd).refused("odd", {"x": 1})
    assert result.status == "error"
    assert "the arguments of odd cannot be checked" in result.text


@virtual
async def test_arguments_nested_beyond_reason_are_a_result_too():
    schema = {"type": "object", "additionalProperties": {"$ref": "#"}}
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    odd = Tool(name="odd", description="", parameters=schema, call=lambda a, c: None)
    assert (await Bench(odd).refused("odd", deep)).status == "error"


@virtual
async def test_a_huge_argument_makes_no_huge_message():
    assert len((await Bench(echo).refused("echo", {"text": ["x" * 10**6]})).text) < 1000


class Guarded(DefaultToolExecutor):
    """Authorises as the test says."""

    def __init__(self, *answers: BaseException | None) -> None:
        super().__init__()
        self._answers = list(answers)

    async def authorise(self, tool: Tool, arguments: Arguments, context: ToolContext) -> None:
        answer = self._answers.pop(0)
        if answer is not None:
            raise answer


@virtual
async def test_a_call_the_user_may_not_make_is_denied():
    result = await Bench(echo, executor=Guarded(ToolDenied("not you"))).refused(
        "echo", {"text": "a"}
    )
    assert (result.status, result.text) == ("denied", "not you")


@virtual
async def test_a_right_taken_away_while_the_call_waited_counts():
    bench = Bench(echo, executor=Guarded(None, ToolDenied("no longer")))
    result = await bench.result("echo", {"text": "a"})
    assert (result.status, result.text) == ("denied", "no longer")
    assert not any(isinstance(event, ToolCallStarted) for event in bench.sink.events)


@virtual
async def test_a_check_that_fails_lets_nobody_through(caplog: pytest.LogCaptureFixture):
    for answers in ([OSError("db")], [None, OSError("db")]):
        bench = Bench(echo, executor=Guarded(*answers))
        prepared = await bench.prepare("echo", {"text": "a"})
        if isinstance(prepared, PreparedCall):
            with publishing_to(bench.sink):
                (prepared,) = await bench.executor.execute([prepared], bench.run)
        assert isinstance(prepared, ToolResult)
        assert prepared.status == "error"
        assert "OSError: db" in caplog.text
        caplog.clear()


# --- Hooks ----------------------------------------------------------------------------------------


def with_hooks(*, pre: Any = None, post: Any = None) -> DefaultToolExecutor:
    return DefaultToolExecutor(
        pre_execute=[pre] if pre else (), post_execute=[post] if post else ()
    )


@virtual
async def test_a_hook_may_replace_the_arguments():
    async def louder(call: PreparedCall, context: ToolContext) -> Arguments:
        return {**call.arguments, "times": 3}

    bench = Bench(echo, executor=with_hooks(pre=louder))
    assert (await bench.result("echo", {"text": "a"})).text == "aaa"


@virtual
async def test_replaced_arguments_are_validated_again():
    async def broken(call: PreparedCall, context: ToolContext) -> Arguments:
        return {"text": 7}

    result = await Bench(echo, executor=with_hooks(pre=broken)).refused("echo", {"text": "a"})
    assert result.status == "error"
    assert result.text == "invalid arguments for echo: text: does not fit type"


@virtual
async def test_a_hook_may_refuse_a_call():
    async def never(call: PreparedCall, context: ToolContext) -> None:
        raise ToolDenied(f"not for {context.owner}")

    result = await Bench(echo, executor=with_hooks(pre=never)).refused("echo", {"text": "a"})
    assert (result.status, result.text) == ("denied", "not for o")


@virtual
async def test_a_hook_may_replace_the_result():
    async def shorter(call: PreparedCall, result: ToolResult, context: ToolContext) -> ToolResult:
        return ToolResult(
            call_id="made up", status="success", text=result.text[:1], custom_kind="card"
        )

    bench = Bench(echo, executor=with_hooks(post=shorter))
    result = await bench.result("echo", {"text": "abc"})
    assert result == ToolResult(call_id="c0", status="success", text="a", custom_kind="card")
    assert bench.finished[0].custom_kind == "card"


@virtual
@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit(1), ToolError("clear")])
async def test_a_hook_that_raises_is_a_failed_call(error: BaseException):
    async def before(call: PreparedCall, context: ToolContext) -> None:
        raise error

    async def after(call: PreparedCall, result: ToolResult, context: ToolContext) -> ToolResult:
        raise error

    first = await Bench(echo, executor=with_hooks(pre=before)).refused("echo", {"text": "a"})
    second = await Bench(echo, executor=with_hooks(post=after)).result("echo", {"text": "a"})
    assert first.status == second.status == "error"
    assert "secret" not in first.text + second.text


@virtual
async def test_a_hook_that_forgets_its_result_is_a_failed_call():
    async def forgets(call: PreparedCall, result: ToolResult, context: ToolContext) -> None: ...

    result = await Bench(echo, executor=with_hooks(post=forgets)).result("echo", {"text": "a"})
    assert result.status == "error"


@virtual
@pytest.mark.parametrize(
    "changes", [{"status": "weird"}, {"custom_kind": 7}, {"text": 7}, {"text": None}]
)
async def test_a_result_of_a_hook_that_is_none_is_a_failed_call(changes: dict[str, Any]):
    async def odd(call: PreparedCall, result: ToolResult, context: ToolContext) -> ToolResult:
        return replace(result, **changes)

    result = await Bench(echo, executor=with_hooks(post=odd)).result("echo", {"text": "a"})
    assert result.status == "error"
    assert isinstance(result.text, str)


# --- What a tool may do ---------------------------------------------------------------------------


@virtual
async def test_a_tool_error_is_a_sentence_for_the_model():
    @tool
    async def fails() -> None:
        raise ToolError("the shelf is empty")

    result = await Bench(fails).result("fails")
    assert (result.status, result.text) == ("error", "fails failed: the shelf is empty")


@virtual
async def test_a_tool_may_deny_by_itself():
    @tool
    async def denies() -> None:
        raise ToolDenied("not on Sundays")

    result = await Bench(denies).result("denies")
    assert (result.status, result.text) == ("denied", "not on Sundays")


@virtual
@pytest.mark.parametrize(
    "error",
    [ValueError("secret"), SystemExit(3), RecursionError(), GeneratorExit(), BaseException("x")],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_tool_raises_is_its_failure_and_only_the_log_has_it(
    error: BaseException, caplog: pytest.LogCaptureFixture
):
    @tool
    async def fails() -> None:
        raise error

    result = await Bench(fails).result("fails")
    assert result.status == "error"
    assert "secret" not in result.text
    reference = result.text.rpartition(" ")[2]
    assert f"reference {reference}" in caplog.text
    assert type(error).__name__ in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        SystemExit(3),
        KeyboardInterrupt(),
        StopIteration(),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_sync_tool_raises_is_its_failure(error: BaseException):
    def fails() -> None:
        raise error

    with at_most(5):
        assert await status_of(fails) == "error"


@virtual
async def test_a_tool_without_bottom_is_a_failed_call():
    async def falls() -> None:
        await falls()

    assert await status_of(falls) == "error"


@virtual
async def test_a_tool_that_cancels_itself_has_not_timed_out():
    @tool
    async def gives_up() -> None:
        raise asyncio.CancelledError

    result = await Bench(gives_up).result("gives_up")
    assert result.status == "error"
    assert result.text == "gives_up ended itself before it had a result"


async def test_a_sync_tool_runs_in_a_thread_and_reports_from_there():
    @tool
    def works(context: ToolContext) -> str:
        context.progress(0.5, "half")
        return threading.current_thread().name

    bench = Bench(works)
    assert (await bench.result("works")).text.startswith("webchat-tool-")
    assert bench.notes == ["half"]
    kinds = [type(event) for event in bench.sink.events]
    assert kinds == [ToolCallStarted, ToolProgress, ToolCallFinished]


class LoopSink(RecordingSink):
    """A sink that, like the coordinator, may be used in its event loop only."""

    def publish(self, event: Event, origin: Origin | None = None) -> None:
        asyncio.get_running_loop()
        super().publish(event, origin)


async def test_what_a_sync_tool_publishes_is_taken_up_by_the_event_loop_in_its_order():
    def moody() -> str:
        for n in range(9):
            publish(AppEvent(kind="mood", id="mood:1", props={"n": n}))
        return "ok"

    engine, sink = (
        ScriptedEngine([ToolCall(call_id="c", name="moody", arguments={})], []),
        LoopSink(),
    )
    runner = InferenceRunner(
        engine,
        loop=ToolLoop(DefaultToolExecutor(), StepController()),
        tools=ToolRegistry([tool(moody)]),
    )
    turn = Turn(metadata=TurnMetadata(inference_id="i"))
    await runner.run(turn, sink=sink, cancellation=Cancellation())
    told = [event for event in sink.events if isinstance(event, AppEvent | ToolCallFinished)]
    assert [event.props["n"] for event in told[:-1] if isinstance(event, AppEvent)] == [*range(9)]
    assert isinstance(told[-1], ToolCallFinished)
    assert told[-1].status == "success"


@virtual
async def test_progress_reported_from_a_task_of_nobodys_goes_to_the_calls_conversation():
    @tool
    async def relayed(context: ToolContext) -> str:
        async def relay() -> None:
            context.progress(0.5, "half")

        await asyncio.create_task(relay(), context=contextvars.Context())
        return "done"

    bench = Bench(relayed)
    assert (await bench.result("relayed")).text == "done"
    assert bench.notes == ["half"]


async def test_one_thread_does_for_calls_one_after_the_other():
    @tool
    def works() -> str:
        return threading.current_thread().name

    bench = Bench(works)
    assert {(await bench.results("works"))[0].text for _ in range(5)} == {"webchat-tool-1"}


def odd_values() -> list[tuple[str, object, str]]:
    cycle: list[object] = []
    cycle.append(cycle)
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]

    class Unprintable:
        def __repr__(self) -> str:
            raise ValueError

    return [
        ("text", "as it is", "as it is"),
        ("object", {"a": [1, None, True]}, '{"a":[1,null,true]}'),
        ("nothing", None, "null"),
        ("nan", {"x": math.nan}, '{"x":null}'),
        ("bytes", b"\0\1\2", "[3 bytes of binary data]"),
        ("cycle", cycle, "[[...]]"),
        ("deep", deep, "[an unprintable list]"),
        ("own", Unprintable(), "[an unprintable Unprintable]"),
        ("surrogate", "a\ud800", "a?"),
        ("big", 2**70, str(2**70)),
        ("class", object, "\"<class 'object'>\""),
    ]


@virtual
@pytest.mark.parametrize(
    ("value", "text"), [odd[1:] for odd in odd_values()], ids=[odd[0] for odd in odd_values()]
)
async def test_whatever_a_tool_returns_is_text_for_the_model(value: object, text: str):
    @tool
    async def returns() -> object:
        return value

    assert (await Bench(returns).result("returns")).text == text


@virtual
async def test_a_result_is_cut_at_64_kib_and_says_so():
    @tool
    async def floods() -> str:
        return "é" * 5_000_000

    text = (await Bench(floods).result("floods")).text
    note = "\n[cut: 10000000 bytes in all, the first 65536 are shown]"
    assert text == "é" * 32_768 + note


@virtual
async def test_a_result_of_exactly_64_kib_is_whole():
    @tool
    async def fills() -> str:
        return "x" * 65_536

    assert (await Bench(fills).result("fills")).text == "x" * 65_536


@virtual
async def test_a_failure_is_cut_too():
    @tool
    async def rants() -> None:
        raise ToolError("x" * 10**6)

    assert len((await Bench(rants).result("rants")).text) < 66_000


# --- Secrets --------------------------------------------------------------------------------------

SECRET = 'pass"word\n1'


@tool(secrets=frozenset({"password", "pin"}))
async def login(
    context: ToolContext, user: str, password: str, how: str, pin: int | None = None
) -> object:
    context.progress(note=f"trying {password}")
    if how == "text":
        return f"{user}:{password}:{pin}"
    if how == "json":
        return {"given": [password]}
    if how == "repr":
        cycle: list[object] = [password]
        cycle.append(cycle)
        return cycle
    if how == "denied":
        raise ToolDenied(f"wrong: {password}")
    if how == "error":
        raise ToolError(f"wrong: {password}")
    raise ValueError(f"wrong: {password}")


@virtual
@pytest.mark.parametrize("how", ["text", "json", "repr", "denied", "error", "crash"])
async def test_a_secret_is_in_no_event_no_result_and_no_log(
    how: str, caplog: pytest.LogCaptureFixture
):
    bench = Bench(login)
    arguments = {"user": "anna", "password": SECRET, "how": how, "pin": 4711}
    result = await bench.result("login", arguments)
    everything = f"{result}{bench.sink.events}{caplog.text}"
    for form in ("pass", "word", "4711"):
        assert form not in everything.replace("password", "")
    assert MASK in bench.notes[0]
    (started,) = [event for event in bench.sink.events if isinstance(event, ToolCallStarted)]
    assert started.input["password"] == started.input["pin"] == MASK


@virtual
async def test_a_secret_that_does_not_fit_the_schema_is_not_repeated():
    arguments = {"user": "anna", "password": ["hunter2"], "how": "text"}
    result = await Bench(login).refused("login", arguments)
    assert result.text == "invalid arguments for login: password: does not fit type"


@virtual
async def test_a_hook_that_refuses_does_not_give_the_secret_away():
    async def never(call: PreparedCall, context: ToolContext) -> None:
        raise ToolDenied(f"not with {call.arguments['password']}")

    bench = Bench(login, executor=with_hooks(pre=never))
    result = await bench.refused("login", {"user": "a", "password": SECRET, "how": "text"})
    assert result.text == f"not with {MASK}"


# --- Time -----------------------------------------------------------------------------------------


@virtual
async def test_a_tool_that_takes_too_long_times_out():
    @tool(timeout=2)
    async def slow() -> None:
        await asyncio.sleep(60)

    with at_most(2):
        result = await Bench(slow).result("slow")
    assert (result.status, result.text) == ("timeout", "slow did not answer within 2 seconds")


@virtual
async def test_what_a_tool_says_after_its_time_is_not_its_answer():
    @tool(timeout=2)
    async def slow() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "made it after all"
        return ""

    assert (await Bench(slow).result("slow")).status == "timeout"


@virtual
async def test_a_tool_that_swallows_its_cancellation_is_abandoned(
    caplog: pytest.LogCaptureFixture,
):
    gate = Gate("late")

    @tool(timeout=2)
    async def stubborn(context: ToolContext) -> str:
        while True:
            try:
                await gate.passed()
                context.progress(note="late news")
                return "late"
            except asyncio.CancelledError:
                continue

    bench = Bench(stubborn)
    with at_most(2.5):
        assert (await bench.result("stubborn")).status == "timeout"
    assert "tool stubborn ignored its cancellation and was abandoned" in caplog.text
    gate.open()
    await asyncio.sleep(1)
    assert bench.notes == []
    assert len(bench.finished) == 1


async def test_the_late_result_of_a_thread_is_thrown_away():
    release, ended = threading.Event(), threading.Event()

    @tool(timeout=0.05)
    def slow(context: ToolContext) -> str:
        release.wait(30)
        context.progress(note="late news")
        ended.set()
        return "late"

    bench = Bench(slow)
    with at_most(1):
        assert (await bench.result("slow")).status == "timeout"
    release.set()
    assert await asyncio.to_thread(ended.wait, 30)
    await asyncio.sleep(0)
    assert bench.notes == []
    assert len(bench.finished) == 1


async def test_a_function_in_a_thread_is_told_when_its_time_is_up():
    told, attempts = threading.Event(), 0

    @tool(timeout=0.05, on_error="retry", attempts=2)
    def patient(context: ToolContext) -> str:
        nonlocal attempts
        attempts += 1
        if attempts == 2:
            return f"again, told: {context.cancel.is_set()}"
        if context.cancel.wait(30):
            told.set()
        return "late"

    bench = Bench(patient, executor=DefaultToolExecutor(threads=1, backoff_seconds=0))
    assert (await bench.result("patient")).text == "again, told: False"
    assert told.is_set()


async def test_a_thread_that_hangs_does_not_take_the_others_places():
    release = threading.Event()

    @tool(timeout=0.05)
    def hangs() -> None:
        release.wait(30)

    @tool
    def works() -> str:
        return "done"

    bench = Bench(hangs, works, executor=DefaultToolExecutor(threads=2))
    results = await bench.results("hangs", "works", "works")
    assert [result.status for result in results] == ["timeout", "success", "success"]
    release.set()


async def test_a_call_that_waited_for_a_thread_in_vain_never_runs():
    release, ran = threading.Event(), threading.Event()

    @tool(timeout=0.3)
    def hangs() -> None:
        release.wait(30)

    @tool(timeout=0.05)
    def late() -> None:
        ran.set()

    @tool
    def works() -> str:
        return "done"

    bench = Bench(hangs, late, works, executor=DefaultToolExecutor(threads=1))
    results = await bench.results("hangs", "late")
    assert [result.status for result in results] == ["timeout", "timeout"]
    release.set()
    assert [result.status for result in await bench.results("works")] == ["success"]
    assert not ran.is_set()


# --- Again ----------------------------------------------------------------------------------------


class Flaky:
    """Fails as often as it is told to."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.keys: list[str] = []

    def tool(self, **options: Any) -> Tool:
        @tool(on_error="retry")
        async def flaky(context: ToolContext) -> str:
            self.keys.append(context.idempotency_key)
            if len(self.keys) <= self.failures:
                raise ToolError(f"failure {len(self.keys)}")
            return "at last"

        return replace(flaky, **options)


@virtual
async def test_a_tool_is_tried_again_with_growing_pauses():
    flaky = Flaky(failures=2)
    bench = Bench(flaky.tool())
    began = asyncio.get_running_loop().time()
    assert (await bench.result("flaky")).text == "at last"
    waited = asyncio.get_running_loop().time() - began
    assert 0.25 + 0.5 <= waited <= 0.5 + 1
    assert bench.notes == ["attempt 1 of 3 failed", "attempt 2 of 3 failed"]
    assert flaky.keys == ["i:c0"] * 3


@virtual
async def test_after_its_last_attempt_the_failure_stands():
    flaky = Flaky(failures=9)
    result = await Bench(flaky.tool(attempts=2)).result("flaky")
    assert (result.status, result.text) == ("error", "flaky failed: failure 2")


@virtual
async def test_without_the_policy_nothing_is_tried_again():
    flaky = Flaky(failures=1)
    assert (await Bench(flaky.tool(on_error="continue")).result("flaky")).status == "error"
    assert len(flaky.keys) == 1


@virtual
async def test_a_refusal_is_not_tried_again():
    tried: list[int] = []

    async def denies() -> None:
        tried.append(1)
        raise ToolDenied("no")

    assert await status_of(denies, on_error="retry") == "denied"
    assert len(tried) == 1


@virtual
async def test_a_timeout_is_tried_again_each_with_its_own_time():
    async def slow() -> None:
        await asyncio.sleep(60)

    with at_most(2 * 10 + 0.5):
        assert await status_of(slow, on_error="retry", attempts=2, timeout=10) == "timeout"


@virtual
async def test_a_pause_between_attempts_can_be_cancelled():
    bench = Bench(Flaky(9).tool(), executor=DefaultToolExecutor(backoff_seconds=1000))
    task = asyncio.create_task(bench.results("flaky"))
    await asyncio.sleep(10)
    assert bench.notes == ["attempt 1 of 3 failed"]
    with at_most(1):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [event.status for event in bench.finished] == ["cancelled"]


@virtual
async def test_no_attempt_begins_after_the_inference_was_cancelled():
    flaky = Flaky(9)
    bench = Bench(flaky.tool())
    task = asyncio.create_task(bench.results("flaky"))
    await asyncio.sleep(0.1)
    bench.running = False
    (result,) = await task
    assert result.status == "cancelled"
    assert len(flaky.keys) == 1


# --- Several --------------------------------------------------------------------------------------


@virtual
async def test_three_run_at_once_results_in_call_order_ends_in_their_own():
    running, most = 0, 0

    @tool
    async def work(context: ToolContext) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep({"c0": 3, "c1": 1, "c2": 2.5}.get(context.call_id, 1))
        running -= 1
        return context.call_id

    bench = Bench(work)
    with at_most(3):
        results = await bench.results(*["work"] * 5)
    assert most == 3
    assert [result.text for result in results] == ["c0", "c1", "c2", "c3", "c4"]
    ends = [event.call_id for event in bench.finished]
    assert ends[:3] == ["c1", "c3", "c2"]
    assert sorted(ends) == ["c0", "c1", "c2", "c3", "c4"]


@virtual
async def test_the_duration_of_a_call_does_not_count_its_wait_for_a_place(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("time.monotonic", asyncio.get_running_loop().time)
    bench = Bench(sleeper, executor=DefaultToolExecutor(parallel=1))
    await bench.results("sleeper", "sleeper", arguments={"seconds": 2})
    assert [event.duration_ms for event in bench.finished] == [2000, 2000]


@virtual
async def test_no_calls_have_no_results():
    assert list(await Bench().results()) == []


@virtual
async def test_a_failure_goes_to_the_model_and_the_others_go_on():
    bench = Bench(Flaky(9).tool(on_error="continue"), echo)
    first = await bench.ready("flaky", None, "c0")
    second = await bench.ready("echo", {"text": "a"}, "c1")
    with publishing_to(bench.sink):
        results = await bench.executor.execute([first, second], bench.run)
    assert [result.status for result in results] == ["error", "success"]


@virtual
async def test_a_failure_with_the_policy_abort_cancels_the_others():
    @tool(on_error="abort")
    async def vital() -> None:
        await asyncio.sleep(1)
        raise ToolError("the core is gone")

    @tool
    async def quick() -> str:
        return "done"

    bench = Bench(vital, sleeper, quick)
    with at_most(1.5), pytest.raises(ToolAborted, match="The tool vital failed") as caught:
        await bench.results("quick", "vital", "sleeper", "sleeper", "sleeper")
    statuses = [result.status for result in caught.value.results]
    assert statuses == ["success", "error", "cancelled", "cancelled", "cancelled"]
    assert len(bench.finished) == 5
    # The fourth and the fifth waited for a place: one of them never got one.
    assert sum(isinstance(event, ToolCallStarted) for event in bench.sink.events) == 4


@virtual
async def test_a_tool_with_the_policy_abort_that_succeeds_aborts_nothing():
    @tool(on_error="abort")
    async def vital() -> str:
        return "fine"

    results = await Bench(vital, echo).results("vital", "vital")
    assert [result.status for result in results] == ["success", "success"]


# --- Stop -----------------------------------------------------------------------------------------


async def stopped(bench: Bench, *names: str, after: float = 5) -> None:
    """Starts the calls, cancels them after a while, and checks that they end within a second."""
    task = asyncio.create_task(bench.results(*names))
    await asyncio.sleep(after)
    with at_most(1):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@virtual
async def test_stop_closes_every_call_once_also_those_that_wait():
    bench = Bench(sleeper)
    await stopped(bench, *["sleeper"] * 5)
    assert sorted(event.call_id for event in bench.finished) == ["c0", "c1", "c2", "c3", "c4"]
    assert {e.status for e in bench.finished} == {"cancelled"}
    ended = {event.call_id: event.result for event in bench.finished}
    assert [ended[f"c{n}"] for n in range(5)] == [CANCELLED] * 3 + [NEVER_BEGAN] * 2


@virtual
async def test_a_stop_that_is_there_already_closes_every_call_too():
    bench = Bench(echo)
    calls = [await bench.ready("echo", {"text": "a"}, f"c{n}") for n in range(2)]

    async def execute() -> None:
        with publishing_to(bench.sink):
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            await bench.executor.execute(calls, bench.run)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(execute())
    assert [event.status for event in bench.finished] == ["cancelled", "cancelled"]


@virtual
async def test_stop_does_not_wait_for_a_tool_that_swallows_it():
    gate = Gate("never")

    @tool
    async def stubborn() -> None:
        while not gate._opened.is_set():
            try:
                await gate.passed()
            except asyncio.CancelledError:
                continue

    bench = Bench(stubborn)
    await stopped(bench, "stubborn")
    assert [event.status for event in bench.finished] == ["cancelled"]
    gate.open()
    await asyncio.sleep(1)
    assert len(bench.finished) == 1


async def test_stop_does_not_wait_for_a_thread():
    release = threading.Event()

    @tool
    def slow() -> str:
        release.wait(30)
        return "late"

    bench = Bench(slow)
    await stopped(bench, "slow", after=0.05)
    assert [event.status for event in bench.finished] == ["cancelled"]
    release.set()


async def test_a_function_in_a_thread_is_told_of_a_stop():
    told = threading.Event()

    @tool
    def patient(context: ToolContext) -> None:
        if context.cancel.wait(30):
            told.set()

    await stopped(Bench(patient), "patient", after=0.05)
    assert await asyncio.to_thread(told.wait, 30)


@virtual
async def test_after_a_second_stop_too_every_call_is_closed_and_once():
    @tool
    async def tidy() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.3)

    bench = Bench(tidy)
    task = asyncio.create_task(bench.results("tidy", "tidy"))
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [event.status for event in bench.finished] == ["cancelled", "cancelled"]
    await asyncio.sleep(1)
    assert len(bench.finished) == 2


class Stalling(RecordingSink):
    """Takes nothing once `full`."""

    full = False

    def publish(self, event: Any, origin: Any = None) -> None:
        if self.full:
            raise StreamStalled("full")
        super().publish(event, origin)


@virtual
async def test_a_stalled_stream_ends_the_batch_and_is_no_tools_failure():
    bench = Bench(sleeper, echo)
    bench.sink = Stalling()
    calls = [
        await bench.ready("sleeper", {"seconds": 1}, "c0"),
        await bench.ready("sleeper", {"seconds": 3600}, "c1"),
    ]
    with publishing_to(bench.sink), at_most(2):
        task = asyncio.create_task(bench.executor.execute(calls, bench.run))
        await asyncio.sleep(0.5)
        bench.sink.full = True
        with pytest.raises(StreamStalled):
            await task


# --- What an approval is bound to -----------------------------------------------------------------


@virtual
async def test_the_digest_names_exactly_this_call():
    bench = Bench(echo, sleeper)
    first = await bench.ready("echo", {"text": "a", "times": 2}, "c0")
    same = await bench.ready("echo", {"times": 2, "text": "a"}, "c1")
    other = await bench.ready("echo", {"text": "a", "times": 3}, "c0")
    assert first.digest == same.digest != other.digest


@virtual
async def test_any_arguments_have_a_digest():
    @tool
    async def anything(x: Any) -> None: ...

    bench = Bench(anything)
    values: list[object] = [2**80, math.nan, "\ud800", [None], {"a": {}}]
    for value in values:
        assert len((await bench.ready("anything", {"x": value}, "c")).digest) == 64
