"""Tools of MCP servers from the settings to the frames, the way a client meets them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from chat.testing import ChatClient
from sessions_app.inference.tools import MASK
from sessions_app.inference.turns import ToolCall
from sessions_app.manager import SessionManager
from sessions_app.testing import ScriptedEngine
from tests.live import ROOT
from webchat_project.testing import running_hub

pytestmark = pytest.mark.django_db

SECRET = "s3cret-of-the-person"
STAND_IN = {
    "command": sys.executable,
    "args": ["-m", "tests.standins.mcp_server"],
    "env": {"PYTHONPATH": str(ROOT)},
    "secrets": ["token"],
}


def webchat(server: Mapping[str, object], **profile: object) -> dict[str, Any]:
    return {
        "PROFILES": [{"slug": "default", "tools": ["calc", "x_*"], **profile}],
        "MCP_SERVERS": {"x": server},
    }


def call(name: str, /, **arguments: object) -> ToolCall:
    return ToolCall(call_id=f"call-of-{name}", name=name, arguments=arguments)


def calling(*calls: ToolCall) -> ScriptedEngine:
    return ScriptedEngine(list(calls), ["Done."])


async def test_a_call_to_a_server_is_told_as_any_other_and_its_secrets_are_not(settings):
    settings.WEBCHAT = webchat(STAND_IN)
    engine = calling(
        call("x_wait", seconds=0, name="anna"), call("x_echo", text="token: ", token=SECRET)
    )
    async with running_hub(engine=engine) as hub, ChatClient() as client:
        answer = await client.ask("go on")
        assert isinstance(hub.sessions, SessionManager)
        transcript = await hub.sessions.transcript(client.conv_id, turns=1)

    kinds = [frame["type"] for frame in client.frames if frame["id"] == "call-of-x_wait"]
    assert kinds == ["tool.start", "tool.delta", "tool.delta", "tool.result", "tool.done"]
    waited, echoed = answer.tools
    assert (waited.name, waited.status, waited.result) == ("x_wait", "success", "anna is done")
    assert echoed.input == {"text": "token: ", "token": MASK}
    assert (echoed.status, echoed.result) == ("success", f"token: {MASK}")
    assert SECRET not in str(client.frames)
    assert SECRET not in str(transcript)
    assert answer.status == "completed"


async def test_a_server_that_cannot_be_reached_is_told_and_its_secrets_are_not(settings):
    settings.WEBCHAT = webchat({**STAND_IN, "command": "no-such-program"})
    engine = calling(call("x_echo", token=SECRET), call("calc", expression="6*7"))
    async with running_hub(engine=engine) as hub, ChatClient() as client:
        answer = await client.ask("go on")
        assert isinstance(hub.sessions, SessionManager)
        transcript = await hub.sessions.transcript(client.conv_id, turns=1)

    why = "the MCP server 'x' cannot be started: No such file or directory"
    [line] = answer.of("log")
    assert line["data"]["level"] == "warning"
    assert line["data"]["message"] == f"Tools may be missing: {why}."
    echoed, calculated = answer.tools
    assert (echoed.status, echoed.result) == ("error", f"x_echo cannot be called now: {why}")
    assert (calculated.status, calculated.result) == ("success", "42")
    assert answer.status == "completed"
    assert SECRET not in f"{client.frames} {transcript}"


async def test_a_profile_that_always_asks_asks_before_a_servers_tools(settings):
    settings.WEBCHAT = webchat(STAND_IN, approval="always")
    engine = calling(call("x_echo", text="hello"))
    async with running_hub(engine=engine), ChatClient() as client:
        await client.send("go on")
        [waiting] = (await client.pause())["extra"]["toolCalls"]
        await client.decide("continue")
        answer = await client.answer()

    assert (waiting["name"], waiting["needsApproval"]) == ("x_echo", True)
    assert [tool.result for tool in answer.tools] == ["hello"]


async def test_an_override_may_choose_among_a_servers_tools(settings):
    settings.WEBCHAT = webchat(STAND_IN, allow_overrides=True)
    engine = calling(call("x_echo", text="hello"), call("x_process"))
    async with running_hub(engine=engine), ChatClient() as client:
        answer = await client.ask("go on", overrides={"tools": ["x_echo"]})
        refused = await client.post(
            "/chat", {"prompt": "go on", "overrides": {"tools": ["y_echo"]}}
        )

    assert [tool.status for tool in answer.tools] == ["success", "error"]
    assert "expected one of: x_echo" in str(answer.tools[1].result)
    assert (refused.status, refused.body["code"]) == (400, "bad_override")


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The settings in docs/tools.md, in the folder where the program beside them is."""
    text = (ROOT / "docs" / "tools.md").read_text()
    section = text.partition("## MCP servers")[2].partition("\n## ")[0]
    program, settings = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "dice.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    assert isinstance(settings, str)
    return settings


async def test_the_example_in_the_documents_runs_as_it_stands(settings, documented: str):
    settings.WEBCHAT = {"PROFILES": [{"slug": "default", "tools": ["calc"]}]}
    exec(documented, {"WEBCHAT": settings.WEBCHAT})

    async with running_hub(engine=calling(call("dice_roll", sides=1))), ChatClient() as client:
        answer = await client.ask("roll a die")

    assert [(tool.status, tool.result) for tool in answer.tools] == [("success", "1")]
