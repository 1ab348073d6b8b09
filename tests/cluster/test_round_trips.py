"""What is not asked of Redis, because it was asked a moment ago."""

from __future__ import annotations

from uuid import uuid4

import pytest

from sessions_app.inference.errors import Unavailable
from sessions_app.testing import ScriptedEngine
from sessions_app.values import SessionInfo
from tests.cluster.processes import Process


def test_a_conversation_that_was_just_found_is_opened_without_a_look(redis_url: str):
    process = Process(redis_url, f"alone-{uuid4()}", ScriptedEngine("So."))
    anna, conv = f"visitor:{uuid4()}", str(uuid4())

    def opened(known: SessionInfo | None = None) -> SessionInfo:
        return process.run(process.sessions.open(conv, owner=anna, profile=None, known=known))

    try:
        opened()
        found = process.run(process.sessions.find(conv))
        process.silence()
        assert opened(known=found) == found
        with pytest.raises(Unavailable):
            opened()
    finally:
        process.kill()
