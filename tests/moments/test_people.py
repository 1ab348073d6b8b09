"""Moments that are about who is there: strangers, and people without a permission."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import override_settings

from chat.testing import ChatClient, Refusal
from sessions_app.inference.demo_tools import demo_send_note
from sessions_app.inference.errors import ToolDenied
from sessions_app.inference.executor import DefaultToolExecutor
from sessions_app.inference.tools import Arguments, Tool, ToolContext
from sessions_app.inference.turns import ToolCall
from sessions_app.inference.turns import User as Asked
from sessions_app.testing import GatedTool, ScriptedEngine
from webchat_project.testing import running_hub

pytestmark = pytest.mark.django_db

NOTE = ToolCall(call_id="call_1", name="demo_send_note", arguments={"text": "Hi"})
RIGHT = "auth.change_user"


async def decided_by(client: ChatClient, pause_id: str) -> tuple[int, Any]:
    given = {"conv_id": client.conv_id, "pause_id": pause_id, "decision": "continue"}
    reply = await client.post("/api/debug/continue", given)
    return reply.status, reply.body


async def test_an_approval_by_the_wrong_user_changes_nothing():
    anna = await User.objects.acreate_user("anna")
    boss = await User.objects.acreate_user("boss", is_staff=True)
    note = GatedTool(replace(demo_send_note, approval_permission=RIGHT))
    note.gate.open()
    engine = ScriptedEngine([NOTE], ["Done."])
    async with (
        running_hub(engine=engine, tools=[note.tool]),
        ChatClient(user=anna, profile="agent") as client,
    ):
        await client.send("leave a note")
        pause_id = (await client.pause())["pauseId"]
        stranger = ChatClient(client.conv_id, visitor="stranger")
        assert (await decided_by(stranger, pause_id))[0] == 404
        status, body = await decided_by(client, pause_id)
        assert (status, body["code"]) == (403, "forbidden")
        assert RIGHT in body["error"]
        assert note.calls == []
        boss.is_superuser = True
        await boss.asave()
        status, body = await decided_by(ChatClient(client.conv_id, user=boss), pause_id)
        assert (status, body["pause"]["by"]) == (200, "boss")
        answer = await client.answer()
    assert [tool.status for tool in answer.tools] == ["success"]
    assert note.calls == [{"text": "Hi"}]


async def test_after_an_eviction_a_stranger_is_refused_and_the_owner_finds_all_there():
    engine = ScriptedEngine(["One."], ["Two."])
    with override_settings(WEBCHAT={**settings.WEBCHAT, "EVICT_IDLE": 0.001}):
        async with running_hub(engine=engine) as hub:
            async with ChatClient(visitor="anna") as anna:
                await anna.ask("first")
                seen = list(anna.frames)
            await asyncio.sleep(0.01)
            sessions: Any = hub.sessions
            assert await sessions.evict_idle() == (anna.conv_id,)

            stranger = ChatClient(anna.conv_id, visitor="stranger")
            with pytest.raises(Refusal, match="403"):
                async with stranger:
                    pass
            for call in (
                stranger.post("/chat", {"prompt": "mine now", "conv_id": anna.conv_id}),
                stranger.get("/api/timeline", conv_id=anna.conv_id),
                stranger.post("/api/chat/cancel", {"conv_id": anna.conv_id}),
            ):
                assert (await call).status == 404

            async with ChatClient(anna.conv_id, visitor="anna") as again:
                snapshot = (await again.get("/api/timeline", conv_id=anna.conv_id)).body
                assert snapshot["version"] == seen[-1]["seq"]
                kept = [e["props"] for e in snapshot["entities"] if e["kind"] == "message"]
                assert [props["content"] for props in kept] == ["first", "One."]
                await again.ask("second")
    asked = [block.text for block in engine.turns[-1].blocks if isinstance(block, Asked)]
    assert asked == ["first", "second"]


class Closed(DefaultToolExecutor):
    """An app's own executor: everybody but one is kept out."""

    async def authorise(self, tool: Tool, arguments: Arguments, context: ToolContext) -> None:
        if context.owner != "visitor:anna":
            raise ToolDenied("this tool is closed today")


@pytest.mark.parametrize(("visitor", "status"), [("anna", "success"), ("bert", "denied")])
async def test_an_app_puts_in_an_executor_of_its_own_by_setting(visitor: str, status: str):
    asked = ToolCall(call_id="call_1", name="calc", arguments={"expression": "6*7"})
    own = {"TOOL_EXECUTOR": f"{__name__}.Closed"}
    with override_settings(WEBCHAT={**settings.WEBCHAT, **own}):
        async with (
            running_hub(engine=ScriptedEngine([asked], ["Done."])),
            ChatClient(visitor=visitor) as client,
        ):
            answer = await client.ask("what is 6*7?")
    assert [tool.status for tool in answer.tools] == [status]
