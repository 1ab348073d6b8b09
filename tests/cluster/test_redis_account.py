"""A Redis that asks for an account: the one that our hint names can do all that we need."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.core.checks import run_checks

from chat.limits import Bounds as LimitBounds
from chat.shared_limits import SharedLimits
from cluster.connect import connect
from cluster.inbox import Inbox
from cluster.presence import Presence
from cluster.store import Batch, Bounds, RedisStore
from tests.cluster.accounts import PASSWORD, assert_layer_works, new_account

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOUNDS = Bounds(frames=10, bytes=10**6, age_ms=10**7, ttl_seconds=100)


async def test_the_account_of_the_hint_is_enough_and_a_wrong_password_is_an_error(
    redis_url: str, settings
):
    url = redis_url.replace("://", f"://{await new_account(redis_url)}:{PASSWORD}@")

    client = connect(url)
    store = RedisStore(client, bounds=BOUNDS)
    conv = str(uuid4())
    claim = await store.claim(conv, "here", ttl_ms=1000)
    await store.note_leases([conv], ttl_ms=1000)
    await store.append(conv, "here", claim, Batch(0, "", "", 0, (), b"{}"), ttl_ms=9, now_ms=0)
    await store.renew(conv, "here", claim, ttl_ms=1000)
    await store.post(conv, b"{}")
    await store.reserve_key("user:1", conv, "name", conv)
    await store.note_owner("user:1", conv, 1)
    await store.due(most=1)
    await store.forget_lease(conv)
    assert await store.heads([conv]) == [0]
    await SharedLimits(LimitBounds(), client=client, presence=Presence(client, "here")).take_prompt(
        "user:1", conv
    )
    assert await Presence(client, "here").others("a-topic") == []
    await Inbox(client, "here", on_message=lambda message: None).send("there", {"a": b"b"})
    await client.aclose()

    await assert_layer_works(url)

    settings.REDIS_URL = url
    assert run_checks() == []
    settings.REDIS_URL = url.replace(PASSWORD, "another")
    assert [found.id for found in run_checks()] == ["webchat_project.E004"]
