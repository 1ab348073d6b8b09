"""The far end of the wire: a page that folds what it is sent, a tab that checks it as it comes.

Both know docs/protocol.md and JSON, and share no code with the server's own fold.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Generator, Iterable, Iterator, Sequence
from itertools import cycle
from typing import Any, TypeVar

from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from chat.app_kinds import AppKinds
from chat.follower import StreamFollower
from chat.frames import Cursor, StreamFrame, encode_body, envelope, utf8_size
from chat.log import Entry, Gap, MemoryFrameLog, Numbered
from chat.pool import Connection, Flow
from chat.pump import pump
from chat.streams import Streams
from chat.timeline import Snapshot
from chat.translate import Translator
from sessions_app.inference import events
from sessions_app.inference.events import Event, Origin

Json = dict[str, Any]
T = TypeVar("T")

ORIGIN = Origin(inference_id="i", turn_id="t")


def at_once(verb: Coroutine[Any, Any, T]) -> T:
    """The result of an awaitable that must not suspend."""
    try:
        verb.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    verb.close()
    raise AssertionError(f"{verb} suspended")


def frames_of(told: Iterable[Event], kinds: AppKinds | None = None) -> list[StreamFrame]:
    """The frames that a conversation's events become."""
    translator = Translator("conv", monotonic_ms=lambda: 0, kinds=kinds)
    return [frame for event in told for frame in translator.translate(event, ORIGIN)]


def numbered(frames: Sequence[StreamFrame], *, after: int = 0, at_ms: int = 0) -> list[Numbered]:
    """The frames as the coordinator would hand them to the log."""
    batch = []
    for seq, frame in enumerate(frames, after + 1):
        text = envelope(encode_body(frame), seq)
        batch.append(Numbered(frame, Entry(seq, at_ms, text, utf8_size(text))))
    return batch


def texts_of(messages: bytes) -> list[str]:
    """The texts in bytes that a websocket server sent, each one whole message."""
    reader = StreamReader()
    reader.feed_data(messages)
    reader.feed_eof()
    texts = []
    while not at_once_from(reader.at_eof()):
        frame = at_once_from(
            Frame.parse(reader.read_exact, mask=False, max_size=None, extensions=())
        )
        assert (frame.opcode, frame.fin) == (Opcode.TEXT, True)
        texts.append(bytes(frame.data).decode())
    return texts


def at_once_from(read: Generator[None, None, T]) -> T:
    """The result of a parser that has all its bytes."""
    try:
        next(read)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("the message is not whole")


class FarLog(MemoryFrameLog):
    """A log as far away as another process: every call takes some turns to get there and back."""

    lags: Iterator[int] = cycle([1])

    async def append(self, batch: Sequence[Numbered]) -> bool:
        await self._travel()
        settled = await super().append(batch)
        await self._travel()
        return settled

    async def read(self, after: Cursor, *, limit: int) -> Sequence[Entry] | Gap:
        await self._travel()
        page = await super().read(after, limit=limit)
        await self._travel()
        return page

    def read_now(self, after: Cursor, *, limit: int) -> None:
        return None

    async def snapshot(self, *, since_version: int = 0) -> Snapshot:
        await self._travel()
        snapshot = await super().snapshot(since_version=since_version)
        await self._travel()
        return snapshot

    async def _travel(self) -> None:
        for _ in range(next(self.lags)):
            await asyncio.sleep(0)


class Page:
    """What a client shows: entities in order of first appearance, as of `version`."""

    def __init__(self) -> None:
        self.entities: dict[str, Json] = {}
        self.version = 0
        self.running = False
        self.session: Json = {}

    def replace(self, snapshot: Json) -> None:
        """Takes a snapshot instead of all that was there."""
        self.entities = {entity["id"]: undated(entity) for entity in snapshot["entities"]}
        self._state(snapshot)

    def update(self, snapshot: Json) -> None:
        """Takes a snapshot that holds only what changed."""
        self.entities |= {entity["id"]: undated(entity) for entity in snapshot["entities"]}
        self._state(snapshot)

    def take(self, event: Json) -> None:
        """Takes the next stream frame."""
        assert event["seq"] == self.version + 1, f"{event['seq']} after {self.version}"
        self.version = event["seq"]
        data = event["data"]
        match event["type"]:
            case "chat.message":
                self._put(event, "message", role=data["role"], content=data["content"])
            case "inference.started":
                self.running = True
                self._put(
                    event, "inference",
                    status="running", profile=data["profile"], model=data["model"],
                )  # fmt: skip
            case "inference.finished":
                self.running = False
                told = {key: data[key] for key in ("error", "usage") if key in data}
                self._put(
                    event, "inference",
                    status=data["status"], durationMs=data["durationMs"], **told,
                )  # fmt: skip
            case "llm.start" | "llm.thinking.start":
                self._put(
                    event, "message",
                    role=data["role"], streaming=True, status="streaming",
                    metadata={"model": data["model"]},
                )  # fmt: skip
            case "llm.delta" | "llm.thinking.delta":
                props = self._put(event, "message")
                assert len(props["content"]) == data["offset"]
                props["content"] += data["delta"]
            case "llm.final" | "llm.thinking.final":
                props = self._put(
                    event, "message",
                    streaming=False, status=data["status"], metadata=event["metadata"],
                )  # fmt: skip
                assert props["content"] == data["text"]
            case "llm.thinking.summary":
                self._put(event, "message", role="thinking", summary=data["text"])
            case "log":
                self._put(event, "log", **data)
            case "session.updated":
                self.session = {name: data[name] for name in ("profile", "stepMode")}
            case app if app.startswith("app."):
                props = self._put(event, app.removeprefix("app."), **data["props"])
                for name in data.get("removed", ()):
                    del props[name]
            case unknown:
                raise AssertionError(f"the protocol has no {unknown!r}")

    def _state(self, snapshot: Json) -> None:
        self.version, self.running = snapshot["version"], snapshot["running"]
        self.session = session_of(snapshot)

    def _put(self, event: Json, kind: str, **props: object) -> Json:
        id, seq = event["id"], event["seq"]
        if id not in self.entities:
            fresh: Json = {"content": "", "streaming": False} if kind == "message" else {}
            self.entities[id] = {"id": id, "kind": kind, "createdSeq": seq, "props": fresh}
        entity = self.entities[id]
        assert entity["kind"] == kind
        entity["updatedSeq"] = seq
        entity["props"] |= props
        return entity["props"]  # type: ignore[no-any-return]

    def assert_shows(self, snapshot: Json) -> None:
        """Fails unless the page shows exactly what the snapshot says."""
        assert (self.version, self.running) == (snapshot["version"], snapshot["running"])
        assert self.session == session_of(snapshot)
        assert list(self.entities.values()) == [undated(e) for e in snapshot["entities"]]


def session_of(snapshot: Json) -> Json:
    """What the last `session.updated` said, as a snapshot has it."""
    return {name: snapshot[name] for name in ("profile", "stepMode") if name in snapshot}


def undated(entity: Json) -> Json:
    """A copy of an entity without wall times, which no stream frame tells."""
    copy = json.loads(json.dumps(entity))
    del copy["createdAtMs"], copy["updatedAtMs"]
    return copy  # type: ignore[no-any-return]


class Truth:
    """The one text that each `seq` has, as told by whoever saw it first."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}

    def check(self, seq: int, text: str) -> None:
        assert self._texts.setdefault(seq, text) == text


class SocketClosed(AssertionError):
    """The server closed a socket from which more was expected."""


class Tab:
    """A browser tab: comes and goes, reads or does not read, and checks the law of the stream.

    Each frame follows the last one by exactly 1, or a snapshot says where to start again. One that
    is `near` takes frames in place, as on a server of ours.
    """

    def __init__(
        self,
        streams: Streams,
        conv_id: str,
        *,
        flow: Flow | None = None,
        truth: Truth | None = None,
        near: bool = False,
    ) -> None:
        self.streams, self.conv_id, self.flow, self.near = streams, conv_id, flow, near
        self.truth = truth or Truth()
        self.page = Page()
        self.epoch = 0
        self.position: int | None = None
        self.seen: list[Json] = []
        self.snapshots: list[str] = []
        self.bytes = 0
        self.connection = Connection(flow=flow)
        self.follower: StreamFollower | None = None
        self._reading = asyncio.Event()
        self._reading.set()
        self._news = asyncio.Event()
        self._pump: asyncio.Task[int] | None = None
        self._greeted: Json | None = None
        self._broken: AssertionError | None = None

    # Coming and going

    def join(self, cursor: str | None = None) -> None:
        """Opens a socket, as the consumer does."""
        assert self._pump is None
        self._greeted, self.connection = None, Connection(flow=self.flow)
        if cursor is not None:
            place = Cursor.parse(cursor)
            self.epoch, self.position = place.epoch, place.seq
        self.follower = self.streams.follower(self.conv_id)
        self.follower.join(self.connection)
        self._pump = asyncio.create_task(
            pump(
                self.connection,
                self.follower,
                self._receive,
                cursor=None if cursor is None else Cursor.parse(cursor),
                profile="chat",
                write=self._write if self.near else None,
            )
        )
        self._pump.add_done_callback(lambda _: self._news.set())

    def rejoin(self) -> None:
        """Comes back with what it has, or as a new tab when it has nothing."""
        self.join(None if self.position is None else self.cursor)

    async def drop(self) -> None:
        """The socket is gone, wherever the pump was."""
        pumping = self._leave()
        pumping.cancel()
        await asyncio.wait({pumping})
        if not pumping.cancelled():
            pumping.result()

    async def closed(self) -> int:
        """The code with which the server closes the socket."""
        assert self._pump is not None
        code = await asyncio.shield(self._pump)
        self._leave()
        return code

    @property
    def online(self) -> bool:
        return self._pump is not None

    @property
    def was_closed(self) -> bool:
        return self._pump is not None and self._pump.done()

    def is_behind(self) -> bool:
        """True when what comes next is not in its outbox."""
        return not self.connection.live

    @property
    def cursor(self) -> str:
        return f"{self.epoch}.{self.position}"

    def _leave(self) -> asyncio.Task[int]:
        if self._broken is not None:
            raise self._broken
        assert self._pump is not None
        assert self.follower is not None
        self.follower.leave(self.connection)
        leaving, self._pump = self._pump, None
        return leaving

    # Reading

    def stall(self) -> None:
        """Stops reading: whatever is sent waits."""
        self._reading.clear()

    def release(self) -> None:
        self._reading.set()

    def pong(self) -> None:
        """Says how far it has read."""
        assert self.position is not None
        self.connection.acknowledge(self.position)

    async def at(self, seq: int) -> None:
        """Returns once everything up to `seq` was read."""
        while self.position is None or self._greeted is None or self.position < seq:
            await self._next()

    async def level(self) -> None:
        """Returns once everything that is in the log was read."""
        await self.at(self.streams.head_seq(self.conv_id))

    async def saw(self, kind: str, count: int = 1) -> list[Json]:
        """The messages of that type, once there are `count` of them."""
        while len(found := [event for event in self.seen if event["type"] == kind]) < count:
            await self._next()
        return found

    async def _next(self) -> None:
        if self._pump is not None and self._pump.done():
            raise SocketClosed(f"with {self._pump.result()}")
        self._news.clear()
        await self._news.wait()

    async def _receive(self, text: str) -> None:
        await self._reading.wait()
        self._read(text)

    def _write(self, messages: bytes) -> bool:
        if not self._reading.is_set():
            return False
        try:
            for text in texts_of(messages):
                self._read(text)
        except AssertionError as error:  # in the writer's task it would be told to nobody
            self._broken = error
        return True

    def _read(self, text: str) -> None:
        message = json.loads(text)
        assert message["sem"] is True
        event: Json = message["event"]
        self.seen.append(event)
        self._take(event, text)
        self._news.set()

    def _take(self, event: Json, text: str) -> None:
        kind, data = event["type"], event["data"]
        if self._greeted is None:
            assert kind == "ws.hello", "the first message is no hello"
            self._greeted = data
            self.epoch = data["epoch"]
            if data["resumed"]:
                assert self.position is not None
                assert data["missed"] == data["headSeq"] - self.position
            else:
                self.position = None
            return
        assert kind != "ws.hello", "a second hello"
        if kind == "timeline.snapshot":
            assert "seq" not in event
            self.bytes += utf8_size(text)
            self.snapshots.append(data["reason"])
            assert data["cursor"] == f"{data['epoch']}.{data['version']}"
            assert self.position is None or data["version"] > self.position, "it goes back"
            self.epoch, self.position = data["epoch"], data["version"]
            self.page.replace(data)
        elif "seq" in event:
            self.bytes += utf8_size(text)
            assert self.position is not None, "a frame before the snapshot"
            assert event["seq"] == self.position + 1, f"{event['seq']} after {self.position}"
            self.position = event["seq"]
            self.truth.check(event["seq"], text)
            if self.page.version == event["seq"] - 1:
                self.page.take(event)
        else:
            assert kind.startswith("ws.")


# Events in any order

pieces = st.lists(
    st.sampled_from(["a", "é", "😀", "\n", "\ud83d\ude00", "\ud83d", "\ude00", " word"]), max_size=5
).map("".join)

_kinds = st.one_of(
    st.builds(events.TextDelta, pieces),
    st.builds(events.TextDelta, pieces),
    st.builds(events.ThinkingDelta, pieces),
    st.builds(events.ThinkingSummary, pieces),
    st.builds(events.ModelCallFinished, usage=st.none() | st.just(events.Usage(input_tokens=3))),
    st.builds(events.Status, note=pieces),
    st.builds(events.ProviderError, detail=pieces),
    st.builds(events.Log, message=pieces, fields=st.just({"n": 1})),
    st.builds(
        events.AppEvent,
        kind=st.just("mood"),
        id=st.sampled_from(["mood:1", "mood:2"]),
        props=st.dictionaries(st.sampled_from(["is", "why", "\ud83d"]), pieces, max_size=2),
    ),
    st.sampled_from(["call", "prompt", "start", "finish", "profile"]),
)


def _events(kinds: Sequence[Event | str]) -> Iterator[Event]:
    inference, status = "i0", ["completed", "cancelled", "failed", "max_iterations", "lost"]
    for n, kind in enumerate(kinds):
        match kind:
            case "call":
                yield events.ModelCallStarted(message_id=f"m{n}", model="model")
            case "prompt":
                yield events.PromptTaken(
                    message_id=f"u{n}", content="hi \ud83d", turn_id="t", idempotency_key="k"
                )
            case "start":
                inference = f"i{n}"
                yield events.InferenceStarted(
                    inference_id=inference, turn_id="t", profile="chat", model="model",
                    idempotency_key="k",
                )  # fmt: skip
            case "finish":
                yield events.InferenceFinished(
                    inference_id=inference,
                    status=status[n % 5],  # type: ignore[arg-type]
                    model="model",
                    stop_reason="stop",
                    duration_ms=n,
                    error="it \ud83d broke" if n % 2 else None,
                    usage=events.Usage(output_tokens=n) if n % 3 else None,
                )
            case "profile":
                yield events.SessionUpdated(profile="code", fingerprint="f", step_mode=False)
            case str():
                raise AssertionError(kind)
            case _:
                yield kind


conversations = st.lists(_kinds, max_size=40).map(lambda kinds: list(_events(kinds)))
"""Events in an order that no engine would dare, each model call and prompt with its own id."""


def inference(n: int, *answer: str, thinking: str = "") -> list[Event]:
    """A whole, ordinary inference."""
    return [
        events.PromptTaken(
            message_id=f"u{n}", content=f"prompt {n}", turn_id="t", idempotency_key=f"k{n}"
        ),
        events.InferenceStarted(
            inference_id=f"i{n}", turn_id="t", profile="chat", model="model", idempotency_key="k"
        ),
        events.ModelCallStarted(message_id=f"m{n}", model="model"),
        *([events.ThinkingDelta(thinking)] if thinking else []),
        *map(events.TextDelta, answer),
        events.ModelCallFinished(usage=events.Usage(input_tokens=1, output_tokens=2)),
        finished(n),
    ]


def finished(n: int) -> events.InferenceFinished:
    return events.InferenceFinished(
        inference_id=f"i{n}", status="completed", model="model", stop_reason="stop", duration_ms=1
    )
