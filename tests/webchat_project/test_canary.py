"""Secrets in the settings, in a tool's arguments, in its result and in exceptions: seen nowhere."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from django.contrib.auth.models import User
from django.test import AsyncClient
from django.urls import URLPattern, reverse

import chat.urls
from chat.testing import ChatClient
from sessions_app.inference.errors import InferenceFailed, ToolDenied, ToolError
from sessions_app.inference.tools import ToolContext, tool
from sessions_app.inference.turns import ToolCall
from sessions_app.secrets import secrets_in
from sessions_app.testing import ScriptedEngine
from tests.logs import LogOutput, written
from webchat_project.logs import LOG_FORMS
from webchat_project.testing import running_hub

pytestmark = pytest.mark.django_db(transaction=True)

SETTING = "sk-canary-of-the-settings"
TOKEN = "canary-token-of-the-metrics"
KEY = "canary-secret-key-of-django-0123456789-abcdefghijklmnopqrstuvwxyz"
ARGUMENT = "canary-of-an-argument"
CANARIES = (SETTING, TOKEN, KEY, ARGUMENT)
BETRAYAL = f"{SETTING} and {ARGUMENT}"
WAYS = ("result", "structure", "denial", "error", "bug")


async def betray(how: str, code: str, context: ToolContext) -> object:
    """Open the safe."""
    context.progress(0.5, f"trying {BETRAYAL}")
    logging.getLogger("a.tool").warning("it was given %s", SETTING)
    match how:
        case "result":
            return f"it opened with {BETRAYAL}"
        case "structure":
            return {"headers": [{"Authorization": f"Bearer {TOKEN}"}], code: {KEY: code}}
        case "denial":
            raise ToolDenied(f"not with {BETRAYAL}")
        case "error":
            raise ToolError(f"it does not open with {BETRAYAL}")
        case _:
            raise ValueError(f"a bug with {BETRAYAL}")


safe = tool(name="safe", secrets={"code"})(betray)
asking = tool(name="asking", secrets={"code"}, requires_approval=True)(betray)


@pytest.fixture(params=LOG_FORMS)
def output(request: pytest.FixtureRequest, settings, tmp_path) -> Iterator[LogOutput]:
    """All that is logged, at DEBUG too, as the settings below have it written."""
    plain = "django.contrib.staticfiles.storage.StaticFilesStorage"
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": plain}}
    settings.STATIC_ROOT = tmp_path
    settings.SECRET_KEY = KEY
    settings.WEBCHAT = {
        "PROFILES": [{"slug": "default", "tools": ["safe", "asking"], "max_iterations": 9}],
        "TOOLS": [f"{__name__}.safe", f"{__name__}.asking"],
        "OPENAI_API_KEY": SETTING,
        "METRICS": True,
        "METRICS_TOKEN": TOKEN,
    }
    secrets = secrets_in([{"SECRET_KEY": settings.SECRET_KEY}, settings.WEBCHAT])
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    with written(request.param, secrets) as heard:
        yield heard
    root.setLevel(level)


@pytest_asyncio.fixture
async def engine(output: LogOutput) -> AsyncIterator[ScriptedEngine]:
    engine = ScriptedEngine()
    async with running_hub(engine=engine):
        yield engine


def call(name: str, how: str) -> list[ToolCall]:
    return [ToolCall(call_id=f"{name}-{how}", name=name, arguments={"how": how, "code": ARGUMENT})]


def addresses(conv_id: str) -> Iterator[str]:
    """Whatever the chat's URLs name, and the operator's desk."""
    values = {"conv_id": conv_id, "profile": "default"}
    for pattern in chat.urls.urlpatterns:
        assert isinstance(pattern, URLPattern)
        names = pattern.pattern.converters
        for form in ("md", "json") if "form" in names else ("",):
            given = {name: {**values, "form": form}[name] for name in names}
            yield f"{reverse(str(pattern.name), kwargs=given)}?conv_id={conv_id}"
    yield reverse("admin:index")
    yield reverse("admin:sessions_app_livesession_changelist")
    yield reverse("admin:sessions_app_livesession_change", kwargs={"conv_id": conv_id})


async def test_a_secret_is_in_no_frame_page_metric_admin_view_or_line_of_the_log(
    engine: ScriptedEngine, output: LogOutput
):
    root = await User.objects.acreate_superuser("root")
    browser = AsyncClient()
    await browser.aforce_login(root)
    async with ChatClient(user=root) as client:
        engine.play(*[call("safe", how) for how in WAYS], ["Done."])
        await client.ask("open it")
        for failure in (InferenceFailed(f"no {SETTING}"), ValueError(f"no {TOKEN} of {KEY}")):
            engine.play(["Half an answer. ", failure])
            await client.ask("again")
        engine.play(call("asking", "result"), ["Done."])
        await client.send("and with approval")
        await client.pause()

        seen: dict[str, str] = {}
        for address in addresses(client.conv_id):
            answer = await browser.get(address)
            if answer.status_code != 405:  # it is for posts
                assert answer.status_code == 200, address
                seen[address] = answer.content.decode()
        await client.decide()
        await client.answer()
        frames = json.dumps(client.frames, ensure_ascii=False)

    assert frames.count("•••") > 2 * len(WAYS)
    assert output.text.count("[redacted]") > len(WAYS)
    assert any("webchat_tool_calls_total" in text for text in seen.values())
    assert sum("•••" in text for text in seen.values()) >= 4
    for place, text in {**seen, "frames": frames, "log": output.text}.items():
        assert [canary for canary in CANARIES if canary in text] == [], place
