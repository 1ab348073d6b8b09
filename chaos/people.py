"""Who uses the service: tabs that come and go with their cursors, and users who ask for things."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlencode
from uuid import uuid4

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Origin

from .engine import Orders
from .history import Decided, History, Place, Promise, Said
from .service import Server, Service

PONG_BYTES = 32 * 1024
CALL_SECONDS = 12.0


class Pause(NamedTuple):
    """One that somebody saw. `calls` are those that wait, if any do."""

    history: History
    id: str
    calls: Sequence[str]


class Crowd:
    """What tabs and users share: the service, one visitor's cookies, and what is counted."""

    def __init__(self, service: Service, http: httpx.AsyncClient, seed: int) -> None:
        self.service = service
        self.random = random.Random(seed)  # noqa: S311 - guards nothing
        self.counts: Counter[str] = Counter()
        self.pauses: deque[Pause] = deque(maxlen=1000)
        self.asking = True
        """Users ask for things."""
        self.leaving = True
        """Tabs come and go; else they stay where they are."""
        self._http = http
        self._seen: set[str] = set()

    @property
    def headers(self) -> Mapping[str, str]:
        cookies = self._http.cookies.jar
        return {"Cookie": "; ".join(f"{cookie.name}={cookie.value}" for cookie in cookies)}

    def note(self, pause: Pause) -> None:
        """A tab saw it. Sometimes two people hear of one."""
        if pause.id not in self._seen or self.random.random() < 0.1:
            self._seen.add(pause.id)
            self.pauses.append(pause)

    async def post(self, path: str, body: Mapping[str, object]) -> tuple[int, Any, Said]:
        """At any server; status 0 where there was no answer."""
        url = f"{self.service.any(self.random).url}{path}"
        token = {"X-CSRFToken": self._http.cookies["csrftoken"]}
        asked = time.monotonic()
        try:
            answer = await self._http.post(url, json=body, headers=token)
            self.counts[f"http {answer.status_code}"] += 1
            return answer.status_code, answer.json(), Said(asked, time.monotonic())
        except (httpx.HTTPError, ValueError):
            self.counts["http none"] += 1
            return 0, None, Said(asked, time.monotonic())


class _Event(msgspec.Struct):
    type: str
    id: str = ""
    seq: int = 0
    stream_id: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")


class _Message(msgspec.Struct):
    event: _Event


class _Hello(msgspec.Struct, rename="camel"):
    epoch: int
    resumed: bool
    head_seq: int


class _Call(msgspec.Struct):
    id: str


class _Extra(msgspec.Struct):
    tool_calls: list[_Call] = msgspec.field(default_factory=list, name="toolCalls")


class _Paused(msgspec.Struct):
    extra: _Extra


_message = msgspec.json.Decoder(_Message)
_paused = msgspec.json.Decoder(_Paused)
_hello = msgspec.json.Decoder(_Hello)


class Tab:
    """One client. `place` is what it has seen; None: nothing."""

    def __init__(self, crowd: Crowd, history: History) -> None:
        self.history = history
        self.place: Place | None = None
        self.here = asyncio.Event()
        """Cleared: it stays away."""
        self.here.set()
        self._crowd = crowd
        self._server: Server | None = None
        self._websocket: ClientConnection | None = None
        self._connected = self._leaves = 0.0
        self._unanswered = 0

    def go_away(self) -> None:
        self.here.clear()
        self._drop()

    def look(self) -> None:
        """Called again and again: leaves a server that is away, and also when it feels like it."""
        left = self._crowd.leaving and time.monotonic() > self._leaves
        if left or (self._server is not None and not self._server.up):
            self._drop()

    async def run(self) -> None:
        """Connects again and again, for ever."""
        crowd, chance = self._crowd, self._crowd.random
        while True:
            await self.here.wait()
            with suppress(OSError, WebSocketException, TimeoutError):
                await self._stay(crowd.service.any(chance))
            crowd.counts["aborts"] += 1
            if crowd.leaving and chance.random() < 0.1:
                self.place = None
            await asyncio.sleep(chance.choice((0.05, 0.1, 0.3, 1.5)) if crowd.leaving else 0.2)

    async def _stay(self, server: Server) -> None:
        query = {"conv_id": self.history.conv_id}
        if self.place is not None and self.place.epoch:
            query["cursor"] = str(self.place)
        self._connected = time.monotonic()
        self._leaves = self._connected + self._crowd.random.expovariate(1 / 5)
        async with connect(
            f"{server.url.replace('http', 'ws', 1)}/ws?{urlencode(query)}",
            additional_headers=self._crowd.headers,
            origin=Origin(server.url),
            compression=None,
            proxy=None,
            max_size=None,
            open_timeout=8,
            close_timeout=1,
            ping_interval=None,
        ) as websocket:
            self._websocket, self._server = websocket, server
            self._unanswered = 0
            if "cursor" not in query:
                self.place = None
            try:
                async for text in websocket:
                    await self._read(str(text))
            finally:
                self._drop()

    def _drop(self) -> None:
        """Without a word, as a network is lost."""
        websocket, self._websocket, self._server = self._websocket, None, None
        if websocket is not None:
            websocket.transport.abort()

    async def _read(self, text: str) -> None:
        crowd = self._crowd
        event = _message.decode(text).event
        if event.type == "ws.hello":
            hello = _hello.decode(event.data)
            if hello.resumed:
                crowd.counts["resumes"] += 1
                self.history.resumed(self.place, hello.epoch, self._connected)
        elif event.type == "timeline.snapshot":
            self.place = self.history.snapshot(bytes(event.data), self._connected)
            crowd.counts["snapshots"] += 1
        elif event.seq:
            if self.place is None:
                self.history.wrong("order", f"{event.seq} came before a snapshot")
                return
            self.place = self.history.frame(self.place, event.seq, event.stream_id, text)
            crowd.counts["frames"] += 1
            if event.type == "debugger.pause":
                calls = [call.id for call in _paused.decode(event.data).extra.tool_calls]
                crowd.note(Pause(self.history, event.id, calls))
        self._unanswered += len(text)
        if self._unanswered > PONG_BYTES and self._websocket is not None:
            self._unanswered = 0
            seq = 0 if self.place is None else self.place.seq
            await self._websocket.send(f'{{"type":"ws.pong","seq":{seq}}}')


async def watch(tabs: Sequence[Tab]) -> None:
    """Has them look about, for ever."""
    while True:
        await asyncio.sleep(0.1)
        for tab in tabs:
            tab.look()


class User:
    """Submits, repeats itself, cancels, decides pauses, switches step mode, takes prompts back."""

    def __init__(self, crowd: Crowd, histories: list[History]) -> None:
        self._crowd = crowd
        self._histories = histories

    async def run(self) -> None:
        """Until nobody is to ask any more."""
        crowd, chance = self._crowd, self._crowd.random
        while crowd.asking:
            history = chance.choice(self._histories)
            key = str(uuid4())
            answer = await self._submit(history, key, self._request(history, key))
            if answer is not None and chance.random() < 0.2:
                await asyncio.sleep(chance.random())
                await self._change(history, key, answer)
            await self._decide()
            if chance.random() < 0.1:
                enabled = chance.random() < 0.3
                body = {"conv_id": history.conv_id, "enabled": enabled}
                await crowd.post("/api/debug/step-mode", body)
            await asyncio.sleep(chance.random() * 0.6)

    async def settle(self) -> None:
        """Step mode goes on or off everywhere. When nobody else asks for anything."""
        await asyncio.gather(*(self._settle(history) for history in self._histories))

    async def _settle(self, history: History) -> None:
        crowd = self._crowd
        enabled = crowd.random.random() < 0.3
        body = {"conv_id": history.conv_id, "enabled": enabled}
        for _ in range(SETTLE_TRIES):
            status, _, said = await crowd.post("/api/debug/step-mode", body)
            if status in (200, 404):  # 404: all was lost, and nobody has asked since
                history.step_mode = (enabled, said) if status == 200 else None
                return
            await asyncio.sleep(0.2)

    async def leave_work(self) -> None:
        """Every conversation gets something that runs for seconds."""
        orders = Orders(pieces=200, every=0.02).encode()
        await asyncio.gather(
            *(
                self._submit(
                    history,
                    key := str(uuid4()),
                    {"prompt": orders, "conv_id": history.conv_id, "idempotency_key": key},
                )
                for history in self._histories
            )
        )

    def _request(self, history: History, key: str) -> dict[str, object]:
        chance = self._crowd.random
        orders = Orders(
            pieces=chance.randint(20, 200),
            every=chance.choice((0.002, 0.005, 0.01)),
            tool=chance.choice(("", "", "look", "act")),
            word=key,
        )
        return {
            "prompt": orders.encode(),
            "conv_id": history.conv_id,
            "idempotency_key": key,
            "policy": chance.choice(("queue",) * 8 + ("interrupt", "reject")),
        }

    async def _submit(
        self, history: History, key: str, request: dict[str, object]
    ) -> dict[str, Any] | None:
        """Asks, with one key, until it is answered; sometimes once more after that."""
        crowd, chance = self._crowd, self._crowd.random
        again = chance.random() < 0.3
        accepted: dict[str, Any] | None = None
        while True:
            status, answer, said = await crowd.post("/chat", request)
            if status in (200, 202):
                self._accepted(history, key, said, answer)
                if accepted is not None or not again:
                    return dict(answer)
                accepted = answer
            elif status in (0, 503):
                if not crowd.asking:
                    return accepted
                await asyncio.sleep(0.2)
            elif status in (409, 429):
                if accepted is not None and not history.forgiven(history.prompts[key].said):
                    history.wrong("key", f"{key} was accepted, and then got {status}")
                return None
            else:
                history.wrong("http", f"/chat answered {status}: {answer}")
                return None

    def _accepted(self, history: History, key: str, said: Said, answer: dict[str, Any]) -> None:
        inference_id = answer.get("inference_id", "")
        before = history.prompts.get(key)
        if before is None or history.forgiven(before.said):
            history.prompts[key] = Promise(said, inference_id)
        elif before.inference_id != inference_id:
            history.wrong("key", f"{key} got {before.inference_id!r} and {inference_id!r}")

    async def _change(self, history: History, key: str, answer: dict[str, Any]) -> None:
        """Cancels what runs, or takes back what waits."""
        crowd = self._crowd
        if (inference_id := answer.get("inference_id")) is not None:
            body = {"conv_id": history.conv_id, "inference_id": inference_id}
            status, _, said = await crowd.post("/api/chat/cancel", body)
            if status == 200:
                history.cancels[inference_id] = said
        else:
            body = {"conv_id": history.conv_id, "idempotency_key": key}
            status, _, said = await crowd.post("/api/chat/queue/remove", body)
            if status == 200 and key in history.prompts:
                history.prompts[key].removed = said
            elif status in (0, 503):
                # Nobody knows whether it was.
                history.prompts.pop(key, None)

    async def _decide(self) -> None:
        crowd = self._crowd
        while crowd.pauses:
            history, pause_id, calls = crowd.pauses.popleft()
            decision = crowd.random.choice(DECISIONS if calls else DECISIONS_AFTER)
            body: dict[str, object] = {
                "conv_id": history.conv_id,
                "pause_id": pause_id,
                "decision": decision,
            }
            if decision == "edit":
                edits = {call: {"word": f"edited {uuid4()}"} for call in calls}
                history.edits.setdefault(pause_id, []).append(edits)
                body["edits"] = edits
            status, answer, said = await crowd.post("/api/debug/continue", body)
            if status in (200, 409):
                crowd.counts[f"decided {answer['pause']['decision']}"] += 1
                self._decided(history, pause_id, answer["pause"]["decision"], said)
            elif status not in (0, 404, 503):
                history.wrong("http", f"/api/debug/continue answered {status}: {answer}")

    def _decided(self, history: History, pause_id: str, decision: str, said: Said) -> None:
        """Who comes late is told how it was decided."""
        before = history.decisions.get(pause_id)
        if before is None or history.forgiven(before.said):
            history.decisions[pause_id] = Decided(decision, said)
        elif before.decision != decision:
            history.wrong("decision", f"{pause_id} was decided {before.decision} and {decision}")


DECISIONS = ("continue", "continue", "edit", "edit", "skip", "abort")
DECISIONS_AFTER = ("continue", "continue", "abort")
SETTLE_TRIES = 60
