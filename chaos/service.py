"""The service under attack: a Redis, or a cluster of them, and servers that share it."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx

from tests.environment import inherited
from tests.ports import free_port

from .process import ROOT, Process
from .stores import ClusteredStore, Store

_LOGGED = re.compile(
    r"(?<=\[)(?:error|critical) *\].*|^ *\w[\w.]*(?:Error|Exception|Lost)\b.*", re.MULTILINE
)


class Server(Process):
    """`manage.py serve` with the harness's settings."""

    def __init__(self, name: str, kind: str, folder: Path, env: Mapping[str, str]) -> None:
        super().__init__(name, free_port(), folder, env)
        self.kind = kind
        self.url = f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [
            *(sys.executable, "manage.py", "serve"),
            *("--server", self.kind, "--port", str(self.port)),
        ]

    async def answers(self) -> bool:
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            with suppress(httpx.TransportError):
                return (await http.get(f"{self.url}/readyz")).status_code == 200
        return False


@asynccontextmanager
async def prepared() -> AsyncIterator[Path]:
    """A folder with a database and static files, for any number of services one after another."""
    with tempfile.TemporaryDirectory(prefix="webchat-chaos-") as folder:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "scripts.manage_all"),
            "migrate --verbosity=0",
            "collectstatic --noinput --verbosity=0 --skip-checks",
            cwd=ROOT,
            env=_environment(Path(folder)),
        )
        if await process.wait():
            raise RuntimeError("the database and the static files could not be made")
        yield Path(folder)


class Service:
    """Servers `s1`, `s2`, …, their Redis and one database."""

    def __init__(
        self,
        store: Store | ClusteredStore,
        state: Path,
        folder: Path,
        *,
        servers: int,
        env: Mapping[str, str],
    ) -> None:
        self.store = store
        whole = {**_environment(state), "REDIS_URL": store.url, **env}
        self.servers = [
            Server(f"s{number}", ("uvicorn", "daphne")[number % 2], folder, whole)
            for number in range(1, servers + 1)
        ]

    @classmethod
    @asynccontextmanager
    async def running(
        cls, state: Path, *, cluster: bool, servers: int, env: Mapping[str, str]
    ) -> AsyncIterator[Service]:
        """All of it answers, over what `prepared` gave; gone at the end of the block."""
        with tempfile.TemporaryDirectory(dir=state) as folder:
            store = await (ClusteredStore.begun() if cluster else Store.begun(Path(folder)))
            service = cls(store, state, Path(folder), servers=servers, env=env)
            try:
                await asyncio.gather(*(server.start() for server in service.servers))
                yield service
            finally:
                await asyncio.gather(*(server.stop() for server in service.servers))
                await store.client.aclose()
                await store.stop()

    def any(self, random: random.Random) -> Server:
        """A server that is up; while none is, one that is not."""
        return random.choice([server for server in self.servers if server.up] or self.servers)

    def keep_logs(self, folder: Path) -> None:
        """Copies what servers and Redis have said."""
        folder.mkdir(parents=True, exist_ok=True)
        for log in (*(server.log for server in self.servers), *self.store.logs):
            shutil.copy(log, folder)

    def logged(self) -> Counter[str]:
        """What the servers complained of, without what differs from line to line."""
        found: Counter[str] = Counter()
        for server in self.servers:
            for line in _LOGGED.findall(server.log.read_text(errors="replace")):
                found[re.sub(r"[0-9a-f-]{8,}|\d+", "…", line)[:160]] += 1
        return found


def _environment(state: Path) -> dict[str, str]:
    return {
        **inherited(),
        "DJANGO_SETTINGS_MODULE": "chaos.settings",
        "LOG_LEVEL": "WARNING",
        "WEBCHAT_STATE_DIR": str(state),
    }
