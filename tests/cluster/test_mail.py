"""Mail to a conversation's owner: what is lost is said again, and nothing is done twice."""

from __future__ import annotations

from uuid import uuid4

import pytest

from sessions_app.values import PromptRequest
from tests.cluster.processes import Process


def ask(process: Process, conv: str, prompt: str) -> None:
    request = PromptRequest(
        owner="visitor:anna", prompt=prompt, conv_id=conv, idempotency_key=f"{conv} {prompt}"
    )
    process.run(process.sessions.submit(request))


def lose_a_reply(process: Process, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The next reply of the process gets lost; the list then names who waits for it."""
    inbox = process.sessions._inbox
    send = inbox.send
    lost: list[str] = []

    async def losing(to: str, message: dict[str, bytes]) -> None:
        if "reply" in message and not lost:
            lost.append(to)
        else:
            await send(to, message)

    monkeypatch.setattr(inbox, "send", losing)
    return lost


def test_an_answer_that_is_lost_on_its_way_is_given_again(
    processes: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
):
    one, other = processes
    conv = str(uuid4())
    ask(one, conv, "go")
    lost = lose_a_reply(one, monkeypatch)
    other.run(other.sessions.set_step_mode(conv, True, by="anna"))
    assert lost == [other.name]


def test_mail_that_was_left_twice_is_done_once(
    processes: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
):
    """redis-py says again what a line was cut in. The second time nothing would wait any more."""
    one, other = processes
    conv = str(uuid4())
    ask(one, conv, "go")
    ask(one, conv, "next")
    lost = lose_a_reply(one, monkeypatch)
    post = other.store.post

    async def twice(conv_id: str, command: bytes) -> str:
        await post(conv_id, command)
        return await post(conv_id, command)

    monkeypatch.setattr(other.store, "post", twice)
    other.run(other.sessions.remove_queued(conv, f"{conv} next"))
    assert lost == [other.name]
