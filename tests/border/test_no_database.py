"""Promise 10: no event reaches a database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import uuid4

from tests.client import Visitor
from tests.live import LiveServer

MAY_CHANGE = {"django_session"}


def contents(database: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    with closing(sqlite3.connect(database)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {
            name: sorted(connection.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)
            for (name,) in tables.fetchall()
        }


def bytes_of(database: Path) -> bytes:
    """The file itself, with its journal: also what a deleted row left behind."""
    return b"".join(path.read_bytes() for path in database.parent.glob(f"{database.name}*"))


async def test_a_chat_leaves_no_trace_in_any_table(server: LiveServer, anna: Visitor, conv: str):
    database = server.state / "db.sqlite3"
    before = contents(database)
    secret = f"the-prompt-{uuid4().hex}"
    async with anna.socket(conv) as one, anna.socket(conv) as two:
        for tab in (one, two):
            await tab.until("timeline.snapshot")
        started = await anna.chat(secret, conv)
        frames = await one.until("inference.finished")
        assert frames == await two.until("inference.finished")
        for prompt in ("slow 30", "hang", "fail", "fail at once"):
            await anna.chat(prompt, conv)
            await one.until("llm.delta" if prompt == "slow 30" else "inference.started")
            if prompt in ("slow 30", "hang"):
                await anna.post("/api/chat/cancel", {"conv_id": conv})
            await one.until("inference.finished")
        two.drop()
    token = {"csrfmiddlewaretoken": anna.http.cookies["csrftoken"]}
    form = {"prompt": f"{secret} again", "idempotency_key": secret, **token}
    await anna.http.post(f"/c/{conv}/", data=form)
    await anna.post("/api/chat/profile", {"slug": "agent"})
    for path in ("/", f"/c/{conv}/", f"/api/timeline?conv_id={conv}", "/api/conversations"):
        assert (await anna.http.get(path)).status_code == 200
    after = contents(database)

    assert len(before) > 8
    assert {name for name in before if before[name] != after[name]} <= MAY_CHANGE
    assert set(before) == set(after)
    written = bytes_of(database)
    for needle in (
        *(secret, conv, started["inference_id"], started["turn_id"], frames[0]["id"]),
        *("Counting: 1", "scripted demo agent", "inference.finished"),
    ):
        assert needle.encode() not in written, needle


async def test_a_prompt_that_was_refused_leaves_no_trace_either(
    server: LiveServer, anna: Visitor, conv: str
):
    """A form's draft comes back to its page, but by way of the browser."""
    secret = f"the-draft-{uuid4().hex}"
    await anna.chat("hang", conv)
    token = {"csrfmiddlewaretoken": anna.http.cookies["csrftoken"]}
    await anna.http.post(f"/c/{conv}/", data={"prompt": secret, **token})
    page = await anna.http.get(f"/c/{conv}/")
    await anna.post("/api/chat/cancel", {"conv_id": conv})

    assert secret in page.text
    assert secret.encode() not in bytes_of(server.state / "db.sqlite3")
