"""Proves webchat_project/asgi.py: what a server is made of, and that it starts only when sound."""

from __future__ import annotations

import pytest
from django.test import AsyncClient

from tests.live import live_server
from webchat_project.testing import composition, running_hub


async def test_a_server_that_cannot_answer_does_not_start_and_says_what_to_do():
    with pytest.raises(AssertionError, match="the server ended") as ended:
        async with live_server("daphne", env={"WEBCHAT_MODEL": "openai-chat:gpt"}):
            pass

    assert "Set OPENAI_API_KEY" in str(ended.value)


async def test_a_hub_has_the_profiles_of_the_settings_in_their_order():
    async with running_hub() as hub:
        profiles = hub.sessions.profiles()

    assert [profile.slug for profile in profiles] == ["default", "agent"]
    assert [profile.default for profile in profiles] == [True, False]


async def test_two_hubs_share_nothing():
    async with running_hub() as one:
        await one.sessions.open("a", owner="visitor:x", profile=None)
        async with running_hub() as two:
            assert await two.sessions.find("a") is None
        assert await one.sessions.find("a") is not None


async def test_a_closed_hub_is_not_ready_and_takes_no_prompt(settings, tmp_path):
    settings.STATIC_ROOT = tmp_path
    async with running_hub() as hub:
        client = AsyncClient()
        await hub.aclose()
        healthy, ready = await client.get("/healthz"), await client.get("/readyz")

    assert healthy.status_code == 200
    assert ready.status_code == 503
    assert "draining" in ready.json()["failing"]


def test_the_servers_application_is_the_one_the_settings_name(settings):
    module, _, name = settings.ASGI_APPLICATION.rpartition(".")

    assert module == composition().__name__
    assert callable(getattr(composition(), name))
