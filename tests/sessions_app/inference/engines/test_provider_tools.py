"""Tools over real HTTP on all three wires: what is offered, what is asked, what goes back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic_ai.messages import ToolCallPart, ToolReturnPart

from sessions_app.inference.engines.provider import ProviderEngine
from sessions_app.inference.engines.transcript import PROVIDER_PART, transcript
from sessions_app.inference.errors import ProviderFailed
from sessions_app.inference.events import (
    ModelCallFinished,
    TextDelta,
    ThinkingDelta,
    ToolCallRequested,
)
from sessions_app.inference.executor import DefaultToolExecutor
from sessions_app.inference.runner import Cancellation, InferenceRunner
from sessions_app.inference.steps import StepController
from sessions_app.inference.toolloop import LoopConfig, ToolLoop
from sessions_app.inference.tools import Tool, ToolChoice, ToolRegistry, offering, tool
from sessions_app.inference.turns import (
    LlmText,
    Other,
    Reasoning,
    ToolCall,
    ToolStatus,
    ToolUse,
    Turn,
    TurnMetadata,
    User,
)
from sessions_app.testing import RecordingSink
from tests.standins import anthropic_server, google_server
from tests.standins.engines import engine_at, provider
from tests.standins.http import PATIENCE
from tests.standins.orders import AFTER, BEFORE, SIGNED, THOUGHT
from tests.standins.recording import Recorder, ask, infer

CALC = 'calc {"expression": "6*7"}'

ALL = pytest.mark.parametrize("wire", ["openai-chat", "anthropic", "google"])
OPENAI_AND_ANTHROPIC = pytest.mark.parametrize("wire", ["openai-chat", "anthropic"])


@tool
def calc(expression: str) -> str:
    """Works out an expression."""
    left, right = expression.split("*")
    return str(int(left) * int(right))


@tool
def now() -> str:
    """Tells the time."""
    return "noon"


TOOLS = (calc, now)


@pytest.fixture
def heard() -> Recorder:
    return Recorder()


async def asked(
    engine: ProviderEngine,
    prompt: str,
    heard: Recorder,
    *,
    tools: Sequence[Tool] = TOOLS,
    choice: ToolChoice = "auto",
) -> Turn:
    with offering(tools, choice):
        return await ask(engine, prompt, heard)


def calls_of(turn: Turn) -> list[tuple[str, str, object]]:
    return [(b.call_id, b.name, b.arguments) for b in turn.blocks if isinstance(b, ToolCall)]


def finished(heard: Recorder) -> str:
    event = heard.events[-1]
    assert isinstance(event, ModelCallFinished)
    return event.stop_reason


class Conversation:
    """A conversation with an engine through the real loop and runner."""

    def __init__(self, engine: ProviderEngine, *, max_iterations: int = 5) -> None:
        loop = ToolLoop(
            DefaultToolExecutor(),
            StepController(),
            config=LoopConfig(max_iterations=max_iterations),
        )
        self._runner = InferenceRunner(engine, loop=loop, tools=ToolRegistry(TOOLS))
        self.turn = Turn()
        self.sink = RecordingSink()

    async def say(self, prompt: str) -> str:
        """The answer's last text."""
        asked = self.turn.derive(User(text=prompt), metadata=TurnMetadata(inference_id="i"))
        self.turn = await self._runner.run(
            asked, sink=self.sink, cancellation=Cancellation(), owner=""
        )
        last = self.turn.blocks[-1]
        assert isinstance(last, LlmText)
        return last.text


# What is offered


def declared(sent: dict[str, Any], wire: str) -> list[tuple[str, str, list[str]]]:
    """Name, description and arguments of each tool in a request."""
    tools = sent.get("tools", [])
    if wire == "openai-chat":
        tools = [each["function"] for each in tools]
    elif wire == "google":
        tools = [one for each in tools for one in each["functionDeclarations"]]
    schema = {"openai-chat": "parameters", "anthropic": "input_schema"}.get(
        wire, "parameters_json_schema"
    )
    return [(t["name"], t["description"], [*t[schema]["properties"]]) for t in tools]


def choice_in(sent: dict[str, Any], wire: str) -> object:
    match wire:
        case "openai-chat":
            return sent.get("tool_choice")
        case "anthropic":
            return sent.get("tool_choice", {}).get("type")
        case _:
            return sent.get("toolConfig", {}).get("functionCallingConfig", {}).get("mode")


@ALL
async def test_the_offered_tools_are_declared_to_the_model(wire: str, heard: Recorder) -> None:
    async with provider(wire) as (server, engine):
        await asked(engine, "hello", heard)
        sent = (await server.exchange()).body
    assert declared(sent, wire) == [
        ("calc", "Works out an expression.", ["expression"]),
        ("now", "Tells the time.", []),
    ]
    assert choice_in(sent, wire) in ("auto", "VALIDATED")


@ALL
async def test_without_an_offer_no_tool_is_declared(wire: str, heard: Recorder) -> None:
    async with provider(wire) as (server, engine):
        await asked(engine, "hello", heard, choice="none")
        await ask(engine, "hello", heard)
        for number in (1, 2):
            sent = (await server.exchange(number)).body
            assert (declared(sent, wire), choice_in(sent, wire)) == ([], None)


@pytest.mark.parametrize(
    ("wire", "word"), [("openai-chat", "required"), ("anthropic", "any"), ("google", "ANY")]
)
async def test_a_model_that_must_use_a_tool_is_told_so(
    wire: str, word: str, heard: Recorder
) -> None:
    async with provider(wire) as (server, engine):
        await asked(engine, "hello", heard, choice="required")
        assert choice_in((await server.exchange()).body, wire) == word


@ALL
async def test_to_require_a_tool_where_there_is_none_asks_for_nothing(
    wire: str, heard: Recorder
) -> None:
    async with provider(wire) as (server, engine):
        await asked(engine, "hello", heard, tools=(), choice="required")
        assert choice_in((await server.exchange()).body, wire) is None
    assert "hello" in heard.text.lower()


# What is asked


@ALL
async def test_a_call_is_appended_after_the_text_and_the_engine_says_nothing_of_it(
    wire: str, heard: Recorder
) -> None:
    async with provider(wire) as (_, engine):
        turn = await asked(engine, f"call+text {CALC}", heard)
    call_id = "toolu_1" if wire == "anthropic" else "call_1"
    said = [type(block) for block in turn.blocks if not isinstance(block, Other)]
    assert said == [User, LlmText, ToolCall]
    assert calls_of(turn) == [(call_id, "calc", {"expression": "6*7"})]
    assert {type(event) for event in heard.events} == {TextDelta, ModelCallFinished}
    assert finished(heard) == "tool_calls"
    assert heard.text == BEFORE


@ALL
async def test_parallel_calls_keep_their_order_and_their_arguments(
    wire: str, heard: Recorder
) -> None:
    order = 'call calc {"expression": "6*7"} & now {} & calc {"expression": "1000*1000"}'
    async with provider(wire) as (_, engine):
        turn = await asked(engine, order, heard)
    assert [call[1:] for call in calls_of(turn)] == [
        ("calc", {"expression": "6*7"}),
        ("now", {}),
        ("calc", {"expression": "1000*1000"}),
    ]
    assert heard.text == ""


@ALL
async def test_text_on_both_sides_of_a_call_stays_and_the_call_comes_last(
    wire: str, heard: Recorder
) -> None:
    async with provider(wire) as (_, engine):
        turn = await asked(engine, f"call+text+after {CALC}", heard)
    assert heard.text == BEFORE + AFTER
    assert "".join(b.text for b in turn.blocks if isinstance(b, LlmText)) == BEFORE + AFTER
    assert isinstance(turn.blocks[-1], ToolCall)


@ALL
async def test_thoughts_before_a_call_are_published_and_kept(wire: str, heard: Recorder) -> None:
    async with provider(wire) as (_, engine):
        turn = await asked(engine, f"call+think+text {CALC}", heard)
    assert (heard.thinking, heard.text) == (THOUGHT, BEFORE)
    kinds = [type(b) for b in turn.blocks if not isinstance(b, Other)]
    assert kinds == [User, Reasoning, LlmText, ToolCall]


@ALL
async def test_interleaved_thoughts_and_words_come_in_their_order(
    wire: str, heard: Recorder
) -> None:
    async with provider(wire) as (_, engine):
        turn = await ask(engine, "segments", heard)
    told = [
        (type(event), event.text)
        for event in heard.events
        if isinstance(event, TextDelta | ThinkingDelta)
    ]
    assert told == [
        (ThinkingDelta, "One."),
        (TextDelta, "First. "),
        (ThinkingDelta, "Two."),
        (TextDelta, "Second."),
    ]
    assert [type(block) for block in turn.blocks[1:]] == [Reasoning, LlmText, Reasoning, LlmText]


@OPENAI_AND_ANTHROPIC
@pytest.mark.parametrize(
    "raw", ['{"expression": "6*', "calc please", '["6*7"]', "null", '{"a": NaN}', "[" * 5_000]
)
async def test_arguments_that_are_no_json_object_stay_as_they_came(
    wire: str, raw: str, heard: Recorder
) -> None:
    async with provider(wire) as (_, engine):
        turn = await asked(engine, f"call calc {raw}", heard)
    [(_, name, arguments)] = calls_of(turn)
    assert (name, arguments) == ("calc", raw)
    assert finished(heard) == "tool_calls"


@ALL
async def test_no_arguments_at_all_are_no_arguments(wire: str, heard: Recorder) -> None:
    async with provider(wire) as (_, engine):
        turn = await asked(engine, "call now", heard)
    assert [call[1:] for call in calls_of(turn)] == [("now", {})]


async def test_google_says_itself_that_a_call_is_malformed(heard: Recorder) -> None:
    async with provider("google") as (_, engine):
        with pytest.raises(ProviderFailed, match=r"with an error \(MALFORMED_FUNCTION_CALL\)"):
            await asked(engine, "call calc {broken", heard)


@pytest.mark.parametrize("wire", ["openai-chat", "google"])
async def test_a_provider_without_ids_gives_empty_ones(wire: str, heard: Recorder) -> None:
    async with provider(wire) as (_, engine):
        turn = await asked(engine, f"call+no-id {CALC} & now {{}}", heard)
    assert [call[0] for call in calls_of(turn)] == ["", ""]


@OPENAI_AND_ANTHROPIC
async def test_one_id_for_two_calls_does_not_mix_their_arguments(
    wire: str, heard: Recorder
) -> None:
    async with provider(wire) as (_, engine):
        turn = await asked(engine, f"call+same-id {CALC} & now {{}}", heard)
    first, second = calls_of(turn)
    assert first[0] == second[0] != ""
    assert (first[1:], second[1:]) == (("calc", {"expression": "6*7"}), ("now", {}))


@ALL
async def test_a_call_is_a_reason_to_stop_even_where_the_provider_says_stop(
    wire: str, heard: Recorder
) -> None:
    async with provider(wire) as (_, engine):
        await asked(engine, f"call+stop {CALC}", heard)
    assert finished(heard) == "tool_calls"


@ALL
async def test_a_call_at_the_models_limit_says_length(wire: str, heard: Recorder) -> None:
    async with provider(wire) as (_, engine):
        turn = await asked(engine, f"call+length {CALC}", heard)
    assert finished(heard) == "length"
    assert len(calls_of(turn)) == 1


@ALL
async def test_an_answer_cut_within_a_call_fails_and_makes_no_call(
    wire: str, heard: Recorder
) -> None:
    async with provider(wire) as (_, engine):
        with pytest.raises(ProviderFailed, match="was cut off before its end"):
            await asked(engine, f"call+text+cut {CALC}", heard)
    assert heard.text == BEFORE
    assert not any(isinstance(event, ModelCallFinished) for event in heard.events)


@ALL
async def test_cancelling_within_a_call_closes_the_connection(wire: str, heard: Recorder) -> None:
    async with provider(wire) as (server, engine):
        answer = asyncio.create_task(asked(engine, f"call+text+hang {CALC}", heard))
        exchange = await server.exchange()
        async with asyncio.timeout(PATIENCE):
            await heard.spoken.wait()
        answer.cancel()
        async with asyncio.timeout(1):
            await exchange.abandoned.wait()
        with pytest.raises(asyncio.CancelledError):
            await answer


# Through the loop, and back to the provider. The stand-ins refuse what the services refuse.


@ALL
@pytest.mark.parametrize("flags", ["", "+text", "+think+text", "+text+after", "+same-id", "+no-id"])
async def test_results_go_back_and_the_model_answers_from_them(wire: str, flags: str) -> None:
    async with provider(wire) as (_, engine):
        conversation = Conversation(engine)
        answer = await conversation.say(f"call{flags} {CALC} & now {{}}")
    assert answer == "The tools said: 42 | noon"
    assert conversation.turn.metadata.outcome == "completed"


@ALL
@pytest.mark.parametrize("flags", ["", "+think", "+repeat-id", "+no-id"])
async def test_later_prompts_carry_the_calls_of_earlier_ones(wire: str, flags: str) -> None:
    async with provider(wire) as (server, engine):
        conversation = Conversation(engine)
        answers = [
            await conversation.say(f'call{flags} calc {{"expression": "{n}*2"}} & now {{}}')
            for n in (1, 2, 3)
        ]
    assert answers == [f"The tools said: {n} | noon" for n in (2, 4, 6)]
    assert len(server.exchanges) == 6
    requested = [e.call_id for e in conversation.sink.events if isinstance(e, ToolCallRequested)]
    assert len(set(requested)) == len(requested) == 6


@OPENAI_AND_ANTHROPIC
async def test_a_provider_gets_its_own_ids_back(wire: str) -> None:
    async with provider(wire) as (server, engine):
        conversation = Conversation(engine)
        await conversation.say(f"call {CALC}")
        await conversation.say("call now {}")
        sent = (await server.exchange(4)).body["messages"]
    assert isinstance(sent, list)
    if wire == "anthropic":
        ids = [b["id"] for m in sent for b in m["content"] if b["type"] == "tool_use"]
        assert ids == ["toolu_1", "toolu_2"]
    else:
        ids = [call["id"] for m in sent for call in m.get("tool_calls") or []]
        results = [m["tool_call_id"] for m in sent if m["role"] == "tool"]
        assert ids == results == ["call_1", "call_2"]


async def test_a_server_that_counts_its_ids_anew_gets_those_back_too() -> None:
    async with provider("openai-chat") as (server, engine):
        conversation = Conversation(engine)
        for _ in range(2):
            await conversation.say(f"call+repeat-id {CALC}")
        sent = (await server.exchange(4)).body["messages"]
    assert isinstance(sent, list)
    assert [c["id"] for m in sent for c in m.get("tool_calls") or []] == ["call_1", "call_1"]


@ALL
async def test_a_model_reads_what_was_wrong_with_its_call(wire: str) -> None:
    async with provider(wire) as (_, engine):
        answer = await Conversation(engine).say('call calc {"expression": 7} & no.such {}')
    assert "invalid arguments for calc" in answer
    assert "unknown tool 'no.such'" in answer
    assert "error" in answer


@OPENAI_AND_ANTHROPIC
async def test_a_model_reads_that_its_arguments_were_no_object(wire: str) -> None:
    async with provider(wire) as (_, engine):
        conversation = Conversation(engine)
        assert "not a JSON object" in await conversation.say('call calc {"expression": "6*')
        # The history with the broken arguments in it is still one that strict services take.
        assert await conversation.say(f"call {CALC}") == "The tools said: 42"


@ALL
async def test_a_model_that_calls_for_ever_meets_the_limit_and_can_go_on(wire: str) -> None:
    async with provider(wire) as (server, engine):
        conversation = Conversation(engine, max_iterations=3)
        await conversation.say(f"call+again {CALC}")
        assert conversation.turn.metadata.outcome == "max_iterations"
        assert len(server.exchanges) == 3
        assert await conversation.say(f"call {CALC}") == "The tools said: 42"


# Signatures


async def test_anthropic_gets_its_signed_thoughts_back_before_the_call() -> None:
    async with provider("anthropic") as (server, engine):
        await Conversation(engine).say(f"call+think+text {CALC}")
        sent = (await server.exchange(2)).body["messages"]
    assert isinstance(sent, list)
    assert sent[1]["content"] == [
        {"type": "thinking", "thinking": THOUGHT, "signature": anthropic_server.SIGNATURE},
        {"type": "text", "text": BEFORE},
        {"type": "tool_use", "id": "toolu_1", "name": "calc", "input": {"expression": "6*7"}},
    ]


async def test_a_thought_that_nobody_may_read_comes_back(heard: Recorder) -> None:
    async with provider("anthropic") as (server, engine):
        turn = await ask(engine, "redacted", heard)
        await infer(engine, turn.with_blocks(User(text="go on")), heard)
        sent = (await server.exchange(2)).body["messages"]
    assert isinstance(sent, list)
    assert sent[1]["content"][0] == {"type": "redacted_thinking", "data": anthropic_server.REDACTED}


async def test_google_gets_the_signature_of_its_call_back() -> None:
    async with provider("google") as (server, engine):
        conversation = Conversation(engine)
        await conversation.say(f"call {CALC} & now {{}}")
        await conversation.say("signed")
        await conversation.say("hello")
        sent = (await server.exchange(4)).body["contents"]
    assert isinstance(sent, list)
    parts = [part for content in sent if content["role"] == "model" for part in content["parts"]]
    signatures = [part.get("thoughtSignature") for part in parts]
    signature = google_server.SIGNATURE
    assert signatures == [signature, None, None, signature]
    assert [block.name for block in conversation.turn.blocks if isinstance(block, Other)] == [
        PROVIDER_PART
    ] * 2


async def test_a_compatible_server_gets_its_thoughts_back_only_with_the_open_calls() -> None:
    async with provider("openai-chat") as (server, engine):
        conversation = Conversation(engine)
        for _ in range(2):
            await conversation.say(f"call+think {CALC}")
        sent = (await server.exchange(4)).body["messages"]
    assert isinstance(sent, list)
    thoughts = [m.get("reasoning_content") for m in sent if m.get("tool_calls")]
    assert thoughts == [None, THOUGHT]


async def test_a_signature_behind_openais_wire_comes_back_with_its_call() -> None:
    async with provider("openai-chat") as (server, engine):
        await Conversation(engine).say(f"call+signed {CALC} & now {{}}")
        sent = (await server.exchange(2)).body["messages"]
    assert isinstance(sent, list)
    calls = [call for message in sent for call in message.get("tool_calls") or []]
    assert [call.get("extra_content") for call in calls] == [SIGNED, None]


# History from elsewhere


def foreign_history(*statuses: ToolStatus) -> Turn:
    """Calls as other providers make them: ids of every form, one twice, a name that is none."""
    ids = ["functions.calc:0", "x" * 70, "call_1", "call_1", "mit Umlaut ä"]
    calls = [
        ToolCall(
            call_id=f"ours-{n}",
            provider_id=provider_id,
            name="calc" if n else "calc.v2 ",
            arguments={"expression": "1*1"} if n else '{"expression": ',
        )
        for n, provider_id in enumerate(ids)
    ]
    uses = [
        ToolUse(call_id=call.call_id, text=f"said {n}", status=status)
        for n, (call, status) in enumerate(zip(calls, statuses, strict=True))
    ]
    return Turn(
        blocks=(
            User(text="one"),
            Reasoning(text="foreign", signature="abc", provider="elsewhere"),
            Other(name=PROVIDER_PART, props={"provider": "elsewhere", "block": calls[1].id}),
            *calls[:3],
            *uses[:3],
            *calls[3:],
            *uses[3:],
            ToolUse(call_id="nobody's", text="a result without its call"),
            LlmText(text="done"),
            User(text="two"),
        )
    )


@ALL
async def test_a_history_with_calls_from_elsewhere_is_one_that_this_provider_takes(
    wire: str, heard: Recorder
) -> None:
    turn = foreign_history("success", "error", "denied", "cancelled", "skipped")
    async with provider(wire) as (_, engine):
        with offering(TOOLS, "auto"):
            await infer(engine, turn, heard)
        await infer(engine, turn, heard)  # and without tools
    assert finished(heard) == "stop"


async def test_openai_itself_takes_no_id_twice_and_none_that_is_too_long() -> None:
    turn = foreign_history("success", "success", "success", "success", "success")
    parts = [part for message in transcript(turn, "openai") for part in message.parts]
    calls = [part.tool_call_id for part in parts if isinstance(part, ToolCallPart)]
    results = [part.tool_call_id for part in parts if isinstance(part, ToolReturnPart)]
    assert calls[0] == "functions.calc:0"
    assert len(set(calls)) == 5
    assert max(len(call_id) for call_id in calls) <= 40
    assert results == calls


async def test_what_a_model_cannot_do_is_said_before_anybody_is_asked(heard: Recorder) -> None:
    async with (
        anthropic_server.anthropic_server() as server,
        engine_at(server.url, "anthropic", model="claude-opus-5-5") as engine,
    ):
        with pytest.raises(ProviderFailed, match="cannot be made to the model 'claude-opus-5-5'"):
            await asked(engine, "hello", heard, choice="required")
    assert server.exchanges == []
