"""A hub in the process of the test with sessions in every state, and whoever comes to its desk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias
from uuid import uuid4

import pytest_asyncio

from chat.hub import Hub
from sessions_app.inference.demo_tools import demo_send_note
from sessions_app.inference.turns import ToolCall
from sessions_app.testing import Gate, ScriptedEngine
from sessions_app.values import PromptRequest, SessionDetail
from tests.chat.people import Person, signed_in
from webchat_project.testing import running_hub

SAID = "canary-said-4711"
"""A word of every conversation here; who may not read transcripts finds it nowhere."""

OWNER = "visitor:00112233445566778899aabbccddeeff"


class Floor:
    """The running hub, its engine, and conversations brought into a state."""

    def __init__(self, hub: Hub, engine: ScriptedEngine) -> None:
        self.hub = hub
        self.engine = engine

    async def ask(self, conv_id: str, owner: str = OWNER, **fields: str) -> None:
        await self.hub.sessions.submit(
            PromptRequest(
                owner=owner,
                prompt=SAID,
                conv_id=conv_id,
                profile=fields.get("profile"),
                idempotency_key=fields.get("key"),
            )
        )

    async def idle(self, conv_id: str, owner: str = OWNER) -> None:
        """One inference has ended."""
        self.engine.play(SAID)
        await self.ask(conv_id, owner)
        await self.until(conv_id, "idle")

    async def running(self, conv_id: str, owner: str = OWNER) -> None:
        """The model has said a word and is stuck."""
        gate = Gate(conv_id)
        self.engine.play(SAID, gate)
        await self.ask(conv_id, owner)
        await gate.reached()

    async def paused(self, conv_id: str, owner: str = OWNER) -> str:
        """A tool call waits for approval; the pause's id."""
        call = ToolCall(call_id="call-1", name=demo_send_note.name, arguments={"text": SAID})
        self.engine.play([call], [SAID])
        await self.ask(conv_id, owner, profile="agent")
        [pause] = (await self.until(conv_id, "paused")).pauses
        return pause.pause_id

    async def inspect(self, conv_id: str) -> SessionDetail:
        detail = await self.hub.sessions.inspect(conv_id)
        assert detail is not None
        return detail

    async def until(self, conv_id: str, kind: str) -> SessionDetail:
        """The session once it is in that state."""
        for _ in range(2_000):
            detail = await self.inspect(conv_id)
            if detail.session.state.kind == kind:
                return detail
            await asyncio.sleep(0.005)
        raise AssertionError(f"{await self.inspect(conv_id)}; expected {kind}")


@pytest_asyncio.fixture
async def floor(plain_static: None) -> AsyncIterator[Floor]:
    engine = ScriptedEngine()
    async with running_hub(engine=engine) as hub:
        yield Floor(hub, engine)


People: TypeAlias = Callable[..., Awaitable[Person]]


@pytest_asyncio.fixture
async def person(floor: Floor, transactional_db: None) -> People:
    """Makes an account that has signed in, with `grants` as in `"view step"`."""

    async def made(
        name: str = "", *, staff: bool = False, superuser: bool = False, grants: str = ""
    ) -> Person:
        permissions = [f"{grant}_livesession" for grant in grants.split()]
        return await signed_in(
            name or uuid4().hex, *permissions, is_staff=staff, is_superuser=superuser
        )

    return made
