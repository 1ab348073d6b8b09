"""chat/requests.py and chat/middleware.py: what becomes of requests when their process goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.test import AsyncRequestFactory

from chat.hub import Hub
from chat.middleware import ProtocolErrorsMiddleware
from webchat_project.testing import running_hub

pytestmark = [pytest.mark.virtual, pytest.mark.usefixtures("plain_static")]

PATHS = ["/api/timeline", "/c/conv/"]


@pytest_asyncio.fixture
async def hub() -> AsyncIterator[Hub]:
    async with running_hub() as hub:
        yield hub


async def waits_for_ever(request: HttpRequest) -> HttpResponse:
    await asyncio.Event().wait()
    raise AssertionError("nobody set it")


async def is_answered_soon(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0.5)
    return HttpResponse("here it is")


def told(response: HttpResponseBase, path: str) -> str:
    """The code of a refusal, or of a page, in the form that whoever asked there can read."""
    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0
    assert response["Cache-Control"] == "no-store"
    assert isinstance(response, HttpResponse)
    if not path.startswith("/api/"):
        assert response["Content-Type"].startswith("text/html")
        return "page"
    code: str = json.loads(response.content)["code"]
    return code


@pytest.mark.parametrize("path", PATHS)
async def test_what_is_not_answered_when_the_process_goes_is_told_so(hub: Hub, path: str):
    request = AsyncRequestFactory().get(path)
    asked = asyncio.ensure_future(ProtocolErrorsMiddleware(waits_for_ever)(request))
    await asyncio.sleep(0)

    await hub.aclose()
    assert told(await asked, path) in ("unavailable", "page")


async def test_what_is_answered_in_a_moment_is_waited_for(hub: Hub):
    request = AsyncRequestFactory().get("/api/timeline")
    asked = asyncio.ensure_future(ProtocolErrorsMiddleware(is_answered_soon)(request))
    await asyncio.sleep(0)

    await hub.aclose()
    assert (await asked).status_code == 200


@pytest.mark.parametrize("path", PATHS)
async def test_what_comes_later_is_refused(hub: Hub, path: str):
    await hub.aclose()
    request = AsyncRequestFactory().get(path)
    assert told(await ProtocolErrorsMiddleware(waits_for_ever)(request), path) in (
        "draining",
        "page",
    )


async def test_a_client_that_is_gone_is_answered_by_nobody(hub: Hub):
    request = AsyncRequestFactory().get("/api/timeline")
    asked = asyncio.ensure_future(ProtocolErrorsMiddleware(waits_for_ever)(request))
    await asyncio.sleep(0)

    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
