"""The awkward moments, one named test for each.

Every test ends alike: the frames in the log break no rule of the protocol, and the history that the
next request sends is one that the strictest provider accepts.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_app.inference.errors import (
    InferenceFailed,
    KeyReused,
    NoActiveInference,
    NotQueued,
    QueueFull,
    ToolDenied,
    ToolError,
)
from sessions_app.inference.events import (
    NEVER_BEGAN,
    InferenceFinished,
    ModelCallFinished,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from sessions_app.inference.executor import CANCELLED, RESULT_MAX_BYTES, DefaultToolExecutor
from sessions_app.inference.tools import Arguments, Tool, ToolContext, tool
from sessions_app.inference.turns import Block, LlmText, ToolCall, ToolUse, Turn, User
from sessions_app.profiles import Profile
from sessions_app.store import StoredConversation
from sessions_app.testing import Gate, GatedTool, IgnoreCancel, ScriptedEngine, Sleep, Step
from sessions_app.values import Queued, Started
from tests.moments.bench import CONV, Bench, call, ends, kinds, model, of, said

pytestmark = pytest.mark.usefixtures("log_place")
virtual = pytest.mark.virtual


def uses(blocks: list[Block]) -> list[tuple[str, str]]:
    """The results as the model reads them."""
    return [(block.status, block.text) for block in blocks if isinstance(block, ToolUse)]


def statuses(frames: list[dict[str, Any]]) -> dict[str, str]:
    """How the calls ended, by id, in the order of their ends."""
    return {frame["id"]: frame["data"]["status"] for frame in of(frames, "tool.done")}


FAILURE = InferenceFailed("The model is gone.")


@tool
async def echo(text: str = "ha") -> str:
    return text


# Cancel


@virtual
async def test_cancel_before_the_first_token():
    gate = Gate("silence")
    bench = Bench(model([gate, "too late"]))
    await bench.ask("one")
    await gate.reached()
    await bench.cancel()
    blocks = await bench.next_request()
    frames = await bench.lawful()
    assert kinds(frames)[:3] == ["chat.message", "inference.started", "inference.finished"]
    assert ends(frames) == ["cancelled", "completed"]
    assert said(blocks) == ["[no answer: stopped]"]


@virtual
async def test_cancel_before_the_engine_is_asked():
    bench = Bench(model(["never said"]))
    asking = asyncio.create_task(bench.ask("one"))
    await asyncio.sleep(0)
    await bench.cancel()
    await asking
    blocks = await bench.next_request()
    assert ends(await bench.lawful()) == ["cancelled", "completed"]
    assert said(blocks) == ["[no answer: stopped]"]
    assert len(bench.model.turns) == 1


@virtual
async def test_cancel_in_text():
    gate = Gate("middle")
    bench = Bench(model(["Hel", gate, "lo"]))
    await bench.ask("one")
    await gate.reached()
    await bench.cancel()
    blocks = await bench.next_request()
    frames = await bench.lawful()
    final = of(frames, "llm.final")[0]
    assert final["data"] == {"text": "Hel", "status": "stopped"}
    assert ends(frames) == ["cancelled", "completed"]
    [partial] = [block for block in blocks if isinstance(block, LlmText)]
    assert (partial.text, partial.stopped) == ("Hel", True)


@virtual
@pytest.mark.parametrize("failing", [False, True])
async def test_what_is_cut_off_before_a_word_is_no_word(failing: bool):
    gate = Gate("middle")
    bench = Bench(model([" \n", gate, *([FAILURE] if failing else [])]))
    await bench.ask("one")
    await gate.reached()
    if failing:
        gate.open()
    else:
        await bench.cancel()
    blocks = await bench.next_request()
    assert said(blocks) == [f"[no answer: {'failed' if failing else 'stopped'}]"]


@virtual
@pytest.mark.parametrize("cut", [False, True])
async def test_half_a_character_does_not_stay_in_the_history(cut: bool):
    gate = Gate("middle")
    bench = Bench(model([TextDelta("a\ud83d"), TextDelta("\ude00 b\ud83d"), gate]))
    await bench.ask("one")
    await gate.reached()
    if cut:
        await bench.cancel()
    gate.open()
    blocks = await bench.next_request()
    assert said(blocks) == ["a😀 b\ufffd"]
    [first, _] = of(await bench.lawful(), "llm.final")
    assert first["data"]["text"] == "a😀 b\ufffd"


@virtual
async def test_cancel_in_thinking():
    gate = Gate("middle")
    bench = Bench(model([ThinkingDelta("hm"), gate]))
    await bench.ask("one")
    await gate.reached()
    await bench.cancel()
    blocks = await bench.next_request()
    frames = await bench.lawful()
    assert of(frames, "llm.thinking.final")[0]["data"] == {"text": "hm", "status": "stopped"}
    assert said(blocks) == ["[no answer: stopped]"]


@virtual
async def test_cancel_in_a_tool():
    slow = GatedTool(echo)
    calls = [call("echo", id) for id in ("a", "b", "c", "d")]
    bench = Bench(model(["so", *calls]), tools=[slow.tool])
    await bench.ask("one")
    await slow.gate.reached()
    await bench.cancel()
    blocks = await bench.next_request()
    frames = await bench.lawful()
    assert statuses(frames) == dict.fromkeys("abcd", "cancelled")
    never = "the fourth waited for a place, and never began"
    assert uses(blocks) == [("cancelled", CANCELLED)] * 3 + [("cancelled", NEVER_BEGAN)], never
    assert ends(frames) == ["cancelled", "completed"]
    shown = {frame["id"]: frame["data"]["result"] for frame in of(frames, "tool.result")}
    assert [shown[id] for id in "abcd"] == [text for _, text in uses(blocks)]
    assert len(slow.calls) == 3, never


async def test_cancel_in_a_tool_that_runs_in_a_thread():
    begun, release = threading.Event(), threading.Event()

    @tool
    def hangs(context: ToolContext) -> str:
        begun.set()
        release.wait(30)
        context.progress(note="late news")
        return "late"

    executor = DefaultToolExecutor()
    bench = Bench(model([call("hangs", "a")]), tools=[hangs], executor=executor)
    await bench.ask("one")
    assert await asyncio.to_thread(begun.wait, 30)
    began = asyncio.get_running_loop().time()
    await bench.cancel()
    await bench.idle()
    assert asyncio.get_running_loop().time() - began < 1
    release.set()
    blocks = await bench.next_request()
    frames = await bench.lawful()
    assert statuses(frames) == {"a": "cancelled"}
    assert uses(blocks) == [("cancelled", CANCELLED)]
    assert not [frame for frame in of(frames, "tool.delta") if "note" in frame["data"]["patch"]]


@virtual
async def test_cancel_in_back_off():
    tried: list[str] = []

    @tool(on_error="retry")
    async def flaky(context: ToolContext) -> str:
        tried.append(context.idempotency_key)
        raise ToolError("not now")

    executor = DefaultToolExecutor(backoff_seconds=1000)
    bench = Bench(model([call("flaky", "a")]), tools=[flaky], executor=executor)
    await bench.ask("one")
    await asyncio.sleep(10)
    began = asyncio.get_running_loop().time()
    await bench.cancel()
    await bench.idle()
    assert asyncio.get_running_loop().time() - began < 1
    blocks = await bench.next_request()
    frames = await bench.lawful()
    assert statuses(frames) == {"a": "cancelled"}
    assert uses(blocks) == [("cancelled", CANCELLED)]
    assert len(tried) == 1


@virtual
@pytest.mark.parametrize("queue", [False, True])
async def test_cancel_while_others_are_queued(queue: bool):
    gate = Gate("busy")
    bench = Bench(model(["Hel", gate]))
    await bench.ask("one")
    await bench.ask("two")
    await gate.reached()
    await bench.cancel(queue=queue)
    blocks = await bench.next_request()
    frames = await bench.lawful()
    taken = [frame["data"]["content"] for frame in of(frames, "chat.message")]
    assert taken == ["one", *([] if queue else ["two"]), "and then?"]
    assert [block.text for block in blocks if isinstance(block, User)] == taken
    assert ends(frames)[0] == "cancelled"


@virtual
async def test_cancel_twice_at_once():
    gate = Gate("stubborn")
    bench = Bench(model(["Hel", IgnoreCancel(gate)]))
    started = await bench.ask("one")
    await gate.reached()
    answers = await asyncio.gather(*(bench.cancel() for _ in range(5)))
    assert isinstance(started, Started)
    assert set(answers) == {started.inference_id}
    gate.open()
    blocks = await bench.next_request()
    assert ends(await bench.lawful()) == ["cancelled", "completed"]
    assert said(blocks) == ["Hel"]


@virtual
async def test_cancel_after_the_end():
    bench = Bench(model(["Hello"]))
    await bench.ask("one")
    await bench.idle()
    with pytest.raises(NoActiveInference):
        await bench.cancel()
    blocks = await bench.next_request()
    assert ends(await bench.lawful()) == ["completed", "completed"]
    assert said(blocks) == ["Hello"]


# Engine


def cleaning_up(*steps: Step) -> ScriptedEngine:
    """An engine that raises when it cleans up, however its call ended."""

    class Untidy(ScriptedEngine):
        calls = 0

        async def infer(self, turn: Turn) -> Turn:
            try:
                return await super().infer(turn)
            finally:
                self.calls += 1
                if self.calls == 1:
                    raise RuntimeError("the connection was closed already")

    return Untidy([*steps], *[["done"]] * 9)


@virtual
@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ([FAILURE, "Hello"], "[no answer: failed]"),
        (["Hel", FAILURE, "lo"], "Hel"),
        ([ThinkingDelta("hm"), FAILURE], "[no answer: failed]"),
        (["Hello", FAILURE], "Hello"),
        (["Hello", ModelCallFinished(), FAILURE], "Hello"),
    ],
    ids=["first", "middle", "in thinking", "last", "after its end"],
)
async def test_the_engine_raises(steps: list[Step], kept: str):
    bench = Bench(model(steps))
    await bench.ask("one")
    blocks = await bench.next_request()
    frames = await bench.lawful()
    assert ends(frames) == ["failed", "completed"]
    assert of(frames, "inference.finished")[0]["data"]["error"] == "The model is gone."
    assert said(blocks) == [kept]


@virtual
@pytest.mark.parametrize("cancel", [False, True])
async def test_the_engine_raises_in_its_clean_up(cancel: bool):
    gate = Gate("middle")
    bench = Bench(cleaning_up("Hel", gate))
    await bench.ask("one")
    await gate.reached()
    if cancel:
        await bench.cancel()
    else:
        gate.open()
    blocks = await bench.next_request()
    assert ends(await bench.lawful()) == ["cancelled" if cancel else "failed", "completed"]
    assert said(blocks) == ["Hel"]


@virtual
@pytest.mark.parametrize(
    "steps",
    [
        ["Hello"],
        [ThinkingDelta("hm"), "Hello"],
        ["Hello", ModelCallFinished(), ModelCallFinished()],
        ["Hello", ModelCallFinished(usage=Usage(input_tokens=1)), "not heard"],
    ],
    ids=["no end", "no end after thinking", "two ends", "words after the end"],
)
async def test_the_engine_ends_without_an_end_or_with_two(steps: list[Step]):
    bench = Bench(model(steps))
    await bench.ask("one")
    await bench.next_request()
    frames = await bench.lawful()
    assert ends(frames) == ["completed", "completed"]
    assert [frame["data"]["text"] for frame in of(frames, "llm.final")] == ["Hello", "done"]


@virtual
async def test_the_engine_says_that_the_inference_is_over():
    own = InferenceFinished(
        inference_id="i", status="completed", model="x", stop_reason="stop", duration_ms=0
    )
    bench = Bench(model([own, "Hello"]))  # type: ignore[list-item] # no engine may
    await bench.ask("one")
    await bench.next_request()
    assert ends(await bench.lawful()) == ["completed", "completed"]


# Tools


class Denying(DefaultToolExecutor):
    async def authorise(self, tool: Tool, arguments: Arguments, context: ToolContext) -> None:
        if tool.name == "forbidden":
            raise ToolDenied("not for you")


EXECUTOR = Denying()


@tool
async def forbidden() -> None: ...


@tool(timeout=2)
async def slow() -> None:
    await asyncio.sleep(60)


@tool
async def huge() -> str:
    return "ä" * RESULT_MAX_BYTES


@tool
async def unserialisable() -> object:
    return {"when": object(), "what": {1, 2}}


@tool
async def cyclic() -> object:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


@tool
async def raising() -> None:
    raise ToolError("no")


@tool
async def exiting() -> None:
    raise SystemExit(3)


TOOLS = [echo, forbidden, slow, huge, unserialisable, cyclic, raising, exiting]


def starts(with_: str) -> Callable[[str], bool]:
    return lambda text: text.startswith(with_)


@virtual
@pytest.mark.parametrize(
    ("asked", "status", "reads"),
    [
        (call("ehco", "a"), "error", lambda text: "Did you mean 'echo'?" in text),
        (call("", "a"), "error", starts("unknown tool ''")),
        (call("echo", "a", text=1), "error", starts("invalid arguments for echo: text")),
        (ToolCall(call_id="a", name="echo", arguments='{"te'), "error", lambda t: "JSON" in t),
        (call("forbidden", "a"), "denied", starts("not for you")),
        (call("slow", "a"), "timeout", lambda text: "2 seconds" in text),
        (call("huge", "a"), "success", lambda text: "bytes in all" in text),
        (call("unserialisable", "a"), "success", lambda text: "object" in text),
        (call("cyclic", "a"), "success", starts("{'self': {...}}")),
        (call("raising", "a"), "error", starts("raising failed: no")),
        (call("exiting", "a"), "error", starts("exiting failed unexpectedly")),
    ],
    ids=lambda value: (value.name or "no name") if isinstance(value, ToolCall) else "",
)
async def test_a_call_that_goes_wrong_is_a_result(
    asked: ToolCall, status: str, reads: Callable[[str], bool]
):
    bench = Bench(model(["so", asked]), tools=TOOLS, executor=EXECUTOR)
    await bench.ask("one")
    await bench.idle()
    [(told, text)] = uses(list(bench.model.turns[1].blocks))
    assert told == status
    assert reads(text)
    assert len(text.encode()) < RESULT_MAX_BYTES + 200
    blocks = await bench.next_request()
    frames = await bench.lawful()
    [result] = of(frames, "tool.result")
    assert (result["data"]["result"], result["data"]["status"]) == (text, status)
    assert ends(frames) == ["completed", "completed"]
    assert uses(blocks) == [(status, text)]


@virtual
async def test_parallel_calls_one_of_which_fails():
    @tool
    async def late(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return f"after {seconds:g} s"

    calls = [call("late", "a", seconds=3), call("raising", "b"), call("late", "c", seconds=1)]
    bench = Bench(model([*calls]), tools=[late, raising])
    await bench.ask("one")
    blocks = await bench.next_request()
    frames = await bench.lawful()
    assert [*statuses(frames).items()] == [("b", "error"), ("c", "success"), ("a", "success")]
    assert [text for _, text in uses(blocks)] == ["after 3 s", "raising failed: no", "after 1 s"]
    assert ends(frames) == ["completed", "completed"]


@virtual
async def test_parallel_calls_one_of_which_ends_the_inference():
    @tool(on_error="abort")
    async def vital() -> None:
        await asyncio.sleep(1)
        raise ToolError("the core is gone")

    calls = [call("slow", "a"), call("vital", "b"), call("echo", "c")]
    bench = Bench(model([*calls]), tools=[vital, slow, echo])
    await bench.ask("one")
    blocks = await bench.next_request()
    frames = await bench.lawful()
    assert [*statuses(frames).items()] == [("c", "success"), ("b", "error"), ("a", "cancelled")]
    assert [status for status, _ in uses(blocks)] == ["cancelled", "error", "success"]
    assert ends(frames) == ["failed", "completed"]
    assert "vital" in of(frames, "inference.finished")[0]["data"]["error"]


@virtual
async def test_a_model_that_asks_for_ever():
    bench = Bench(
        model(*[[call("echo", "x")]] * 3),
        tools=[echo],
        profiles=[Profile(slug="chat", tools=("echo",), max_iterations=3)],
    )
    await bench.ask("one")
    blocks = await bench.next_request()
    frames = await bench.lawful()
    assert [*statuses(frames).values()] == ["success", "success", "skipped"]
    assert ends(frames) == ["max_iterations", "completed"]
    assert [status for status, _ in uses(blocks)] == ["success", "success", "skipped"]


@virtual
async def test_a_model_that_may_use_no_tool_asks_for_one():
    bench = Bench(
        model([call("echo", "a")]),
        tools=[echo],
        profiles=[Profile(slug="chat", tools=("echo",), tool_choice="none")],
    )
    await bench.ask("one")
    blocks = await bench.next_request()
    frames = await bench.lawful()
    assert statuses(frames) == {"a": "error"}
    assert not of(frames, "tool.delta")
    assert uses(blocks) == [("error", "unknown tool 'echo'; expected one of: (none).")]
    assert [offer.tools for offer in bench.model.offers] == [()] * 3


@virtual
async def test_a_model_that_must_use_a_tool_is_told_so_once():
    bench = Bench(
        model([call("echo", "a")]),
        tools=[echo],
        profiles=[Profile(slug="chat", tools=("echo",), tool_choice="required")],
    )
    await bench.ask("one")
    await bench.next_request()
    assert [offer.choice for offer in bench.model.offers] == ["required", "auto", "required"]


@tool(secrets={"password"})
async def login(name: str, password: str) -> str:
    return f"{name} is in"


@virtual
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("login", {"name": "anna", "password": "hunter2"}),
        ("login", '{"name": "anna", "password": "hunter2"'),
        ("log_in", {"name": "anna", "password": "hunter2"}),
        ("log_in", '{"password": "hunter2"'),
    ],
    ids=["not allowed", "not allowed and broken", "made up", "made up and broken"],
)
async def test_the_secret_of_a_tool_that_may_not_be_called_is_in_no_frame(
    name: str, arguments: dict[str, Any] | str
):
    bench = Bench(
        model([ToolCall(call_id="a", name=name, arguments=arguments)]),
        tools=[echo, login],
        profiles=[Profile(slug="chat", tools=("echo",))],
    )
    await bench.ask("one")
    blocks = await bench.next_request()
    frames = await bench.lawful()
    assert statuses(frames) == {"a": "error"}
    assert "hunter2" not in f"{frames}{uses(blocks)}"
    [start] = of(frames, "tool.start")
    if isinstance(arguments, dict):
        assert start["data"]["input"] == {"name": "anna", "password": "•••"}


odd_calls = st.builds(
    ToolCall,
    call_id=st.sampled_from(["", "a", "a", "b", "a:result", "é", "a b", "\ud800", "x" * 300]),
    name=st.sampled_from(["echo", "echo", "", "ehco", "\udfff", "n" * 300, "a b"]),
    arguments=st.one_of(
        st.sampled_from(['{"te', "", "\ud83d", "null"]),
        st.dictionaries(
            st.sampled_from(["text", "\ud800", ""]),
            st.sampled_from(["ha", "\ud800", 2**80, float("nan"), [[]], None]),
        ),
    ),
)


@virtual
@pytest.mark.parametrize("log_place", ["memory"], indirect=True)  # each example begins a log
@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(odd_calls, min_size=1, max_size=3), min_size=1, max_size=3))
async def test_whatever_calls_a_model_makes(asks: list[list[ToolCall]]):
    # Blocks have ids of their own, also where Hypothesis takes one call twice.
    asked = [[ToolCall(**call_of(each)) for each in ask] for ask in asks]
    bench = Bench(model(*asked), tools=[echo], executor=EXECUTOR)
    await bench.ask("one")
    blocks = await bench.next_request()
    frames = await bench.lawful()
    assert len(of(frames, "tool.done")) == sum(map(len, asked)) == len(uses(blocks))
    assert ends(frames) == ["completed", "completed"]
    await bench.aclose()


def call_of(call: ToolCall) -> dict[str, Any]:
    return {"call_id": call.call_id, "name": call.name, "arguments": call.arguments}


# Queue and keys


@virtual
async def test_the_queue_is_full():
    gate = Gate("busy")
    bench = Bench(model([gate]), queue=2)
    for prompt in ("one", "two", "three"):
        await bench.ask(prompt)
    for policy in ("queue", "interrupt"):
        with pytest.raises(QueueFull):
            await bench.ask("four", policy=policy)
    assert bench.session.active
    gate.open()
    await bench.next_request()
    frames = await bench.lawful()
    assert ends(frames) == ["completed"] * 4, "nothing was cancelled for what was refused"
    assert max(frame["data"]["depth"] for frame in of(frames, "queue.updated")) == 2


@virtual
async def test_a_queued_prompt_is_removed():
    gate = Gate("busy")
    bench = Bench(model([gate]))
    await bench.ask("one")
    await bench.ask("two", "k2")
    await bench.ask("three", "k3")
    await bench.manager.remove_queued(CONV, "k2")
    for gone in ("k2", "k1", "one"):
        with pytest.raises(NotQueued):
            await bench.manager.remove_queued(CONV, gone)
    gate.open()
    blocks = await bench.next_request()
    await bench.lawful()
    assert [b.text for b in blocks if isinstance(b, User)] == ["one", "three", "and then?"]


async def idle_state(bench: Bench) -> None:
    await bench.manager.open(CONV, owner="visitor:anna", profile=None)


async def in_text(bench: Bench) -> None:
    await bench.ask("one")
    await asyncio.sleep(1)


async def in_a_tool(bench: Bench) -> None:
    bench.model.play([call("slow", "a")], *[["done"]] * 9)
    await bench.ask("one")
    await asyncio.sleep(1)


async def in_a_pause(bench: Bench) -> None:
    await idle_state(bench)
    await bench.manager.set_step_mode(CONV, True, by="anna")
    bench.model.play([call("slow", "a")], *[["done"]] * 9)
    await bench.ask("one")
    await bench.paused()


async def queued_behind(bench: Bench) -> None:
    await bench.ask("one")
    await bench.ask("two")
    await asyncio.sleep(1)


async def ending(bench: Bench) -> None:
    """Its end is in the log, and its persister is not done yet."""
    bench.model.play(["Hello"], *[["done"]] * 9)
    await bench.ask("one")
    await asyncio.sleep(1)
    assert ends(await bench.frames()) == ["completed"]
    assert bench.session.active


@virtual
@pytest.mark.parametrize(
    ("state", "taken", "how"),
    [
        (idle_state, ["now"], ["completed"]),
        (in_text, ["one", "now"], ["cancelled", "completed"]),
        (in_a_tool, ["one", "now"], ["cancelled", "completed"]),
        (in_a_pause, ["one", "now"], ["cancelled", "completed"]),
        (queued_behind, ["one", "now", "two"], ["cancelled", "completed", "completed"]),
        (ending, ["one", "now"], ["completed", "completed"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_prompt_interrupts(state: Any, taken: list[str], how: list[str]):
    kept = Gate("kept")

    async def persist(conversation: StoredConversation) -> None:
        await kept.passed()

    bench = Bench(model(["Hel", Sleep(3600)]), tools=[slow], turn_persister=persist)
    if state is not ending:
        kept.open()
    await state(bench)
    if state is idle_state:
        bench.model.play(*[["done"]] * 9)
    answer = await bench.ask("now", policy="interrupt")
    if state is idle_state:
        assert isinstance(answer, Started)
    else:
        assert isinstance(answer, Queued)
        assert answer.position == 1
    kept.open()
    blocks = await bench.next_request()
    frames = await bench.lawful()
    assert [f["data"]["content"] for f in of(frames, "chat.message")][:-1] == taken
    assert [b.text for b in blocks if isinstance(b, User)][:-1] == taken
    assert ends(frames)[:-1] == how


@virtual
async def test_the_same_key_for_another_prompt():
    gate = Gate("busy")
    bench = Bench(model([gate]))
    first = await bench.ask("one", "k1")
    queued = await bench.ask("two", "k2")
    for key in ("k1", "k2"):
        with pytest.raises(KeyReused):
            await bench.ask("other", key)
    assert await bench.ask("one", "k1") == first
    assert await bench.ask("two", "k2") == queued
    gate.open()
    await bench.next_request()
    frames = await bench.lawful()
    assert [f["data"]["content"] for f in of(frames, "chat.message")] == ["one", "two", "and then?"]


# Profiles


@virtual
async def test_the_profile_is_switched_in_mid_run():
    gate = Gate("busy")
    bench = Bench(
        model(["Hel", gate, "lo", call("echo", "a")]),
        tools=[echo],
        profiles=[
            Profile(slug="chat", tools=("echo",), system_prompt="be brief"),
            Profile(slug="code", system_prompt="write code"),
        ],
    )
    await bench.ask("one")
    await gate.reached()
    await bench.ask("two", profile="code")
    gate.open()
    blocks = await bench.next_request()
    frames = await bench.lawful()
    prompts = [turn.blocks[0].text for turn in bench.model.turns]  # type: ignore[union-attr]
    assert prompts == ["be brief", "be brief", "write code", "write code"]
    assert [len(offer.tools) for offer in bench.model.offers] == [1, 1, 0, 0]
    assert [frame["data"]["profile"] for frame in of(frames, "inference.started")] == [
        *("chat", "code", "code"),
    ]
    updated = kinds(frames).index("session.updated")
    finished = kinds(frames).index("inference.finished")
    assert updated > finished, "a change of profile is told between inferences"
    assert [b.text for b in blocks if isinstance(b, User)] == ["one", "two", "and then?"]
    marks = {turn.metadata.fingerprint for turn in bench.session.turns}
    assert len(marks) == 2


@virtual
async def test_queued_prompts_run_with_their_own_profile_and_overrides():
    gate = Gate("busy")
    bench = Bench(
        model(["Hel", gate]),
        tools=[echo, raising],
        profiles=[
            Profile(slug="chat", system_prompt="be brief", tools=("echo",)),
            Profile(
                slug="open",
                system_prompt="be open",
                tools=("echo", "raising"),
                allow_overrides=True,
            ),
        ],
    )
    await bench.ask("one")
    overrides = {"system_prompt": "be odd", "tools": ["raising"]}
    await bench.ask("two", profile="open", overrides=overrides)
    await bench.ask("three")
    await bench.ask("four", profile="chat")
    await gate.reached()
    gate.open()
    await bench.idle()
    asked = [
        (turn.blocks[0].text, [tool.name for tool in offer.tools])  # type: ignore[union-attr]
        for turn, offer in zip(bench.model.turns, bench.model.offers, strict=True)
    ]
    assert asked == [
        ("be brief", ["echo"]),
        ("be odd", ["raising"]),
        ("be open", ["echo", "raising"]),
        ("be brief", ["echo"]),
    ]
    marks = [turn.metadata.fingerprint for turn in bench.session.turns]
    assert marks[0] == marks[3]
    assert len(set(marks)) == 3
    await bench.next_request()
    told = [frame["data"]["fingerprint"] for frame in of(await bench.lawful(), "session.updated")]
    assert told == marks[1:4]


# Steps


@virtual
@pytest.mark.parametrize(
    ("state", "phase"), [(in_text, "after_inference"), (in_a_tool, "after_tools")]
)
async def test_steps_that_are_switched_on_in_mid_run_stop_at_the_next_place(state: Any, phase: str):
    bench = Bench(model(["Hel", Sleep(2), call("slow", "a")]), tools=[slow])
    await state(bench)
    await bench.manager.set_step_mode(CONV, True, by="anna")
    await asyncio.sleep(3)
    pause = await bench.paused()
    assert pause.request.phase == phase
    await bench.manager.set_step_mode(CONV, False, by="anna")
    await bench.next_request()
    told = [frame["data"]["stepMode"] for frame in of(await bench.lawful(), "session.updated")]
    assert told == [True, False]


@virtual
async def test_step_mode_is_off_when_the_session_has_ended():
    bench = Bench(model(["Hello"]), conversation_ttl_seconds=600)
    await bench.ask("one")
    await bench.idle()
    await bench.manager.set_step_mode(CONV, True, by="anna")
    await asyncio.sleep(300)
    await bench.manager.evict_idle()
    info = await bench.manager.find(CONV)
    assert info is not None
    assert info.step_mode, "unloaded is not ended"
    await asyncio.sleep(600)
    await bench.manager.evict_idle()
    assert await bench.manager.find(CONV) is None
    assert not (await bench.manager.open(CONV, owner="visitor:bert", profile=None)).step_mode
    await bench.aclose()
