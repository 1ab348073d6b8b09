"""An exception nobody expected: an answer in the protocol's form, and nothing of its insides.

No call of the server raises one on purpose, so two addresses that do are put into its URLs.
"""

from __future__ import annotations

import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient
from django.urls import path

import webchat_project.urls
from sessions_app.inference.errors import Draining

SECRET = "sk-the-database-password"
RAISED = {
    "unexpected": RuntimeError,
    "denied": PermissionDenied,
    "suspicious": SuspiciousOperation,
    "draining": Draining,
}


async def broken(request: HttpRequest, kind: str) -> HttpResponse:
    raise RAISED[kind]("try again" if kind == "draining" else SECRET)


urlpatterns = [
    path("api/<str:kind>", broken),
    path("chat/<str:kind>", broken),
    *webchat_project.urls.urlpatterns,
]


@pytest.fixture
def client(settings, tmp_path) -> AsyncClient:
    settings.ROOT_URLCONF = __name__
    settings.STATIC_ROOT = tmp_path
    plain = "django.contrib.staticfiles.storage.StaticFilesStorage"
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": plain}}
    return AsyncClient(raise_request_exception=False)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("prefix", ["/api", "/chat"])
@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("unexpected", 500, "server_error"),
        ("denied", 403, "forbidden"),
        ("suspicious", 400, "bad_request"),
        ("draining", 503, "draining"),
    ],
)
async def test_it_is_answered_in_json_without_a_trace_also_when_debugging(
    client: AsyncClient, settings, prefix: str, kind: str, status: int, code: str, debug: bool
):
    settings.DEBUG = debug
    answer = await client.get(f"{prefix}/{kind}")

    assert answer.status_code == status
    assert answer["Content-Type"] == "application/json"
    assert set(answer.json()) == {"error", "code"}
    assert answer.json()["code"] == code
    assert SECRET not in answer.content.decode()
    assert "Traceback" not in answer.content.decode()


async def test_a_server_that_drains_says_when_to_come_back(client: AsyncClient):
    answer = await client.get("/api/draining")

    assert int(answer["Retry-After"]) > 0
