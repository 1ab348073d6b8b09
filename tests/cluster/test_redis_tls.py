"""A Redis behind TLS, with an account: redis-py takes all of it from the URL, and so do we.

The Redis of our tests is built without TLS, so a line of Python ends it in front of it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from django.core.checks import run_checks
from redis.exceptions import ConnectionError as Unconnected

from cluster.connect import connect
from tests.cluster.accounts import PASSWORD, assert_layer_works, new_account

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def behind_tls(url: str, authority: trustme.CA) -> AsyncIterator[int]:
    """The port of one who speaks TLS, and says the same to the Redis."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    redis = urlsplit(url)
    talking: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while part := await reader.read(2**16):
                writer.write(part)
                await writer.drain()
        writer.close()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_redis = await asyncio.open_connection(redis.hostname, redis.port)
        for task in (carry(reader, to_redis), carry(there, writer)):
            talking.add(asyncio.create_task(task, name="tls"))

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for task in talking:
        task.cancel()
    await asyncio.gather(*talking, return_exceptions=True)


async def test_tls_a_password_and_an_account_are_taken_from_the_url(
    redis_url: str, tmp_path: Path, settings
):
    name = await new_account(redis_url)
    ours, another = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(tmp_path / "ours.pem")
    another.cert_pem.write_to_path(tmp_path / "another.pem")

    async with behind_tls(redis_url, ours) as port:
        url = f"rediss://{name}:{PASSWORD}@127.0.0.1:{port}/0?ssl_ca_certs={tmp_path / 'ours.pem'}"
        client = connect(url)
        assert await client.ping()
        await client.aclose()

        await assert_layer_works(url)

        settings.REDIS_URL = url
        assert await asyncio.to_thread(run_checks) == []
        settings.REDIS_URL = url.replace(PASSWORD, "another")
        [refused] = await asyncio.to_thread(run_checks)
        assert refused.id == "webchat_project.E004"

        # Whoever says to be our Redis must prove it.
        settings.REDIS_URL = url.replace("ours.pem", "another.pem")
        [unknown] = await asyncio.to_thread(run_checks)
        assert unknown.id == "webchat_project.W001"
        assert "certificate verify failed" in unknown.msg
        client = connect(settings.REDIS_URL)
        with pytest.raises(Unconnected, match="certificate"):
            await client.ping()
        await client.aclose()
