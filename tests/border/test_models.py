"""A real model's wire under the real servers: a stand-in speaks OpenAI's over HTTP on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import pytest
import pytest_asyncio

from tests.client import Frame, Visitor, text_of, visitor
from tests.live import SERVERS, live_server
from tests.standins.http import PATIENCE, StandIn
from tests.standins.openai_server import CACHED_TOKENS, PROMPT_TOKENS, openai_server

# One loop for the module: the stand-in lives in it, and answers only while a test runs.
pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-the-operators-key-0123456789"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model() -> AsyncIterator[StandIn]:
    async with openai_server() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SERVERS)
async def carl(request: pytest.FixtureRequest, model: StandIn) -> AsyncIterator[Visitor]:
    """A visitor of a server whose model is the stand-in."""
    env = {
        "WEBCHAT_MODEL": "openai-chat:test",
        "OPENAI_BASE_URL": f"{model.url}/v1",
        "OPENAI_API_KEY": KEY,
    }
    async with live_server(request.param, env=env) as server, visitor(server.url) as somebody:
        yield somebody
        assert KEY not in server.log


def only(frames: list[Frame], kind: str) -> Frame:
    [frame] = [frame for frame in frames if frame["type"] == kind]
    return frame


async def test_its_words_its_name_and_its_usage_are_in_the_frames(carl: Visitor, conv: str):
    frames = await carl.hear("hello there", conv)

    usage = {
        "inputTokens": PROMPT_TOKENS,
        "outputTokens": 4,
        "cachedTokens": CACHED_TOKENS,
    }
    final, finished = only(frames, "llm.final"), only(frames, "inference.finished")
    assert text_of(frames) == final["data"]["text"] == "You said: hello there "
    assert final["metadata"]["usage"] == usage
    assert finished["data"]["status"] == "completed"
    assert finished["data"]["usage"] == usage
    for frame in (final, finished):
        assert frame["metadata"]["stopReason"] == "stop"
    assert "openai-chat:test" in only(frames, "inference.started")["data"]["model"]


async def test_its_reasoning_is_thinking_closed_before_the_text(carl: Visitor, conv: str):
    frames = await carl.hear("think", conv)

    kinds = [frame["type"] for frame in frames]
    assert text_of(frames, "llm.thinking.delta") == "Let me think."
    assert only(frames, "llm.thinking.final")["data"]["text"] == "Let me think."
    assert kinds.index("llm.thinking.final") < kinds.index("llm.start")


async def test_a_thousand_deltas_arrive_as_one_text(carl: Visitor, conv: str):
    frames = await carl.hear("deltas 1000", conv)

    assert text_of(frames) == only(frames, "llm.final")["data"]["text"] == "x" * 1000


@pytest.mark.parametrize("prompt", ["error 401", "error 429", "error 500", "error html", "drop"])
async def test_a_refusal_before_the_first_word_is_told_in_one_sentence(
    carl: Visitor, conv: str, prompt: str
):
    frames = await carl.hear(prompt, conv)

    kinds = [frame["type"] for frame in frames]
    assert kinds == ["chat.message", "inference.started", "inference.finished"]
    assert_failed(frames)


async def test_a_key_that_the_service_repeats_is_not_told(carl: Visitor, conv: str):
    frames = await carl.hear("error 401 echo", conv)

    assert_failed(frames)


@pytest.mark.parametrize(
    "prompt", ["cut", "no finish", "no finish no done", "malformed", "error in stream"]
)
async def test_an_answer_that_breaks_off_has_failed_and_keeps_its_words(
    carl: Visitor, conv: str, prompt: str
):
    frames = await carl.hear(prompt, conv)

    assert only(frames, "llm.final") == frames[-2]
    assert frames[-2]["data"] == {"text": f"You said: {prompt} ", "status": "failed"}
    assert_failed(frames)


async def test_an_answer_at_the_models_limit_is_completed_and_says_why(carl: Visitor, conv: str):
    frames = await carl.hear("length", conv)

    assert frames[-1]["data"]["status"] == "completed"
    assert frames[-1]["metadata"]["stopReason"] == "length"


@pytest.mark.parametrize("prompt", ["hang", "hang after 2"])
async def test_stop_closes_the_services_connection_within_a_second(
    carl: Visitor, model: StandIn, conv: str, prompt: str
):
    async with carl.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        number = len(model.exchanges) + 1
        await carl.chat(prompt, conv)
        exchange = await model.exchange(number)
        if prompt != "hang":
            await socket.until("llm.delta")
        asked = monotonic()
        await carl.post("/api/chat/cancel", {"conv_id": conv})
        frames = await socket.until("inference.finished")
        async with asyncio.timeout(PATIENCE):
            await exchange.abandoned.wait()
        took = monotonic() - asked

    assert frames[-1]["data"]["status"] == "cancelled"
    assert took < 1


async def test_the_next_request_is_a_transcript_that_alternates(
    carl: Visitor, model: StandIn, conv: str
):
    for prompt in ("hello", "error 500", "cut", "again"):
        await carl.hear(prompt, conv)

    messages = model.exchanges[-1].body["messages"]
    assert isinstance(messages, list)
    assert [message["role"] for message in messages] == [
        "system",
        *["user", "assistant"] * 3,
        "user",
    ]
    said = [message["content"] for message in messages[1:]]
    assert said[0::2] == ["hello", "error 500", "cut", "again"]
    assert said[1] == "You said: hello "
    assert said[3].startswith("[no answer:")
    assert said[5].startswith("You said: cut ")
    assert model.exchanges[-1].headers["authorization"] == f"Bearer {KEY}"


def assert_failed(frames: list[Frame]) -> None:
    finished = frames[-1]
    assert finished["data"]["status"] == "failed"
    assert finished["metadata"]["stopReason"] == "error"
    sentence = finished["data"]["error"]
    assert len(sentence) > 20
    assert "\n" not in sentence
    for secret in (KEY, "Traceback", "site-packages"):
        assert secret not in str(frames)
