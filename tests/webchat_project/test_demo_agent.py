"""The shipped agent shows every frame of the protocol without a key, and `help` tells how."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chat.testing import ChatClient
from sessions_app.inference.engines.demo_scripts import HELP
from webchat_project.testing import running_hub

pytestmark = [pytest.mark.django_db, pytest.mark.virtual]

ROOT = Path(__file__).resolve().parents[2]
HELPED = re.findall(r"^\| `([^`]+)` \|", HELP, re.MULTILINE)
HOUR = 3600.0


def frame_types() -> set[str]:
    """The types that the table of PROTOCOL §3 names."""
    table = (ROOT / "docs" / "protocol.md").read_text().split("## 3. ")[1].split("## 4. ")[0]
    types: set[str] = set()
    for row in re.findall(r"^\| `[a-z].*", table, re.MULTILINE):
        names = re.findall(r"`([a-z.<>]+)`", row.split("|")[1])
        stem = names[0].rpartition(".")[0]
        types |= {name if not name.startswith(".") else stem + name for name in names}
    return {name.replace("app.<kind>", "app.demo") for name in types}


async def test_what_help_tells_shows_every_frame_of_the_protocol():
    async with running_hub():
        async with ChatClient(profile="agent", patience=HOUR) as client:
            for prompt in HELPED:
                if prompt == "silent":
                    continue
                await client.ask(prompt)
            await client.step_mode(True)
            await client.send("slow 30")
            await client.send("hello")
            await client.answer()
            await client.answer()
        types = {frame["type"] for frame in client.frames}

    assert frame_types() - types == set()


@pytest.mark.parametrize("prompt", HELPED)
async def test_every_prompt_of_help_is_understood_and_ends_as_it_should(prompt: str):
    async with running_hub(), ChatClient(profile="agent", patience=HOUR) as client:
        await client.send(prompt)
        if prompt == "silent":
            await client.stop()
        answer = await client.answer()

    assert "I can't answer that" not in answer.text
    assert "does not have it" not in answer.text
    ends = {"silent": "cancelled", "loop": "max_iterations"}
    assert answer.status == ends.get(prompt, "failed" if prompt.startswith("fail") else "completed")


async def test_the_default_profile_says_what_it_cannot_show():
    async with running_hub(), ChatClient(patience=HOUR) as client:
        answer = await client.ask("progress")
    assert "needs the tool `demo_task`, and this profile does not have it" in answer.text
