"""Providers over real HTTP: what comes through, what an error says, and who hangs up."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sessions_app.inference.engines.provider import ProviderEngine
from sessions_app.inference.engines.transcript import STOPPED
from sessions_app.inference.engines.wires import WIRES, Endpoint
from sessions_app.inference.errors import ProviderFailed, StreamStalled
from sessions_app.inference.events import (
    Event,
    ModelCallFinished,
    Origin,
    ProviderError,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from sessions_app.inference.turns import LlmText, Other, Reasoning, System, Turn, User
from tests.standins.anthropic_server import SIGNATURE
from tests.standins.engines import KEY, engine_at, provider
from tests.standins.http import PATIENCE, StandIn
from tests.standins.openai_server import CACHED_TOKENS, PROMPT_TOKENS, openai_server
from tests.standins.recording import Recorder, ask, infer

CUT = r"^The model's answer was cut off before its end\."


@pytest_asyncio.fixture
async def server() -> AsyncIterator[StandIn]:
    async with openai_server() as running:
        yield running


@pytest_asyncio.fixture
async def engine(server: StandIn) -> AsyncIterator[ProviderEngine]:
    async with engine_at(f"{server.url}/v1") as built:
        yield built


@pytest.fixture
def heard() -> Recorder:
    return Recorder()


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


# What comes through


async def test_an_answer_is_streamed_finished_and_appended_to_the_turn(
    engine: ProviderEngine, heard: Recorder
) -> None:
    turn = await ask(engine, "good morning", heard)
    assert heard.text == "You said: good morning "
    assert heard.events[-1] == ModelCallFinished(
        stop_reason="stop",
        usage=Usage(input_tokens=PROMPT_TOKENS, output_tokens=4, cached_tokens=CACHED_TOKENS),
    )
    prompt, answer = turn.blocks
    assert isinstance(prompt, User)
    assert isinstance(answer, LlmText)
    assert (prompt.text, answer.text) == ("good morning", heard.text)


async def test_the_first_words_are_published_while_the_provider_is_still_silent(
    engine: ProviderEngine, heard: Recorder
) -> None:
    answer = asyncio.create_task(ask(engine, "hang after 2", heard))
    async with asyncio.timeout(PATIENCE):
        while heard.text != "You said: ":
            heard.spoken.clear()
            await heard.spoken.wait()
    answer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answer


async def test_reasoning_is_published_before_the_text_and_kept_apart(
    engine: ProviderEngine, heard: Recorder
) -> None:
    turn = await ask(engine, "think", heard)
    assert heard.thinking == "Let me think."
    assert heard.text == "You said: think "
    _, reasoning, text = turn.blocks
    assert isinstance(reasoning, Reasoning)
    assert reasoning.text == heard.thinking
    assert isinstance(text, LlmText)
    assert text.text == heard.text


@pytest.mark.parametrize(
    ("prompt", "reason"), [("length", "length"), ("filtered", "content_filter")]
)
async def test_the_providers_reason_to_stop_is_passed_on(
    engine: ProviderEngine, heard: Recorder, prompt: str, reason: str
) -> None:
    await ask(engine, prompt, heard)
    finished = heard.events[-1]
    assert isinstance(finished, ModelCallFinished)
    assert finished.stop_reason == reason


async def test_tokens_that_nobody_counted_are_not_made_up(
    engine: ProviderEngine, heard: Recorder
) -> None:
    await ask(engine, "no usage", heard)
    assert heard.events[-1] == ModelCallFinished(stop_reason="stop", usage=None)


async def test_deltas_that_arrive_together_go_out_together(
    engine: ProviderEngine, heard: Recorder
) -> None:
    await ask(engine, "deltas 1000", heard)
    assert heard.text == "x" * 1000
    assert len([event for event in heard.events if isinstance(event, TextDelta)]) < 100


async def test_a_chunk_as_it_should_be_is_read_by_the_compiled_validator(
    engine: ProviderEngine, heard: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[object] = []

    def by_hand(*, type_: type, value: object) -> object:
        built.append(value)
        raise AssertionError("built value by value")

    monkeypatch.setattr("openai._base_client.construct_type", by_hand)
    await ask(engine, "hello", heard)
    assert heard.text == "You said: hello "
    assert built == []


async def test_the_whole_conversation_is_sent_and_a_stopped_answer_says_so(
    engine: ProviderEngine, server: StandIn, heard: Recorder
) -> None:
    turn = Turn(
        blocks=(
            System(text="Be brief."),
            User(text="one"),
            Reasoning(text="hm", provider="openai-compatible"),
            LlmText(text="1"),
            User(text="two"),
            LlmText(text="it is", stopped=True),
            LlmText(text=""),
            User(text="three"),
        )
    )
    await infer(engine, turn, heard)
    sent = await server.exchange()
    assert sent.body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": f"it is{STOPPED}"},
        {"role": "user", "content": "three"},
    ]
    assert sent.headers["authorization"] == f"Bearer {KEY}"


async def test_calls_share_one_connection(
    engine: ProviderEngine, server: StandIn, heard: Recorder
) -> None:
    for prompt in ("one", "two", "three"):
        await ask(engine, prompt, heard)
    assert [exchange.connection for exchange in server.exchanges] == [1, 1, 1]


async def test_calls_at_the_same_time_do_not_mix(engine: ProviderEngine, server: StandIn) -> None:
    ears = [Recorder() for _ in range(20)]
    await asyncio.gather(*(ask(engine, f"number {n}", ear) for n, ear in enumerate(ears)))
    assert [ear.text for ear in ears] == [f"You said: number {n} " for n in range(20)]


async def test_a_closed_engine_opens_a_new_connection_when_it_is_asked_again(
    engine: ProviderEngine, server: StandIn, heard: Recorder
) -> None:
    await ask(engine, "one", heard)
    await engine.aclose()
    await engine.aclose()
    await ask(engine, "two", heard)
    assert [exchange.connection for exchange in server.exchanges] == [1, 2]


# A loop that is gone can close nothing any more: its sockets are left to the collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_engine_outlives_the_event_loop_that_it_was_used_in() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    engine = ProviderEngine(Endpoint(wire=WIRES["openai-chat"], model="stand-in", base_url=url))

    async def talk(engine: ProviderEngine) -> str:
        async with openai_server(port):
            heard = Recorder()
            await ask(engine, "hello", heard)
            return heard.text

    assert [asyncio.run(talk(engine)) for _ in range(2)] == ["You said: hello "] * 2
    del engine
    gc.collect()


async def test_the_key_is_in_no_repr(engine: ProviderEngine) -> None:
    assert repr(engine) == "ProviderEngine('openai-chat:stand-in')"
    assert KEY not in repr(vars(engine)["_endpoint"])
    assert engine.model == "openai-chat:stand-in"


# Stop


@pytest.mark.parametrize("prompt", ["hang", "hang after 1"])
async def test_cancelling_closes_the_providers_connection(
    engine: ProviderEngine, server: StandIn, heard: Recorder, prompt: str
) -> None:
    answer = asyncio.create_task(ask(engine, prompt, heard))
    exchange = await server.exchange()
    if prompt != "hang":
        async with asyncio.timeout(PATIENCE):
            await heard.spoken.wait()
    answer.cancel()
    async with asyncio.timeout(1):
        await exchange.abandoned.wait()
        with pytest.raises(asyncio.CancelledError):
            await answer
    assert not any(isinstance(event, ProviderError) for event in heard.events)


async def test_cancelling_one_call_leaves_the_others_alone(
    engine: ProviderEngine, server: StandIn, heard: Recorder
) -> None:
    stopped = asyncio.create_task(ask(engine, "hang", Recorder()))
    await server.exchange()
    other = asyncio.create_task(ask(engine, "deltas 500", heard))
    stopped.cancel()
    await other
    assert heard.text == "x" * 500


class FullLog(Recorder):
    """Takes no text."""

    def publish(self, event: Event, origin: Origin | None = None) -> None:
        if isinstance(event, TextDelta | ThinkingDelta):
            raise StreamStalled("the log is full")
        super().publish(event, origin)


@pytest.mark.parametrize("prompt", ["deltas 1000", "think " + "on " * 100])
async def test_a_log_that_cannot_follow_ends_the_call_and_its_request(
    engine: ProviderEngine, server: StandIn, prompt: str
) -> None:
    with pytest.raises(StreamStalled):
        await ask(engine, prompt, FullLog())


# What goes wrong


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("error 400", "The model's service refused the request (400): Refused as told."),
        ("error 401", "The model's service refused the key (401): check OPENAI_API_KEY."),
        (
            "error 403",
            "The model's service does not let this key use the model (403): "
            "check OPENAI_API_KEY and what it may use.",
        ),
        (
            "error 404",
            "The model's service does not know the model 'stand-in' or the address (404): "
            "check the model's name and OPENAI_BASE_URL.",
        ),
        (
            "error 429",
            "The model's service takes no more requests for now (429): try again in 7 seconds.",
        ),
        ("error 500", "The model's service has a fault (500): try again in a moment."),
        ("error 503", "The model's service has a fault (503): try again in a moment."),
        ("error html", "The model's service has a fault (502): try again in a moment."),
        ("error in stream", "The model's service has a fault (500): try again in a moment."),
        (
            "drop",
            "The model's service closed the connection without an answer. Try again in a moment.",
        ),
        (
            "empty",
            "The model's service sent something that this server cannot read: "
            "check that it runs, and OPENAI_BASE_URL.",
        ),
        (
            "page",
            "The model's service sent something that this server cannot read: "
            "check that it runs, and OPENAI_BASE_URL.",
        ),
        (
            "malformed",
            "The model's service sent something that this server cannot read. Try again.",
        ),
    ],
)
async def test_a_failure_is_one_sentence_that_a_person_can_act_on(
    engine: ProviderEngine, server: StandIn, heard: Recorder, prompt: str, sentence: str
) -> None:
    with pytest.raises(ProviderFailed) as failed:
        await ask(engine, prompt, heard)
    assert str(failed.value) == sentence
    assert isinstance(heard.events[-1], ProviderError)
    assert len(server.exchanges) == 1, "a request was repeated"


async def test_json_of_another_shape_is_a_failure_too_and_leaves_its_trace_in_the_log(
    engine: ProviderEngine, heard: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ProviderFailed, match=r"something that this server cannot read \(\w+\)\.$"):
        await ask(engine, "odd", heard)
    assert "openai-chat:stand-in: unexpected error" in caplog.text


@pytest.mark.parametrize("prompt", ["cut", "no finish", "no finish no done"])
async def test_an_answer_that_ends_without_a_reason_was_cut(
    engine: ProviderEngine, heard: Recorder, prompt: str
) -> None:
    with pytest.raises(ProviderFailed, match=CUT):
        await ask(engine, prompt, heard)
    assert heard.text == f"You said: {prompt} "
    assert not any(isinstance(event, ModelCallFinished) for event in heard.events)


async def test_a_key_that_the_provider_repeats_reaches_nobody(
    engine: ProviderEngine, heard: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    for status in (400, 401, 500):
        with pytest.raises(ProviderFailed) as failed:
            await ask(engine, f"error {status} echo", heard)
        assert failed.value.__cause__ is None
        assert failed.value.__suppress_context__
        assert "sk-" not in str(failed.value)
    details = [event.detail for event in heard.events if isinstance(event, ProviderError)]
    assert len(details) == 3
    assert all("[redacted]" in detail and "sk-" not in detail for detail in details)
    assert "sk-" not in caplog.text


async def test_a_key_of_no_known_form_is_hidden_too(server: StandIn, heard: Recorder) -> None:
    async with engine_at(f"{server.url}/v1", key="tulip-7") as engine:
        with pytest.raises(ProviderFailed) as failed:
            await ask(engine, "error 400 echo", heard)
    shown = str(failed.value) + repr(heard.events)
    assert "tulip" not in shown


async def test_words_that_came_with_the_failure_are_published_before_it(
    engine: ProviderEngine, heard: Recorder
) -> None:
    with pytest.raises(ProviderFailed):
        await ask(engine, "malformed", heard)
    assert [type(event) for event in heard.events] == [TextDelta, ProviderError]


async def test_a_refusal_without_a_key_asks_for_one(server: StandIn, heard: Recorder) -> None:
    async with engine_at(f"{server.url}/v1", key="") as engine:
        with pytest.raises(ProviderFailed, match=r"asks for a key \(401\): set OPENAI_API_KEY\."):
            await ask(engine, "error 401", heard)


async def test_nobody_at_the_address(heard: Recorder) -> None:
    async with engine_at(f"http://127.0.0.1:{free_port()}/v1") as engine:
        with pytest.raises(ProviderFailed) as failed:
            await ask(engine, "hello", heard)
    assert str(failed.value) == (
        "Nothing answers at the address of the model's service: "
        "check that it runs, and OPENAI_BASE_URL."
    )


async def test_a_host_that_does_not_exist(heard: Recorder) -> None:
    async with engine_at("http://nowhere.invalid/v1") as engine:
        with pytest.raises(
            ProviderFailed, match="host name of the model's service cannot be found"
        ):
            await ask(engine, "hello", heard)


@pytest.mark.parametrize("prompt", ["hang", "hang after 1"])
async def test_a_silent_provider_is_given_up(server: StandIn, heard: Recorder, prompt: str) -> None:
    async with engine_at(f"{server.url}/v1", read_timeout=0.05) as engine:
        with pytest.raises(ProviderFailed, match="was silent for"):
            await ask(engine, prompt, heard)
    async with asyncio.timeout(PATIENCE):
        await (await server.exchange()).abandoned.wait()


async def test_a_service_that_takes_no_connection_is_given_up(heard: Recorder) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        held = [socket.socket() for _ in range(4)]
        for one in held:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        async with engine_at(f"http://127.0.0.1:{port}/v1", connect_timeout=0.05) as engine:
            with pytest.raises(ProviderFailed, match="took no connection within"):
                await ask(engine, "hello", heard)
        for one in held:
            one.close()


# Anthropic and Google


OTHERS = pytest.mark.parametrize("wire", ["anthropic", "google"])


@OTHERS
async def test_other_wires_stream_thoughts_text_and_usage(wire: str, heard: Recorder) -> None:
    async with provider(wire) as (server, engine):
        turn = await ask(engine, "hello", heard)
        sent = await server.exchange()
    assert (heard.thinking, heard.text) == ("Be kind.", "Hello there.")
    assert heard.events[-1] == ModelCallFinished(
        stop_reason="stop", usage=Usage(input_tokens=10, output_tokens=9, cached_tokens=3)
    )
    assert [type(block) for block in turn.blocks] == [User, Reasoning, LlmText]
    assert any(KEY in value for value in sent.headers.values())
    assert len(server.exchanges) == 1


@OTHERS
async def test_other_wires_know_a_cut_answer(wire: str, heard: Recorder) -> None:
    async with provider(wire) as (_, engine):
        with pytest.raises(ProviderFailed, match=CUT):
            await ask(engine, "no finish", heard)
    assert heard.text == "Hello there."


@OTHERS
async def test_other_wires_know_a_broken_connection(wire: str, heard: Recorder) -> None:
    async with provider(wire) as (_, engine):
        with pytest.raises(ProviderFailed, match=CUT):
            await ask(engine, "cut", heard)
    assert heard.text == "Hello there."


@pytest.mark.parametrize(
    ("wire", "prompt", "reason"),
    [
        ("anthropic", "length", "length"),
        ("google", "length", "length"),
        ("google", "filtered", "content_filter"),
    ],
)
async def test_other_wires_pass_on_the_reason_to_stop(
    wire: str, prompt: str, reason: str, heard: Recorder
) -> None:
    async with provider(wire) as (_, engine):
        await ask(engine, prompt, heard)
    finished = heard.events[-1]
    assert isinstance(finished, ModelCallFinished)
    assert finished.stop_reason == reason


async def test_an_error_in_anthropics_stream_ends_the_answer(heard: Recorder) -> None:
    async with provider("anthropic") as (_, engine):
        with pytest.raises(ProviderFailed, match="has a fault"):
            await ask(engine, "error in stream", heard)
    assert heard.text == "Hello "
    assert isinstance(heard.events[-1], ProviderError)


@OTHERS
async def test_other_wires_name_their_own_key(wire: str, heard: Recorder) -> None:
    async with provider(wire) as (server, engine):
        with pytest.raises(ProviderFailed) as failed:
            await ask(engine, "error 401", heard)
        assert len(server.exchanges) == 1
    variable = WIRES[wire].key_variable
    assert str(failed.value) == f"The model's service refused the key (401): check {variable}."


@OTHERS
@pytest.mark.parametrize("status", [429, 500, 529])
async def test_other_wires_ask_once(wire: str, status: int, heard: Recorder) -> None:
    async with provider(wire) as (server, engine):
        with pytest.raises(ProviderFailed, match=rf"\({status}\): try again in a moment\.$"):
            await ask(engine, f"error {status}", heard)
        assert len(server.exchanges) == 1


@OTHERS
async def test_silence_is_given_up_on_other_wires(wire: str, heard: Recorder) -> None:
    async with provider(wire, read_timeout=0.05) as (_, engine):
        with pytest.raises(ProviderFailed, match="was silent for"):
            await ask(engine, "hang", heard)


@OTHERS
async def test_cancelling_closes_the_connection_on_other_wires(wire: str, heard: Recorder) -> None:
    async with provider(wire) as (server, engine):
        answer = asyncio.create_task(ask(engine, "hang", heard))
        exchange = await server.exchange()
        async with asyncio.timeout(PATIENCE):
            await heard.spoken.wait()
        answer.cancel()
        async with asyncio.timeout(1):
            await exchange.abandoned.wait()
        with pytest.raises(asyncio.CancelledError):
            await answer


async def test_reasoning_goes_back_only_to_who_signed_it(heard: Recorder) -> None:
    turn = Turn(
        blocks=(
            User(text="one"),
            Reasoning(text="Be kind.", signature=SIGNATURE, provider="anthropic"),
            Other(name="redacted_thinking", props={"provider": "anthropic", "data": "c2VjcmV0"}),
            Reasoning(text="unsigned", provider="anthropic"),
            Reasoning(text="foreign", signature=SIGNATURE, provider="google"),
            LlmText(text="Hello."),
            User(text="two"),
        )
    )
    async with provider("anthropic") as (server, engine):
        await infer(engine, turn, heard)
        sent = await server.exchange()
    messages = sent.body["messages"]
    assert isinstance(messages, list)
    assert messages[1]["content"] == [
        {"type": "thinking", "thinking": "Be kind.", "signature": SIGNATURE},
        {"type": "redacted_thinking", "data": "c2VjcmV0"},
        {"type": "text", "text": "Hello."},
    ]


async def test_signed_reasoning_comes_back_as_it_was_signed(heard: Recorder) -> None:
    async with provider("anthropic") as (_, engine):
        turn = await ask(engine, "hello", heard)
    reasoning = turn.blocks[1]
    assert isinstance(reasoning, Reasoning)
    assert (reasoning.signature, reasoning.provider) == (SIGNATURE, "anthropic")
