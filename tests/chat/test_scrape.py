"""Who may read GET /metrics, where it is there at all, and that its documentation is whole."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from django.contrib.auth.models import Permission, User
from django.test import AsyncClient
from prometheus_client import generate_latest

from tests.live import ROOT
from webchat_project.testing import running_hub

TOKEN = "a-token-that-only-scrapers-have"
TABLE = Path(ROOT, "docs/telemetry.md").read_text()


@pytest_asyncio.fixture
async def client(settings, tmp_path) -> AsyncIterator[AsyncClient]:
    """Of a server with both ways in."""
    plain = "django.contrib.staticfiles.storage.StaticFilesStorage"
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": plain}}
    settings.STATIC_ROOT = tmp_path
    settings.WEBCHAT = {**settings.WEBCHAT, "METRICS": True, "METRICS_TOKEN": TOKEN}
    async with running_hub():
        yield AsyncClient()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_the_token_lets_a_scraper_in(client: AsyncClient, scheme: str):
    answer = await client.get("/metrics", headers={"Authorization": f"{scheme} {TOKEN}"})
    assert answer.status_code == 200
    assert not answer.cookies


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer é"]
)
async def test_without_the_token_there_is_nothing(client: AsyncClient, header: str):
    answer = await client.get("/metrics", headers={"Authorization": header})
    nothing = await client.get("/no-such-address")
    assert (answer.status_code, answer.content) == (404, nothing.content)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_staff", [False, True])
@pytest.mark.parametrize("permitted", [False, True])
@pytest.mark.parametrize("is_active", [False, True])
async def test_a_person_needs_all_of_an_active_account_staff_and_the_permission(
    client: AsyncClient, is_staff: bool, permitted: bool, is_active: bool
):
    user = await User.objects.acreate(username="reader", is_staff=is_staff, is_active=True)
    if permitted:
        await user.user_permissions.aadd(await Permission.objects.aget(codename="view_metrics"))
    await client.aforce_login(user)
    await User.objects.filter(pk=user.pk).aupdate(is_active=is_active)
    answer = await client.get("/metrics")
    everything = is_staff and permitted and is_active
    assert answer.status_code == (200 if everything else 404)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "configured",
    [{}, {"METRICS": False, "METRICS_TOKEN": ""}, {"METRICS_TOKEN": TOKEN}],
    ids=["not at all", "off", "token only"],
)
async def test_what_is_not_configured_lets_nobody_in(
    client: AsyncClient, settings, admin_user: User, configured: dict[str, object]
):
    settings.WEBCHAT = {"PROFILES": settings.WEBCHAT["PROFILES"], **configured}
    await client.aforce_login(admin_user)
    async with running_hub():
        for header in ("Bearer", "Bearer ", ""):
            answer = await client.get("/metrics", headers={"Authorization": header})
            assert answer.status_code == 404


async def test_nobody_writes_there(client: AsyncClient):
    answer = await client.post("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 405


async def test_the_documentation_lists_what_is_printed_and_nothing_else(settings):
    settings.WEBCHAT = {**settings.WEBCHAT, "REDIS_URL": "redis://127.0.0.1:1"}
    async with running_hub() as hub:
        text = generate_latest(hub.metrics).decode()
    printed = {
        name: kind
        for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE)
        if not name.endswith("_created") and not name.startswith("process_")
    }
    assert printed == dict(re.findall(r"^\| `(webchat_\w+)` \| (\w+) \|", TABLE, re.MULTILINE))
