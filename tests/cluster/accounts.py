"""Accounts of a Redis, and whether the channel layer can do its work with one."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from channels_redis.pubsub import RedisPubSubChannelLayer
from redis.asyncio import Redis

from cluster.connect import OPTIONS

RULES = "+@all -@dangerous +info ~* &*"
PASSWORD = "a-password"


async def new_account(url: str) -> str:
    """The name of an account that may do what our hint says; its password is `PASSWORD`."""
    name = f"webchat-{uuid4().hex[:8]}"
    async with Redis.from_url(url) as admin:
        command: Any = admin.execute_command
        await command("ACL", "SETUSER", name, "on", f">{PASSWORD}", *RULES.split())
    return name


async def assert_layer_works(url: str) -> None:
    """A message to a group arrives."""
    layer = RedisPubSubChannelLayer(hosts=[{"address": url, **OPTIONS}])
    channel = await layer.new_channel()
    await layer.group_add("group", channel)
    await layer.group_send("group", {"type": "heard"})
    assert await layer.receive(channel) == {"type": "heard"}
    await layer.flush()
