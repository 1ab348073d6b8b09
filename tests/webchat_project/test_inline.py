"""A request takes a detour through a thread only where something is read or written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.test import AsyncClient

from webchat_project.testing import running_hub

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("static")]

PROMPT = {"prompt": "hello"}


@pytest.fixture
def static(settings: Any, tmp_path: Any) -> None:
    settings.STATIC_ROOT = tmp_path
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


async def test_a_prompt_goes_into_a_thread_at_most_ten_times(monkeypatch: pytest.MonkeyPatch):
    hops = 0
    submit = ThreadPoolExecutor.submit

    def counted(self: ThreadPoolExecutor, *args: Any, **options: Any) -> Any:
        nonlocal hops
        hops += 1
        return submit(self, *args, **options)

    async with running_hub():
        client = AsyncClient()
        assert (
            await client.post("/chat", PROMPT, content_type="application/json")
        ).status_code == 200
        monkeypatch.setattr(ThreadPoolExecutor, "submit", counted)
        answer = await client.post("/chat", PROMPT, content_type="application/json")
        monkeypatch.undo()
    assert answer.status_code == 200
    assert hops <= 10
