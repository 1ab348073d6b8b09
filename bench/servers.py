"""The servers under test, each a process of its own on loopback, and what one costs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import psutil
from redis.asyncio import Redis

from cluster.store import Keys
from tests.environment import inherited
from tests.ports import free_port
from tests.redis_server import redis_server

from .client import Caller, Wire
from .orders import Orders

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 120.0
STOP_SECONDS = 20.0

PLAIN = "websockets"
OURS = ("webchat uvicorn", "webchat daphne")
STOCK = ("channels uvicorn", "channels daphne")
CHAINLIT = "chainlit"
PAIR = "2 uvicorn on Redis"
PAIR_CORE = "2 uvicorn on Redis (core)"
"""Two processes on a Redis; the second with the layer of `channels_redis.core`."""
PAIRS = (PAIR, PAIR_CORE)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process has used so far."""

    cpu: float
    """Seconds of a core."""
    memory: int
    """Bytes it holds."""

    @classmethod
    def of(cls, process: psutil.Process) -> Cost:
        return cls(_cpu_seconds(process), process.memory_info().rss)


def _cpu_seconds(process: psutil.Process) -> float:
    """To the nanosecond where the system tells it; elsewhere in ticks of 10 ms."""
    try:
        threads = Path(f"/proc/{process.pid}/task").iterdir()
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
    except OSError:
        times = process.cpu_times()
        return float(times.user + times.system)


class Server:
    """A running server. `open` gives sockets of a conversation; `order` has it answer there."""

    def __init__(self, name: str, process: psutil.Process, url: str) -> None:
        self.name = name
        self.url = url
        self._process = process

    @property
    def cost(self) -> Cost:
        return Cost.of(self._process)

    def keep_to_one_core(self) -> None:
        """Also its threads; those that it starts later inherit it."""
        core = min(os.sched_getaffinity(0))
        for thread in self._process.threads():
            os.sched_setaffinity(thread.id, {core})

    @property
    def descriptors(self) -> int:
        """Files and sockets the process has open."""
        return int(self._process.num_fds())

    async def open(self, conv: str, **query: str) -> Wire:
        """A socket that gets what is said in the conversation from here on."""
        return await Wire(f"{self.url}/{conv}").open()

    def kill(self) -> None:
        """As `kill -9` does."""
        self._process.kill()

    async def order(self, conv: str, orders: Orders, wire: Wire) -> None:
        """Returns once the order is on its way."""
        wire.send(orders.encode())


class Ours(Server):
    """Webchat, as `manage.py serve` runs it, visited by one browser."""

    def __init__(
        self, name: str, process: psutil.Process, url: str, http: httpx.AsyncClient
    ) -> None:
        super().__init__(name, process, url)
        self._http = http

    def admit(self, other: Ours) -> None:
        """From here on this is visited by the other's browser."""
        self._http.cookies.update(other._http.cookies)

    @property
    def cookies(self) -> Mapping[str, str]:
        """What the visitor's browser holds."""
        return dict(self._http.cookies)

    async def open(self, conv: str, **query: str) -> Wire:
        """Also returns only once the socket has its snapshot, or with a cursor its `ws.hello`."""
        wire = self.wire(conv, **query)
        greeted = wire.count(1 if "cursor" in query else 2)
        await wire.open()
        await greeted
        return wire

    def wire(self, conv: str, **query: str) -> Wire:
        """A socket of the conversation that is still to be opened."""
        asked = urlencode({"conv_id": conv, **query})
        return Wire(f"{self.url}/ws?{asked}", {"Cookie": self._cookies()}, acknowledges=True)

    def caller(self) -> Caller:
        """A connection for prompts that is still to be opened."""
        token = self._http.cookies["csrftoken"]
        return Caller(self.url, {"Cookie": self._cookies(), "X-CSRFToken": token})

    def _cookies(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    async def order(self, conv: str, orders: Orders, wire: Wire | None = None) -> None:
        await self.say(conv, orders.encode())

    async def say(self, conv: str, prompt: str) -> None:
        """Posts a prompt that must be taken up."""
        await self._post("/chat", {"prompt": prompt, "conv_id": conv}, 200)

    async def cancel(self, conv: str) -> bool:
        """Cancels what runs in the conversation; False where it had ended."""
        answer = await self._post("/api/chat/cancel", {"conv_id": conv}, 200, 409)
        return answer.status_code == 200

    async def get(self, path: str, **headers: str) -> str:
        """What the address answers; it must."""
        answer = await self._http.get(path, headers=headers)
        return answer.raise_for_status().text

    async def _post(self, path: str, body: object, *expected: int) -> httpx.Response:
        answer = await self._http.post(
            path,
            content=json.dumps(body),
            headers={
                "X-CSRFToken": self._http.cookies["csrftoken"],
                "Content-Type": "application/json",
            },
        )
        if answer.status_code not in expected:
            raise RuntimeError(f"{self.name} answered {answer.status_code}: {answer.text}")
        return answer

    async def cursor(self, conv: str) -> tuple[int, int]:
        """The epoch and head of the conversation's log."""
        answer = await self._http.get("/api/timeline", params={"conv_id": conv})
        timeline = answer.json()
        return timeline["epoch"], timeline["version"]


class Pair(Ours):
    """Two processes of ours that share a Redis; what is asked of it goes to the first."""

    def __init__(self, first: Ours, second: Ours, redis_url: str, store: psutil.Process) -> None:
        super().__init__(first.name, first._process, first.url, first._http)
        self.first = first
        self.second = second
        self.redis_url = redis_url
        self._store = store
        second.admit(first)

    @property
    def cost(self) -> Cost:
        """Of both processes."""
        costs = [Cost.of(each._process) for each in (self.first, self.second)]
        return Cost(sum(cost.cpu for cost in costs), sum(cost.memory for cost in costs))

    @property
    def store_cpu(self) -> float:
        """Seconds of a core that Redis has used."""
        return Cost.of(self._store).cpu

    async def halves(self, convs: Sequence[str]) -> list[tuple[str, int]]:
        """For each the cursor of who has seen half of its log, and how many frames that missed."""
        found = []
        async with Redis.from_url(self.redis_url, decode_responses=True) as client:
            for conv in convs:
                keys = Keys(conv)
                epoch: Any = await client.hget(keys.meta, "epoch")
                entries: Any = await client.xrange(keys.log)
                seen = len(entries) // 2
                id = entries[seen - 1][0]
                found.append((f"{epoch}.{id.partition('-')[0]}.{id}", len(entries) - seen))
        return found

    async def store_info(self) -> Mapping[str, int]:
        """What Redis says of itself: the numbers."""
        async with Redis.from_url(self.redis_url) as client:
            info = await client.info()
        return {name: value for name, value in info.items() if isinstance(value, int)}


@dataclass
class Machinery:
    """Starts servers and ends those it started. `env` is for ours; `only` names who takes part.

    `chainlit` is the interpreter that has Chainlit; without one Chainlit takes no part.
    """

    state: Path
    only: tuple[str, ...]
    chainlit: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def prepared(
        cls, only: tuple[str, ...], chainlit: str | None = None
    ) -> AsyncIterator[Machinery]:
        """With a database and static files of its own, gone at the end of the block."""
        with tempfile.TemporaryDirectory(prefix="webchat-bench-") as folder:
            if chainlit is None:
                only = tuple(name for name in only if name != CHAINLIT)
            machinery = cls(Path(folder), only, chainlit)
            if any(name in only for name in (*OURS, *PAIRS)):
                await machinery._set_up()
            yield machinery

    @asynccontextmanager
    async def server(self, name: str, **env: str) -> AsyncIterator[Server]:
        """The named server, once it answers."""
        if name in PAIRS:
            layer = "core" if name == PAIR_CORE else "pubsub"
            with redis_server() as url:
                env = {**env, "REDIS_URL": url, "BENCH_LAYER": layer}
                async with (
                    self.server(OURS[0], **env) as first,
                    self.server(OURS[0], **env) as second,
                ):
                    assert isinstance(first, Ours)
                    assert isinstance(second, Ours)
                    yield Pair(first, second, url, await _process_of(url))
            return
        port = free_port()
        log = self.state / f"{port}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *self._command(name, port),
                cwd=self.state if name == CHAINLIT else ROOT,  # it writes where it is started
                env={**self._environment(), **env},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, verify=False
            ) as http:
                try:
                    await _until_it_answers(process, http, "/readyz" if name in OURS else "/")
                except (TimeoutError, RuntimeError) as error:
                    raise RuntimeError(f"{name} did not start:\n{log.read_text()}") from error
                seen, url = psutil.Process(process.pid), f"http://127.0.0.1:{port}"
                if name in OURS:
                    (await http.get("/")).raise_for_status()
                    yield Ours(name, seen, url, http)
                elif name == CHAINLIT:
                    from .chainlit_wire import Chainlit

                    yield Chainlit(name, seen, url)
                else:
                    yield Server(name, seen, url)
        finally:
            await _end(process)

    @asynccontextmanager
    async def model(self) -> AsyncIterator[Mapping[str, str]]:
        """A model's service, and the environment that has a server of ours answer by it."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.model", cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(START_SECONDS):
                port = int(await process.stdout.readline())
            yield {
                "WEBCHAT_MODEL": "openai-chat:bench",
                "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
            }
        finally:
            await _end(process)

    async def _set_up(self) -> None:
        command = (sys.executable, "-m", "scripts.manage_all")
        process = await asyncio.create_subprocess_exec(
            *command,
            "migrate --verbosity=0",
            "collectstatic --noinput --verbosity=0 --skip-checks",
            cwd=ROOT,
            env=self._environment(),
        )
        if await process.wait():
            raise RuntimeError("the database and the static files could not be made")

    def _environment(self) -> dict[str, str]:
        return {
            **inherited(),
            "DJANGO_SETTINGS_MODULE": "bench.settings",
            "WEBCHAT_STATE_DIR": str(self.state),
            "WEBCHAT_MODEL": "bench:fast",
            "CHAINLIT_APP_ROOT": str(self.state),  # it writes its settings there
            **self.env,
        }

    def _command(self, name: str, port: int) -> list[str]:
        if name != CHAINLIT:
            return _command(name, port)
        assert self.chainlit is not None
        app = str(ROOT / "bench" / "chainlit_app.py")
        options = ["--headless", "--host", "127.0.0.1", "--port", str(port)]
        return [self.chainlit, "-m", "chainlit", "run", app, *options]


def _command(name: str, port: int) -> list[str]:
    kind = name.rpartition(" ")[2]
    if name in OURS:
        return [sys.executable, "manage.py", "serve", "--server", kind, "--port", str(port)]
    if name == "channels daphne":
        options = ["--application-close-timeout", "2", "-v", "0"]
        return [
            sys.executable,
            "-m",
            "daphne",
            *options,
            "-p",
            str(port),
            "bench.stock:application",
        ]
    if name == "channels uvicorn":
        options = ["--ws", "websockets-sansio", "--log-level", "warning", "--lifespan", "off"]
        return [
            *(sys.executable, "-m", "uvicorn", "--port", str(port), "--no-access-log"),
            *(*options, "bench.stock:application"),
        ]
    assert name == PLAIN, name
    return [sys.executable, "-m", "bench.plain", str(port)]


async def _process_of(redis_url: str) -> psutil.Process:
    async with Redis.from_url(redis_url) as client:
        return psutil.Process((await client.info("server"))["process_id"])


async def _until_it_answers(
    process: asyncio.subprocess.Process, http: httpx.AsyncClient, path: str
) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            if process.returncode is not None:
                raise RuntimeError(f"it ended with {process.returncode}")
            with suppress(httpx.TransportError):
                # Whatever it says: some of them know no HTTP.
                if path == "/" or (await http.get(path)).status_code == 200:
                    if path == "/":
                        await http.get(path)
                    return
            await asyncio.sleep(0.05)


async def _end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
