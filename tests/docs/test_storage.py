"""The two stores of docs/storage.md keep a conversation over a restart, for its owner alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.core.checks import run_checks
from django.template.loader import render_to_string

from chat.app_kinds import default_kinds
from chat.apps import hub
from chat.cards import Card, arrange
from chat.testing import ChatClient, Refusal
from sessions_app.inference.events import ThinkingDelta
from sessions_app.inference.tools import MASK, tool
from sessions_app.inference.turns import LlmText, ToolCall, Turn, User
from sessions_app.store import StoredConversation
from sessions_app.testing import Gate, ScriptedEngine
from tests.docs.examples import ROOT, examples, importing
from webchat_project.testing import running_hub

pytestmark = pytest.mark.django_db

ANNA = "visitor:anna"
PIN = "4711"
PAY = ToolCall(call_id="call_1", name="pay", arguments={"amount": 7, "pin": PIN})


@tool(secrets={"pin"})
async def pay(amount: int, pin: str) -> str:
    """Pays."""
    return f"paid {amount} with {pin}"


@pytest.fixture(params=["memory", "files"])
def shop(request: pytest.FixtureRequest, settings) -> Iterator[ModuleType]:
    """One of the page's two stores, wired as the page says."""
    page = ROOT / "docs" / "storage.md"
    with importing() as imported:
        module: Any = None
        fragment: dict[str, str] = {}
        for example in examples(page):
            if example.module_name == f"shop.{request.param}":
                module = imported(example)
        for example in examples(page):
            if f"shop.{request.param}.persist" in example.code:
                fragment = imported(example).WEBCHAT
        profile = {"slug": "default", "tools": ["pay"]}
        settings.WEBCHAT = {"PROFILES": [profile], "TOOLS": [f"{__name__}.pay"], **fragment}
        yield module


def written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def store_of(shop: ModuleType) -> Any:
    return getattr(shop, "FileTurnStore", None) or shop.MemoryTurnStore


def cards(snapshot: dict[str, Any]) -> list[dict[str, Any]]:
    """What a page shows, without what docs/storage.md says is not kept."""
    shown = []
    for entity in snapshot["entities"]:
        props = {
            name: value
            for name, value in entity["props"].items()
            if name in ("role", "content", "status", "name", "result", "done")
        }
        given = entity["props"].get("input")
        shown.append({"kind": entity["kind"], "input": given, **props})
    return shown


async def timeline(client: ChatClient) -> dict[str, Any]:
    reply = await client.get("/api/timeline", conv_id=client.conv_id)
    assert reply.status == 200, reply
    body: dict[str, Any] = reply.body
    return body


async def inference(client: ChatClient) -> Card:
    """The first answer as the page draws it."""
    snapshot = await hub().streams.snapshot(client.conv_id)
    return next(c for c in arrange(snapshot.entities, default_kinds) if c.name == "inference")


async def test_after_a_restart_the_page_and_the_model_have_the_whole_history(shop: ModuleType):
    engine = ScriptedEngine([ThinkingDelta("hm"), "Let me pay.", PAY], ["Paid."], ["Hello."])
    async with running_hub(engine=engine), ChatClient(visitor="anna") as client:
        await client.ask("pay 7")
        await client.ask("hello")
        before = cards(await timeline(client))

    again = ScriptedEngine("You paid 7.")
    async with running_hub(engine=again):
        async with ChatClient(client.conv_id, visitor="anna") as back:
            assert cards(await timeline(back)) == before
            # Nobody knows any more how long it took, and nothing pretends to.
            export = await back.get(f"/c/{back.conv_id}/export.md")
            assert " ms" not in export.body
            page = render_to_string("chat/cards/inference.html", {"card": await inference(back)})
            assert "Thought" in page
            assert " ms" not in page
            await back.ask("what did I pay?")
        [turn] = again.turns

    said = [block.text for block in turn.blocks if isinstance(block, User | LlmText)]
    assert said == ["pay 7", "Let me pay.", "Paid.", "hello", "Hello.", "what did I pay?"]


async def test_an_answer_that_was_stopped_comes_back_as_stopped(shop: ModuleType):
    middle, start = Gate("middle"), Gate("start")
    engine = ScriptedEngine(["Hel", middle], [start])
    async with running_hub(engine=engine), ChatClient(visitor="anna") as client:
        for prompt, gate in (("one", middle), ("two", start)):
            await client.send(prompt)
            await gate.reached()
            await client.stop()
            await client.answer()
        before = cards(await timeline(client))

    async with running_hub(), ChatClient(client.conv_id, visitor="anna") as back:
        after = cards(await timeline(back))
    assert [card.get("status") for card in before] == [
        None, "cancelled", "stopped", None, "cancelled",
    ]  # fmt: skip
    assert after == before


async def test_the_owner_is_kept_and_a_stranger_refused(shop: ModuleType):
    async with running_hub(engine=ScriptedEngine("Hello.")), ChatClient(visitor="anna") as client:
        await client.ask("hi")

    async with running_hub() as hub:
        stranger = ChatClient(client.conv_id, visitor="bert")
        with pytest.raises(Refusal, match="403"):
            async with stranger:
                pass
        assert (await stranger.get("/api/timeline", conv_id=client.conv_id)).status == 404
        with pytest.raises(Refusal, match="404"):
            await stranger.send("let me in")
        info = await hub.sessions.find(client.conv_id)
        assert info is not None
        assert info.owner == ANNA


async def test_who_signs_in_takes_kept_conversations_along(shop: ModuleType):
    async with running_hub(engine=ScriptedEngine("Hello.")):
        async with ChatClient(visitor="anna") as client:
            await client.ask("hi")
        async with ChatClient(visitor="bert") as other:
            await other.ask("hi")

    async with running_hub() as hub:
        await hub.sessions.transfer(ANNA, "user:7")
    async with running_hub() as hub:
        found = [await hub.sessions.find(each.conv_id) for each in (client, other)]
        assert [info and info.owner for info in found] == ["user:7", "visitor:bert"]


async def test_no_secret_is_kept(shop: ModuleType, tmp_path: Path):
    engine = ScriptedEngine([PAY], ["Paid."])
    async with running_hub(engine=engine), ChatClient(visitor="anna") as client:
        await client.ask("pay")

    kept = await store_of(shop)().load(client.conv_id)
    assert PIN not in repr(kept)
    [call] = [block for block in kept.turns[-1].blocks if isinstance(block, ToolCall)]
    assert call.arguments == {"amount": 7, "pin": MASK}
    assert all(PIN.encode() not in file.read_bytes() for file in written(tmp_path))


async def test_how_an_inference_ended_is_kept_with_its_turn(shop: ModuleType):
    engine = ScriptedEngine(RuntimeError("broken"))
    async with running_hub(engine=engine), ChatClient(visitor="anna") as client:
        await client.ask("hi")

    kept = await store_of(shop)().load(client.conv_id)
    [turn] = kept.turns
    assert turn.metadata.outcome == "failed"


async def test_what_a_stop_of_the_server_ended_is_kept(shop: ModuleType):
    gate = Gate("middle")
    engine = ScriptedEngine("Hel", gate)
    async with running_hub(engine=engine), ChatClient(visitor="anna") as client:
        await client.send("hi")
        await gate.reached()

    kept = await store_of(shop)().load(client.conv_id)
    assert kept.turns[-1].metadata.outcome == "cancelled"
    assert kept.turns[-1].blocks[-1].text == "Hel"


# Files


@pytest.fixture
def files(settings) -> Iterator[Any]:
    with importing() as imported:
        for example in examples(ROOT / "docs" / "storage.md"):
            if example.module_name == "shop.files":
                yield imported(example)


def conversation(conv_id: str, text: str = "hi") -> StoredConversation:
    turn = Turn(blocks=(User(text=text),))
    return StoredConversation(
        conv_id=conv_id,
        owner=ANNA,
        profile="default",
        title=text,
        created_ms=1,
        last_activity_ms=2,
        turns=(turn,),
    )


IDS = ["a", "A", "con", "..:..", "a.b", "a:b", "x" * 128]


async def test_every_id_has_a_file_of_its_own_inside_the_folder(files: Any, tmp_path: Path):
    store = files.FileTurnStore()
    for conv_id in IDS:
        await files.persist(conversation(conv_id, f"I am {conv_id}"))

    assert [(await store.load(conv_id)).title for conv_id in IDS] == [f"I am {id}" for id in IDS]
    assert len({path.name.lower() for path in written(tmp_path)}) == len(IDS)
    assert {path.parent for path in written(tmp_path)} == {tmp_path / "conversations"}
    assert await store.load("nobody") is None


async def test_a_write_that_fails_leaves_the_file_as_it_was(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await files.persist(conversation("a", "first"))

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        await files.persist(conversation("a", "second"))
    monkeypatch.undo()

    assert (await files.FileTurnStore().load("a")).title == "first"
    assert [path.suffix for path in written(tmp_path)] == [".json"]


async def test_an_unknown_version_is_refused_with_what_to_do(files: Any, tmp_path: Path):
    await files.persist(conversation("a"))
    [path] = written(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2'))

    with pytest.raises(ValueError, match=r"has version 2, and this server reads version 1; start"):
        await files.FileTurnStore().load("a")


# Hooks that fail


class Unreadable:
    async def load(self, conv_id: str) -> StoredConversation | None:
        raise ValueError("version 2")

    async def transfer(self, old_owner: str, new_owner: str) -> None:
        raise ValueError("version 2")


async def failing(conversation: StoredConversation) -> None:
    raise OSError("no space left on device")


async def test_a_persister_that_fails_costs_the_conversation_nothing(
    settings, caplog: pytest.LogCaptureFixture
):
    settings.WEBCHAT = {**settings.WEBCHAT, "TURN_PERSISTER": f"{__name__}.failing"}
    async with running_hub(engine=ScriptedEngine("Hello.")), ChatClient() as client:
        assert [(await client.ask("hi")).status for _ in range(2)] == ["completed"] * 2
    assert "no space left on device" in caplog.text


async def test_a_store_that_fails_opens_no_empty_conversation_and_lets_people_sign_in(
    settings, caplog: pytest.LogCaptureFixture
):
    settings.WEBCHAT = {**settings.WEBCHAT, "TURN_STORE": f"{__name__}.Unreadable"}
    async with running_hub() as hub:
        with pytest.raises(ValueError, match="version 2"):
            await ChatClient("conv").send("hi")
        await hub.sessions.transfer(ANNA, "user:7")
        assert await hub.sessions.owned_by("visitor:test") == ()
    assert "could not be given on" in caplog.text


# Wrong settings


class Forgetful:
    async def load(self, conv_id: str) -> StoredConversation | None:
        return None


def not_async(conversation: StoredConversation) -> None:
    pass


@pytest.mark.parametrize(
    ("key", "name", "said"),
    [
        ("TURN_STORE", "shop.nothing", "cannot be imported"),
        ("TURN_STORE", f"{__name__}.IDS", "which is a list"),
        ("TURN_STORE", f"{__name__}.Forgetful", "which has no transfer"),
        ("TURN_STORE", f"{__name__}.conversation", "cannot be made: conversation() missing"),
        ("TURN_PERSISTER", f"{__name__}.not_async", "which is not async"),
        ("TURN_PERSISTER", f"{__name__}.IDS", "which is a list"),
        ("TOOL_EXECUTOR", f"{__name__}.Forgetful", "which has no prepare"),
    ],
)
def test_a_wrong_name_is_told_at_start(settings, key: str, name: str, said: str):
    settings.WEBCHAT = {**settings.WEBCHAT, key: name}
    [error] = [message for message in run_checks() if str(message.id).startswith("sessions_app")]

    assert f"WEBCHAT[{key!r}] names {name!r}" in error.msg
    assert said in error.msg
    assert error.hint
