"""The stand-in as a process of its own, as tests of a whole server use it."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE

import httpx2

from tests.live import START_SECONDS


async def test_as_a_process_it_prints_its_port_answers_and_lists_what_it_saw() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.standins.openai_server", "--port", "0", stdout=PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            port = int(await process.stdout.readline())
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            body = {"model": "do:length", "messages": [{"role": "user", "content": "hello"}]}
            answer = await client.post("/v1/chat/completions", json=body)
            seen = (await client.get("/exchanges")).json()
    finally:
        process.kill()
        await process.wait()
    assert '"finish_reason": "length"' in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
    assert [(each["body"]["model"], each["answered"]) for each in seen] == [("do:length", True)]
