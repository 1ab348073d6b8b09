"""What a prompt and a socket cost before their first frame, in counts that no noise moves.

A request takes a detour through a thread only where something is read or written.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast
from uuid import uuid4

import pytest
import pytest_asyncio
from channels.testing import ApplicationCommunicator
from django.db.backends.utils import CursorWrapper

from tests.chat.people import GENTLE, Person, heard, signed_in, visitor
from webchat_project.inline import begin_without_a_thread
from webchat_project.testing import composition, running_hub

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("static")]

CODENAME = "transcript_livesession"


@pytest.fixture
def static(settings: Any, tmp_path: Any) -> None:
    settings.STATIC_ROOT = tmp_path
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest_asyncio.fixture(params=["visitor", "account", "staff"])
async def person(request: pytest.FixtureRequest) -> AsyncIterator[Person]:
    """Somebody who has opened a page, of whom everything that is made at first use is made."""
    async with running_hub():
        match request.param:
            case "visitor":
                somebody = await visitor()
            case "account":
                somebody = await signed_in("anna")
            case _:
                somebody = await signed_in("bert", CODENAME, is_staff=True)
        assert (await somebody.get("/")).status_code == 200
        assert await posted(somebody, "hello") == 200
        yield somebody


@dataclass
class Cost:
    hops: int = 0
    queries: int = 0


@contextmanager
def counted() -> Iterator[Cost]:
    cost = Cost()
    submit, execute = ThreadPoolExecutor.submit, CursorWrapper.execute

    def submitted(self: ThreadPoolExecutor, *args: Any, **options: Any) -> Any:
        cost.hops += 1
        return submit(self, *args, **options)

    def executed(self: CursorWrapper, *args: Any, **options: Any) -> Any:
        cost.queries += 1
        return execute(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ThreadPoolExecutor, "submit", submitted)
        patch.setattr(CursorWrapper, "execute", executed)
        yield cost


async def posted(person: Person, prompt: str) -> int:
    """The status of a prompt that goes the way of a server's requests; a test client's differs."""
    begin_without_a_thread()  # a test client of another test has it begin in one
    cookies = {name: item.value for name, item in person.client.cookies.items()}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/chat",
        "query_string": b"",
        "headers": [
            (b"host", b"testserver"),
            (b"content-type", b"application/json"),
            (b"cookie", "; ".join(f"{name}={value}" for name, value in cookies.items()).encode()),
            (b"x-csrftoken", cookies["csrftoken"].encode()),
        ],
    }
    server: Any = cast(Any, ApplicationCommunicator)(composition().django_application, scope)
    body = json.dumps({"prompt": prompt}).encode()
    await server.send_input({"type": "http.request", "body": body})
    status: int = (await server.receive_output(GENTLE))["status"]
    await server.receive_output(GENTLE)
    await server.wait(GENTLE)
    return status


QUERIES = {"visitor": 1, "account": 2, "staff": 4}
"""The session; the account; what it may do by itself and by its groups."""


async def test_a_prompt_takes_one_detour_for_who_asks_and_one_to_be_closed(
    person: Person, request: pytest.FixtureRequest
):
    with counted() as cost:
        assert await posted(person, "hello") == 200
    who = request.node.callspec.params["person"]
    assert cost == Cost(hops=2, queries=QUERIES[who])


async def test_a_socket_is_greeted_after_one_detour_and_goes_without(
    person: Person, request: pytest.FixtureRequest
):
    with counted() as cost:
        socket = await person.handshake(str(uuid4()))
        assert socket is not None
        assert await heard(socket) == "ws.hello"
        assert await heard(socket) == "timeline.snapshot"
        await socket.disconnect(timeout=GENTLE)
    who = request.node.callspec.params["person"]
    assert cost == Cost(hops=1, queries=QUERIES[who])


async def test_a_storm_of_handshakes_shares_its_detours(person: Person):
    people = [person] + [await visitor() for _ in range(19)]
    with counted() as cost:
        sockets = await asyncio.gather(*(each.handshake(str(uuid4())) for each in people * 5))
        assert all(sockets)
    assert cost.hops <= 3
    for socket in sockets:
        assert socket is not None
        await socket.disconnect(timeout=GENTLE)
