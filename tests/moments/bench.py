"""The whole path in one process: manager, session, runner, loop, executor, writer and log.

Only the model and the clock are ours. What came of a run is read where people and providers read
it: the frames in the log, and the turns that the model was given.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from chat.frames import Cursor
from chat.log import Gap, Window
from chat.streams import Logs, Streams
from sessions_app.builder import ProfileEngineBuilder
from sessions_app.inference.executor import DefaultToolExecutor, LoadUser
from sessions_app.inference.middleware import MiddlewareRegistry
from sessions_app.inference.runner import InferenceRunner, nobody
from sessions_app.inference.steps import OpenPause, PersonDecision, Resolution
from sessions_app.inference.toolloop import LoopConfig
from sessions_app.inference.tools import Tool, ToolRegistry
from sessions_app.inference.turns import Block, LlmText, ToolCall
from sessions_app.manager import ManagerLimits, SessionManager
from sessions_app.profiles import Profile, Profiles
from sessions_app.session import Session
from sessions_app.store import TurnPersister, TurnStore, unpersisted
from sessions_app.testing import ScriptedEngine, Step
from sessions_app.values import PromptRequest, Submitted
from tests.rules import Frame, broken_rules, refusals

ANNA, BERT = "visitor:anna", "visitor:bert"
CONV = "conv"
LOGS: Logs | None = None
"""Where the logs are, if not in memory; see tests/moments/conftest.py."""


def model(*calls: Sequence[Step]) -> ScriptedEngine:
    """Plays one list of steps in each call, and answers `done` in those after them."""
    return ScriptedEngine(*calls, *[["done"]] * 9)


def call(name: str, call_id: str, **arguments: Any) -> ToolCall:
    return ToolCall(call_id=call_id, name=name, arguments=arguments)


class Builder(ProfileEngineBuilder):
    """The product's. `broken` profiles cannot be built."""

    broken: frozenset[str] = frozenset()

    def build(self, session: Session) -> InferenceRunner:
        if session.runtime.slug in self.broken:
            raise RuntimeError("this profile is broken")
        return super().build(session)


class Bench:
    """A server without sockets. Belongs to the running loop, whose clock is virtual."""

    def __init__(
        self,
        model: ScriptedEngine,
        *,
        tools: Sequence[Tool] = (),
        executor: DefaultToolExecutor | None = None,
        load_user: LoadUser = nobody,
        loop: LoopConfig | None = None,
        timeout: float = 3600,
        profiles: Sequence[Profile] = (),
        turn_store: TurnStore | None = None,
        turn_persister: TurnPersister = unpersisted,
        **limits: Any,
    ) -> None:
        known = ToolRegistry(tools)
        clock = asyncio.get_running_loop()
        self.model = model
        self.builder = Builder(
            lambda name: model,
            middlewares=MiddlewareRegistry(),
            inference_timeout=timeout,
            cancel_grace=5,
            tools=known,
            executor=executor or DefaultToolExecutor(),
            load_user=load_user,
            loop=loop,
        )
        names = tuple(each.name for each in tools)
        self.now_ms: Callable[[], int] = lambda: 1_000_000 + round(clock.time() * 1000)
        self.streams = Streams(window=Window(seconds=math.inf), logs=LOGS, now_ms=self.now_ms)
        self.manager = SessionManager(
            profiles=Profiles(profiles or [Profile(slug="chat", tools=names)]),
            builder=self.builder,
            streams=self.streams,
            tools=known,
            limits=ManagerLimits(**limits),
            turn_store=turn_store,
            turn_persister=turn_persister,
            now_ms=self.now_ms,
        )

    async def ask(self, prompt: str, key: str | None = None, **fields: Any) -> Submitted:
        return (await self.answer(prompt, key, **fields))[0]

    async def answer(
        self, prompt: str, key: str | None = None, **fields: Any
    ) -> tuple[Submitted, bool]:
        asked: dict[str, Any] = {"owner": ANNA, "conv_id": CONV, **fields}
        return await self.manager.submit(
            PromptRequest(prompt=prompt, idempotency_key=key or prompt, **asked)
        )

    @property
    def session(self) -> Session:
        """The live session, for what a person does at a pause."""
        return self.manager._sessions[CONV]

    async def idle(self, conv_id: str = CONV) -> None:
        """Returns when nothing runs and nothing waits."""
        while (session := self.manager._sessions.get(conv_id)) and session.active:
            await asyncio.wait({session.active._task})
            await asyncio.sleep(0)

    async def paused(self) -> OpenPause:
        """The pause that waits, when everybody does."""
        await asyncio.sleep(1)
        [pause] = self.session.steps.open
        return pause

    async def decide(self, pause: OpenPause, decision: PersonDecision, **fields: Any) -> Resolution:
        return await self.manager.decide(CONV, pause.pause_id, decision, by="anna", **fields)

    async def cancel(self, **fields: Any) -> str:
        return await self.manager.cancel(CONV, **fields)

    async def frames(self, conv_id: str = CONV) -> list[Frame]:
        """The log, from its first frame; `at_ms` is when a frame came there."""
        log = self.streams.log(conv_id)
        page = await log.read(Cursor(log.epoch, 0), limit=10**6)
        assert not isinstance(page, Gap)
        return [{**json.loads(entry.text)["event"], "at_ms": entry.at_ms} for entry in page]

    async def aclose(self) -> None:
        """Ends as the server does."""
        await self.manager.aclose()
        await self.streams.aclose()

    async def lawful(self, conv_id: str = CONV) -> list[Frame]:
        """The frames, after all that must hold when nothing runs was checked."""
        frames = await self.frames(conv_id)
        assert not (wrong := broken_rules(frames)), wrong
        for turn in self.model.turns:
            assert not (wrong := refusals(turn)), (wrong, turn.blocks)
        return frames

    async def next_request(self) -> list[Block]:
        """What the model is sent when one more prompt is asked, after the law was checked."""
        await self.idle()
        await self.ask("and then?")
        await self.idle()
        await self.lawful()
        return list(self.model.turns[-1].blocks)


def of(frames: Sequence[Frame], kind: str) -> list[Frame]:
    return [frame for frame in frames if frame["type"] == kind]


def ends(frames: Sequence[Frame]) -> list[str]:
    """How the inferences ended, in their order."""
    return [frame["data"]["status"] for frame in of(frames, "inference.finished")]


def kinds(frames: Sequence[Frame]) -> list[str]:
    return [frame["type"] for frame in frames]


def said(blocks: Sequence[Block]) -> list[str]:
    return [block.text for block in blocks if isinstance(block, LlmText)]
