"""What the log says while people talk to agents: where a line is from, and never what was said."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from chat.testing import ChatClient
from sessions_app.inference.errors import InferenceFailed
from sessions_app.inference.tools import ToolContext, tool
from sessions_app.inference.turns import ToolCall
from sessions_app.testing import Gate, ScriptedEngine, Step
from tests.logs import LogOutput, written
from webchat_project.testing import running_hub

pytestmark = pytest.mark.django_db

CANARY = "canary-4f1d9c"
log = logging.getLogger("an.app.of.somebody")


@tool
def remember(text: str) -> str:
    """Keep a note."""
    log.info("noted in %s", threading.current_thread().name)
    return f"noted: {text}"


@tool
async def forget(text: str, context: ToolContext) -> str:
    """Drop a note."""
    context.progress(0.5, f"looking for {text}")
    raise RuntimeError("the shelf fell down")


def calls(*names: str) -> list[Step]:
    return [
        f"I shall note {CANARY}",
        *(ToolCall(call_id=name, name=name, arguments={"text": CANARY}) for name in names),
    ]


@pytest.fixture
def output() -> Any:
    with written() as output:
        yield output


@pytest_asyncio.fixture
async def engine(settings) -> AsyncIterator[ScriptedEngine]:
    """Of a server with two tools."""
    profile = {"slug": "default", "tools": ["remember", "forget"], "system_prompt": CANARY}
    tools = [f"{__name__}.{name}" for name in profile["tools"]]
    settings.WEBCHAT = {"PROFILES": [profile], "TOOLS": tools}
    engine = ScriptedEngine()
    async with running_hub(engine=engine):
        yield engine


async def test_no_word_of_a_conversation_is_in_the_log(engine: ScriptedEngine, output: LogOutput):
    prompt = f"please keep {CANARY}"
    scripts: list[list[list[Step]]] = [
        [[f"an answer with {CANARY}"]],
        [calls("remember", "forget", "unknown"), [f"done with {CANARY}"]],
        [[f"half an answer {CANARY}", InferenceFailed(f"it failed at {CANARY}")]],
        [["half an answer", ValueError("a bug")]],
    ]
    async with ChatClient() as anna:
        for script in scripts:
            engine.play(*script)
            await anna.ask(prompt)
        endless = Gate("endless")
        engine.play(f"half an answer {CANARY}", endless)
        await anna.send(prompt)
        await endless.reached()
        await anna.stop()
        await anna.answer()
    statuses = [line["event"] for line in output.json if line["logger"].endswith("observing")]
    assert statuses.count("inference started") == 5
    assert CANARY not in output.text


async def test_each_line_inside_an_inference_says_which_it_is(
    engine: ScriptedEngine, output: LogOutput
):
    scripts: list[list[Step]] = [calls("remember", "forget"), ["done"]] * 2
    engine.play(*scripts)
    async with ChatClient() as anna, ChatClient(visitor="bert") as bert:
        answers = [await anna.ask("a"), await bert.ask("b")]
    for person, answer in zip((anna, bert), answers, strict=True):
        inference_id = answer.frames[-1]["inference_id"]
        mine = [line for line in output.json if line.get("inference_id") == inference_id]
        assert {line["conv_id"] for line in mine} == {person.conv_id}
        events = [line["event"].split(" (")[0] for line in mine]
        assert sorted(events) == [
            "inference completed",
            "inference started",
            "noted in webchat-tool-1",
            "tool forget raised",
        ]
