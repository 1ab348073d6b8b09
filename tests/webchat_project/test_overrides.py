"""Overrides that cannot be built, against the hub as the server wires it."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from chat.testing import ChatClient
from sessions_app.testing import Gate, ScriptedEngine
from webchat_project.testing import running_hub

pytestmark = pytest.mark.django_db

OPEN = {"slug": "open", "tools": ["calc"], "allow_overrides": True}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"middlewares": [{"name": "loging"}]}, "Did you mean 'logging'?"),
        ({"middlewares": [{"name": "agent-mode"}]}, "missing required field `modes`"),
        ({"middlewares": [{"name": "logging"}, {"name": "logging"}]}, "the id is taken"),
        ({"tools": ["calc", "calc"]}, "two tools are named 'calc'"),
    ],
)
async def test_they_are_refused_whether_the_conversation_is_idle_or_busy(
    overrides: dict[str, Any], said: str
):
    gate = Gate("busy")
    own = {"PROFILES": [OPEN]}
    with override_settings(WEBCHAT={**settings.WEBCHAT, **own}):
        async with (
            running_hub(engine=ScriptedEngine("Hi.", gate)),
            ChatClient(profile="open") as client,
        ):
            wrong = {"prompt": "x", "conv_id": client.conv_id, "overrides": overrides}
            idle = await client.post("/chat", wrong)
            await client.send("hello")
            await gate.reached()
            busy = await client.post("/chat", wrong)
            gate.open()
            answer = await client.answer()

    for reply in (idle, busy):
        assert (reply.status, reply.body["code"]) == (400, "bad_override")
        assert said in reply.body["error"]
    assert answer.status == "completed"
