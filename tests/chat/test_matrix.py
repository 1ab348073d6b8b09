"""Who may do what: every route, button, socket command and admin action, and everybody who comes.

One table for each. A route, button, command or action that is in none of them fails the test that
lists them: say in the table who may do it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final, get_args
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.http import HttpRequest
from django.urls import URLPattern, URLResolver, get_resolver, resolve

from chat.actions import ACTIONS
from chat.desk.acts import ACTS
from chat.frames import ClientFrame, decode_client
from chat.hub import Hub
from sessions_app.testing import ScriptedEngine
from tests.chat.people import Person, heard, signed_in, visitor
from webchat_project.testing import running_hub

pytestmark = pytest.mark.django_db(transaction=True)

PEOPLE: Final = {
    "owner": "has the conversation that is asked for",
    "visitor": "has opened the front page",
    "user": "has another account",
    "nobody": "comes without a session",
    "staff": "works here, and has no permission",
    "view": "staff with the permission view_livesession alone",
    "text": "staff with transcript_livesession alone",
    "cancel": "staff with cancel_livesession alone",
    "step": "staff with step_livesession alone",
    "root": "superuser",
    "closed": "owner of the conversation asked for, superuser, and the account was closed",
}
PRYING: Final = ("user", "nobody", "view", "closed")
STAFF: Final = ("staff", "view", "text", "cancel", "step", "root")

# A line: what is asked; what everybody is answered, and who else is answered what. An answer is a
# status; the code of an error where the status alone could be a refusal; or where the browser is
# sent: `login`, `home`, `chat` (a conversation) or `on` (a page of the admin).
ROUTES: Final = """
GET  /                                                     200
POST / prompt=hi                                           chat, closed home
GET  /c/{conv}/                                            404, owner text root 200
POST /c/{conv}/ prompt=hi                                  404, owner chat
POST /c/{conv}/ again=i                                    404, owner chat
POST /c/{conv}/ stop=1                                     404, owner cancel root chat
POST /c/{conv}/ remove=k                                   404, owner cancel root chat
POST /c/{conv}/ run=k                                      404, owner cancel root chat
POST /c/{conv}/ step=on                                    404, owner step root chat
POST /c/{conv}/ decision=abort:p                           404, owner step root chat
GET  /c/{conv}/export.md                                   404, owner text root 200
POST /c/{conv}/export.md                                   404, owner text root 200
POST /chat prompt=hi                                       200, closed 403
POST /chat prompt=hi conv_id={conv}                        404, owner 200, closed 403
POST /chat/default prompt=hi                               200, closed 403
POST /api/chat/cancel conv_id={conv}                       404, owner cancel root 409
POST /api/chat/queue/remove conv_id={conv} idempotency_key=k   404, owner cancel root not_queued
POST /api/chat/queue/run conv_id={conv} idempotency_key=k      404, owner cancel root not_queued
POST /api/debug/step-mode conv_id={conv} enabled=false     404, owner step root 200
POST /api/debug/continue conv_id={conv} pause_id=p         404, owner step root unknown_pause
GET  /api/timeline?conv_id={conv}                          404, owner text root 200
GET  /api/conversations                                    200
GET  /api/chat/profiles                                    200
GET  /api/chat/profile                                     200
POST /api/chat/profile slug=default                        200
GET  /api/debug/conversations                              404, view root 200
GET  /api/debug/conversations/{conv}                       404, view root 200
GET  /api/debug/events/{conv}                              404, text root 200
GET  /api/debug/turns?conv_id={conv}                       404, text root 200
GET  /metrics                                              404
GET  /healthz                                              200
GET  /readyz                                               200
GET  /accounts/login/                                      200
POST /accounts/login/ username=nobody                      200
POST /accounts/logout/                                     home

GET  /admin/sessions_app/livesession/                      login, STAFF 403, view root 200
GET  /admin/sessions_app/livesession/{conv}/               login, STAFF 403, view root 200
GET  /admin/                                               login, STAFF 200
GET  /admin/login/                                         200, STAFF on
POST /admin/logout/                                        on, STAFF home
GET  /admin/password_change/                               login, STAFF 200
GET  /admin/password_change/done/                          login, STAFF 200
GET  /admin/jsi18n/                                        login, STAFF 200
GET  /admin/autocomplete/                                  login, STAFF 403
GET  /admin/r/1/1/                                         login, STAFF 404
GET  /admin/auth/                                          login, STAFF 404, root 200
GET  /admin/sessions_app/                                  login, STAFF 404, view root 200
GET  /admin/nothing/here/                                  login, STAFF 404
GET  /admin/auth/user/                                     login, STAFF 403, root 200
GET  /admin/auth/user/add/                                 login, STAFF 403, root 200
GET  /admin/auth/user/{user}/                              login, STAFF on
GET  /admin/auth/user/{user}/change/                       login, STAFF 403, root 200
GET  /admin/auth/user/{user}/history/                      login, STAFF 403, root 200
GET  /admin/auth/user/{user}/delete/                       login, STAFF 403, root 200
GET  /admin/auth/user/{user}/password/                     login, STAFF 403, root 200
GET  /admin/auth/group/                                    login, STAFF 403, root 200
GET  /admin/auth/group/add/                                login, STAFF 403, root 200
GET  /admin/auth/group/{group}/                            login, STAFF on
GET  /admin/auth/group/{group}/change/                     login, STAFF 403, root 200
GET  /admin/auth/group/{group}/history/                    login, STAFF 403, root 200
GET  /admin/auth/group/{group}/delete/                     login, STAFF 403, root 200
"""

SOCKETS: Final = """
an absent conversation       in, nobody closed 403
somebody's conversation      403, owner text root in
"""

# The permission to view, and the one of the name besides. Without the permission to view: 403.
ADMIN_ACTIONS: Final = """
sessions_app.LiveSession cancel           login, STAFF 403, cancel root on
sessions_app.LiveSession cancel-all       login, STAFF 403, cancel root on
sessions_app.LiveSession drop             login, STAFF 403, cancel root on
sessions_app.LiveSession evict            login, STAFF 403, cancel root on
sessions_app.LiveSession step-on          login, STAFF 403, step root on
sessions_app.LiveSession step-off         login, STAFF 403, step root on
sessions_app.LiveSession decide           login, STAFF 403, step root on
auth.User delete_selected                 login, STAFF 403, root 200
auth.Group delete_selected                login, STAFF 403, root 200
"""

# What a client may say on an open socket, and the frame that comes back to that socket alone.
COMMANDS: Final = {
    "Ping": ("ping", "ws.pong"),
    "Pong": ('{"type":"ws.pong","seq":0}', None),
    "Ignored": ('{"type":"chat.send","conv_id":"c","prompt":"hi"}', None),
}


def read(table: str) -> dict[str, dict[str, str]]:
    """What is asked, and the answer to each."""
    rows = {}
    for line in filter(None, table.splitlines()):
        asked, answers = re.split(r" {2,}(?=\S+(?:, |$))", line)
        everybody, *others = answers.split(", ")
        expected = dict.fromkeys(PEOPLE, everybody)
        for other in others:
            *who, answer = other.split()
            expected |= dict.fromkeys(STAFF if who == ["STAFF"] else who, answer)
        assert set(expected) == set(PEOPLE), line
        rows[asked] = expected
    return rows


class Everybody:
    """Who may come, each with a browser, and the conversations they ask for."""

    def __init__(self, hub: Hub, people: Mapping[str, Person], group: Group) -> None:
        self._hub = hub
        self._people = people
        self._group = group

    async def person(self, name: str) -> Person:
        """That person, as they came: whatever they asked for before, their session is whole."""
        person = self._people[name]
        if name == "nobody":
            person.client.cookies.clear()
        elif name == "closed" or not person.client.cookies["sessionid"].value:
            person.client.cookies.clear()
            if person.user is None:
                await person.get("/")
            else:
                await person.client.aforce_login(person.user)
        return person

    async def conversation(self, name: str) -> str:
        """The id of a new conversation, of the owner that this person asks for."""
        conv_id = str(uuid4())
        owner = self._people["closed" if name == "closed" else "owner"].owner
        await self._hub.sessions.open(conv_id, owner=owner, profile=None)
        return conv_id

    async def answer(self, name: str, asked: str, conv_id: str) -> tuple[str, str]:
        """What the request comes to, and the body without the ids in it."""
        person, user = await self.person(name), self._people["owner"].user
        assert user is not None
        ids = {"conv": conv_id, "user": str(user.pk), "group": str(self._group.pk)}
        method, path, *fields = filled(asked, ids).split()
        body = dict(field.split("=", 1) for field in fields)
        if method == "GET":
            response = await person.get(path)
        elif path.startswith(("/api", "/chat")):
            response = await person.post(path, {key: _json(value) for key, value in body.items()})
        else:
            response = await person.submit(path, **body)
        text = response.content.decode().replace(conv_id, "<id>")
        return outcome(response), _CSRF_TOKEN.sub("", text)


_CSRF_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="\w+"')


def _json(text: str) -> object:
    return {"true": True, "false": False}.get(text, text)


def filled(text: str, ids: Mapping[str, str]) -> str:
    for name, value in ids.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def outcome(response: Any) -> str:
    if "Location" in response:
        path = urlsplit(response["Location"]).path
        if path.startswith("/c/"):
            return "chat"
        return {"/": "home", "/admin/login/": "login"}.get(path, "on")
    is_json = response.get("Content-Type", "").startswith("application/json")
    if is_json and response.status_code == 404:
        code: str = response.json()["code"]
        return "404" if code in ("not_found", "conversation_not_found") else code
    return str(response.status_code)


def difference(asked: str, expected: Mapping[str, str], got: Mapping[str, str]) -> list[str]:
    return [
        f"{asked}: {name} was answered {got[name]}, not {expected[name]}"
        for name in got
        if got[name] != expected[name]
    ]


@pytest_asyncio.fixture
async def hub(plain_static: None) -> AsyncIterator[Hub]:
    async with running_hub(engine=ScriptedEngine()) as running:
        yield running


@pytest_asyncio.fixture
async def everybody(hub: Hub) -> Everybody:
    people = {
        "owner": await signed_in("owner"),
        "visitor": await visitor(),
        "user": await signed_in("user"),
        "nobody": Person(),
        "staff": await signed_in("staff", is_staff=True),
        "view": await signed_in("view", "view_livesession", is_staff=True),
        "text": await signed_in("text", "transcript_livesession", is_staff=True),
        "cancel": await signed_in("cancel", "cancel_livesession", is_staff=True),
        "step": await signed_in("step", "step_livesession", is_staff=True),
        "root": await signed_in("root", is_staff=True, is_superuser=True),
        "closed": await signed_in("closed", is_active=False, is_staff=True, is_superuser=True),
    }
    return Everybody(hub, people, await Group.objects.acreate(name="group"))


async def test_every_route_answers_each_as_the_table_says_and_never_tells_what_is_forbidden(
    everybody: Everybody,
):
    wrong = []
    for asked, expected in read(ROUTES).items():
        got = {}
        creates = asked.startswith("POST /chat ")
        for name in PEOPLE:
            conv_id = await everybody.conversation(name)
            got[name], body = await everybody.answer(name, asked, conv_id)
            if name in PRYING and got[name] == "404" and "{conv}" in asked and not creates:
                absent = await everybody.answer(name, asked, str(uuid4()))
                if absent != ("404", body):
                    wrong.append(f"{asked}: {name} can tell what is forbidden from what is absent")
        wrong += difference(asked, expected, got)

    assert not wrong, "\n".join(wrong)


async def test_our_routes_take_no_method_that_is_not_in_the_table(everybody: Everybody):
    taken = {tuple(asked.split()[:2]) for asked in read(ROUTES) if "/admin/" not in asked}
    for path in {path for _, path in taken}:
        for method in ("GET", "POST"):
            if (method, path) not in taken:
                conv_id = await everybody.conversation("root")
                answer, _ = await everybody.answer("root", f"{method} {path}", conv_id)
                assert answer == "405", f"{method} {path}"


async def test_a_socket_is_opened_for_whom_the_table_says(everybody: Everybody):
    for which, expected in read(SOCKETS).items():
        got = {}
        for name in PEOPLE:
            conv_id = str(uuid4()) if "absent" in which else await everybody.conversation(name)
            socket = await (await everybody.person(name)).handshake(conv_id)
            got[name] = "403" if socket is None else "in"
            if socket is not None:
                await socket.disconnect()
        assert difference(which, expected, got) == []


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_socket_command_is_answered_to_its_socket_alone_and_changes_nothing(
    everybody: Everybody, hub: Hub, command: str
):
    said, answer = COMMANDS[command]
    conv_id = await everybody.conversation("owner")
    owner, reader = await everybody.person("owner"), await everybody.person("text")
    async with owner.socket(conv_id) as one, reader.socket(conv_id) as other:
        await other.send_to(text_data=said)
        if answer is not None:
            assert await heard(other) == answer
        for socket in (one, other):
            await socket.send_to(text_data="ping")
            assert await heard(socket) == "ws.pong"
    assert hub.streams.head_seq(conv_id) == 0


async def test_an_admin_action_is_done_for_whom_the_table_says(everybody: Everybody):
    viewing = await Permission.objects.aget(codename="view_livesession")
    async for user in User.objects.filter(is_staff=True):
        await user.user_permissions.aadd(viewing)
    wrong = []
    for asked, expected in read(ADMIN_ACTIONS).items():
        model, action = asked.split()
        got = {}
        for name in PEOPLE:
            chosen = await everybody.conversation(name)
            fields = {"_selected_action": chosen, "action": action, "confirmed": "yes"}
            path = f"/admin/{model.replace('.', '/').lower()}/"
            if action == "decide":
                fields = {"decision": "abort", "pause_id": "p", "confirmed": "yes"}
                path += f"{chosen}/"
            elif model.startswith("auth."):
                fields = {"_selected_action": "1", "action": action}
            person = await everybody.person(name)
            got[name] = outcome(await person.submit(path, **fields))
        wrong += difference(asked, expected, got)

    assert not wrong, "\n".join(wrong)


# What is in no table


def listed_routes() -> set[str]:
    ids = {"conv": "c", "user": "1", "group": "1"}
    paths = [urlsplit(filled(asked, ids).split()[1]).path for asked in read(ROUTES)]
    return {resolve(path).route.replace("^", "") for path in paths}


def patterns(resolver: URLResolver, before: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in resolver.url_patterns:
        route = before + str(pattern.pattern).replace("^", "")
        if isinstance(pattern, URLResolver):
            yield from patterns(pattern, route)
        else:
            yield route, pattern


def test_every_route_is_in_the_table():
    assert listed_routes() == {route for route, _ in patterns(get_resolver())}


def test_no_route_is_exempt_from_the_csrf_check():
    for route, pattern in patterns(get_resolver()):
        assert not getattr(pattern.callback, "csrf_exempt", False), route


def test_every_button_of_a_conversations_page_is_in_the_table():
    posted = [asked.split()[2:] for asked in read(ROUTES) if asked.startswith("POST /c/{conv}/ ")]

    assert {fields[0].split("=")[0] for fields in posted} == {*ACTIONS, "prompt"}


def test_every_socket_command_is_in_the_table():
    assert {kind.__name__ for kind in get_args(ClientFrame)} == set(COMMANDS)
    for name, (said, _) in COMMANDS.items():
        assert type(decode_client(said)).__name__ == name


async def test_every_admin_action_is_in_the_table(everybody: Everybody):
    request = HttpRequest()
    root = (await everybody.person("root")).user
    assert root is not None
    request.user = root
    known = {f"sessions_app.LiveSession {name}" for name in (*ACTS, "decide")}
    for model, model_admin in admin.site._registry.items():
        if model._meta.label != "sessions_app.LiveSession":
            actions = await sync_to_async(model_admin.get_actions)(request)
            known |= {f"{model._meta.label} {name}" for name in actions}

    assert known == set(read(ADMIN_ACTIONS))
