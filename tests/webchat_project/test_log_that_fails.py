"""A log that cannot be written is nobody's failure but its own."""

from __future__ import annotations

import errno
import io
import logging
from collections.abc import Iterator

import pytest

from chat.management.commands.serve import Command
from chat.testing import ChatClient
from sessions_app.testing import ScriptedEngine
from webchat_project.logs import line_formatter
from webchat_project.testing import running_hub


class FullDisk(io.StringIO):
    """Takes no character."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def on_full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[logging.LogRecord]]:
    """The lines that were to be written there."""
    told: list[logging.LogRecord] = []

    def noted(record: logging.LogRecord) -> bool:
        told.append(record)
        return True

    handler = logging.StreamHandler(FullDisk())
    handler.setFormatter(line_formatter("json"))
    handler.addFilter(noted)
    monkeypatch.setattr("sys.stderr", FullDisk())  # where Python tells what becomes of them
    logging.getLogger().addHandler(handler)
    yield told
    logging.getLogger().removeHandler(handler)


@pytest.mark.django_db
async def test_a_chat_goes_on_where_no_line_of_the_log_can_be_written(
    on_full_disk: list[logging.LogRecord],
):
    engine = ScriptedEngine("All is well.")
    async with running_hub(engine=engine), ChatClient() as client:
        answer = await client.ask("hello")
        missing = await client.get("/c/nobody/")

    assert (answer.status, answer.text, missing.status) == ("completed", "All is well.", 404)
    assert "inference completed" in [record.getMessage() for record in on_full_disk]


def test_a_server_is_up_where_it_cannot_say_so():
    Command(stdout=FullDisk()).announce("Webchat on uvicorn: http://127.0.0.1:8000/")
