"""Proves chat/identities.py: who is behind a session, for all who ask at the same time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Mapping

import pytest
from django.db import OperationalError

from chat.identities import BATCH, Identities
from sessions_app.access import Identity


class Database:
    """Holds sessions named `s…` alone, and says what it was asked for. `gate` holds it back."""

    def __init__(self) -> None:
        self.reads: list[Collection[str]] = []
        self.down = 0
        self.broken: set[str] = set()
        self.begun, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self.identities = Identities(self.read)

    def read(self, session_keys: Collection[str]) -> Mapping[str, Identity]:
        self.reads.append(tuple(session_keys))
        self.begun.set()
        assert self.gate.wait(10)
        if self.down:
            self.down -= 1
            raise OperationalError("the server closed the connection")
        if self.broken & set(session_keys):
            raise ValueError("no number")
        return {key: Identity(f"visitor:{key}") for key in session_keys if key.startswith("s")}

    async def ask(self, *keys: str) -> list[Identity | BaseException]:
        asked = (self.identities.behind(key) for key in keys)
        return await asyncio.gather(*asked, return_exceptions=True)


def owners(found: Collection[Identity | BaseException]) -> list[str | None]:
    assert all(isinstance(each, Identity) for each in found), found
    return [each.owner for each in found if isinstance(each, Identity)]


async def test_who_asks_while_a_read_is_under_way_is_answered_by_the_next_one():
    database = Database()
    database.gate.clear()
    first = asyncio.create_task(database.ask("s1"))
    assert await asyncio.to_thread(database.begun.wait, 10)
    later = asyncio.create_task(database.ask("s1", "s2", "s2", "nobody"))
    await asyncio.sleep(0)
    database.gate.set()
    assert owners(await first) == ["visitor:s1"]
    assert owners(await later) == ["visitor:s1", "visitor:s2", "visitor:s2", None]
    assert database.reads == [("s1",), ("s1", "s2", "nobody")]


async def test_a_thousand_at_once_are_read_in_batches():
    database = Database()
    keys = [f"s{n}" for n in range(1000)]
    assert owners(await database.ask(*keys)) == [f"visitor:{key}" for key in keys]
    assert [len(read) for read in database.reads] == [BATCH] * 10


async def test_a_connection_that_has_ended_is_made_anew():
    database = Database()
    database.down = 1
    assert owners(await database.ask("s1")) == ["visitor:s1"]


async def test_without_a_database_who_asked_is_told_and_who_asks_later_is_answered():
    database = Database()
    database.down = 2
    for told in await database.ask("s1", "s2"):
        assert isinstance(told, OperationalError)
    assert owners(await database.ask("s1")) == ["visitor:s1"]


async def test_a_session_that_cannot_be_read_turns_nobody_else_away():
    database = Database()
    database.broken = {"s2"}
    [one, two, three] = await database.ask("s1", "s2", "s3")
    assert isinstance(two, ValueError)
    assert owners([one, three]) == ["visitor:s1", "visitor:s3"]


@pytest.mark.parametrize("key", ["", "s\x00", "s 1", "sé", "s\n"])
async def test_what_can_be_no_key_is_not_looked_for(key: str):
    database = Database()
    assert owners(await database.ask(key)) == [None]
    assert database.reads == []


async def test_who_gives_up_takes_the_answer_from_nobody():
    database = Database()
    database.gate.clear()
    gone = asyncio.create_task(database.identities.behind("s1"))
    stays = asyncio.create_task(database.identities.behind("s1"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    database.gate.set()
    assert (await stays).owner == "visitor:s1"
