"""`manage.py sessions` at a terminal beside a server that runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.client import PATIENCE, Visitor
from tests.live import START_SECONDS, LiveServer

AS_ROOT = ("--user", "root")


# What differs between the servers is no matter of a client's.
pytestmark = [
    pytest.mark.parametrize("server", ["uvicorn"], indirect=True),
    pytest.mark.usefixtures("accounts"),
]


def log_ins(state: Path) -> int:
    """How many sessions the database has."""
    with closing(sqlite3.connect(state / "db.sqlite3")) as connection:
        [[count]] = connection.execute("SELECT count(*) FROM django_session").fetchall()
        return int(count)


@asynccontextmanager
async def tail(
    server: LiveServer, *arguments: str, stdout: int = subprocess.PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`sessions tail`, once it follows the conversation."""
    asked = ("sessions", "--url", server.url, *AS_ROOT, "tail", *arguments)
    process = await server.start_managing(*asked, stdout=stdout)
    try:
        assert process.stderr is not None
        assert b"following" in await line_of(process.stderr, patience=START_SECONDS)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(PATIENCE):
        return await process.wait()


async def line_of(stream: asyncio.StreamReader, *, patience: float = PATIENCE) -> bytes:
    async with asyncio.timeout(patience):
        return await stream.readline()


async def test_a_conversation_is_listed_followed_and_cancelled_and_no_log_in_is_left(
    server: LiveServer, anna: Visitor, conv: str
):
    first = await anna.hear("fail at once", conv)
    before = log_ins(server.state)
    async with tail(server, conv, "--json", "-n", "2") as following, anna.socket(conv) as socket:
        assert following.stdout is not None
        await socket.until("timeline.snapshot")
        await anna.chat("hang", conv)
        listed = await asyncio.to_thread(server.manage, "sessions", "--url", server.url, *AS_ROOT)
        asked = ("sessions", "cancel", conv, "--url", server.url, *AS_ROOT)
        cancelled = await asyncio.to_thread(server.manage, *asked)
        heard = await socket.until("inference.finished")
        frames = [frame for frame in heard if "seq" in frame]
        seen = [json.loads(await line_of(following.stdout)) for _ in range(2 + len(frames))]
        assert log_ins(server.state) == before + 1
        following.send_signal(signal.SIGINT)
        assert await ended(following) == 0

    assert seen == [*first[-2:], *frames]
    assert frames[-1]["data"]["status"] == "cancelled"
    [line] = [line for line in listed.splitlines() if conv in line]
    assert "default" in line
    assert frames[-1]["id"] in cancelled
    assert log_ins(server.state) == before


async def test_a_tail_that_is_told_to_go_or_has_no_reader_any_more_logs_out(
    server: LiveServer, anna: Visitor, conv: str
):
    await anna.hear("fail at once", conv)
    before = log_ins(server.state)
    read, write = os.pipe()
    async with tail(server, conv) as told, tail(server, conv, stdout=write) as unread:
        os.close(write)
        os.close(read)
        told.terminate()
        assert await ended(told) == 128 + signal.SIGTERM
        await anna.hear("fail at once", conv)
        assert await ended(unread) == 0
        assert unread.stderr is not None
        assert await unread.stderr.read() == b""

    assert log_ins(server.state) == before
