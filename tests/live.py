"""Real servers on loopback, each a process of its own with a database of its own."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path

import httpx

from tests.environment import inherited
from tests.ports import free_port
from tests.redis_server import redis_cluster, redis_server

ROOT = Path(__file__).resolve().parent.parent
SERVERS = ("daphne", "uvicorn", "uvicorn-redis")
"""Each kind of server; with `-redis` as one process of a service that has a Redis of its own."""
LOSSY = "uvicorn-lossy"
"""As with `-redis`, and no message of the channel layer ever arrives."""
CLUSTERED = "uvicorn-cluster"
"""As with `-redis`, and that is a Redis Cluster."""
METRICS_TOKEN = "a-token-that-only-scrapers-have"
APPLICATION = "webchat_project.asgi:application"
START_SECONDS = 100  # a loaded machine; importing a provider alone takes seconds
NO_LIMITS = {
    f"WEBCHAT_{limit}": "100000"
    for limit in (
        "PROMPTS_PER_USER",
        "PROMPTS_PER_ADDRESS",
        "SOCKETS_PER_USER",
        "SOCKETS_PER_ADDRESS",
    )
}
"""All tests ask from one address."""
STOP_SECONDS = 20
SHARED = {"WEBCHAT_DRAIN_TIMEOUT": "0.5"}
"""The environment of a server that many tests share: it waits for nothing they leave running."""
OPERATED = {
    "WEBCHAT_METRICS": "1",
    "WEBCHAT_METRICS_TOKEN": METRICS_TOKEN,
    "LOG_FORMAT": "json",
}
"""The environment of a server whose metrics and log are read."""
NO_MESSAGES = {"DJANGO_SETTINGS_MODULE": "tests.standins.lossy"}
"""The environment of a server, and of its commands, whose channel layer loses everything."""
WITH_APPS = "tests.standins.prompted.settings"
"""A settings module that installs the examples and a test's own app."""


BY_HAND: Mapping[str, Callable[[int], list[str]]] = {
    "daphne": lambda port: [sys.executable, "-m", "daphne", "-p", str(port), APPLICATION],
    "uvicorn": lambda port: [sys.executable, "-m", "uvicorn", "--port", str(port), APPLICATION],
}


class LiveServer:
    """A running server. `url` has no slash at its end.

    `log` is what it wrote since `read_on`, `whole_log` all of it. `store` is the environment of
    whatever else shall share its Redis; empty where it has none.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        port: int,
        state: Path,
        log: Path,
        store: Mapping[str, str],
    ) -> None:
        self.process = process
        self.port = port
        self.state = state
        self.store = store
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        self._read = 0

    @property
    def log(self) -> str:
        return self._log.read_bytes()[self._read :].decode()

    @property
    def whole_log(self) -> str:
        return self._log.read_text()

    def read_on(self) -> None:
        """What it wrote so far is no matter of whoever reads from here."""
        self._read = self._log.stat().st_size

    async def stop(self) -> int:
        """Asks by SIGTERM and waits; returns the exit code. Kills what does not go."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """Waits for one that ends by itself; returns the exit code. Kills what does not go."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise TimeoutError(f"the server did not end in {STOP_SECONDS} s:\n{self.log}") from None

    def manage(self, *arguments: str) -> str:
        """Runs a management command on this server's database and returns what it printed."""
        return _manage(self.state, *arguments, env=self.store)

    async def start_managing(
        self, *arguments: str, stdout: int = subprocess.PIPE
    ) -> asyncio.subprocess.Process:
        """Starts a management command on this server's database; its stderr is a pipe."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "manage.py",
            *arguments,
            cwd=ROOT,
            env={**_environment(self.state), **self.store},
            stdout=stdout,
            stderr=subprocess.PIPE,
        )


@asynccontextmanager
async def live_server(
    kind: str = "daphne",
    *,
    env: Mapping[str, str] | None = None,
    port: int | None = None,
    by_hand: bool = False,
) -> AsyncIterator[LiveServer]:
    """A server that answers, with a fresh database; gone at the end of the block.

    `by_hand`: started by its own command, as somebody might who does not know ours.
    """
    server, _, behind = kind.partition("-")
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="webchat-test-")))
        store = {}
        if behind:
            redis = redis_cluster() if kind == CLUSTERED else redis_server()
            store["REDIS_URL"] = stack.enter_context(redis)
        if kind == LOSSY:
            store |= NO_MESSAGES
        shutil.copytree(prepared_state(), state, dirs_exist_ok=True)
        port = port or free_port()
        log = state / "server.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(BY_HAND[server](port) if by_hand else _command(server, port)),
                cwd=ROOT,
                env={**_environment(state), **store, **(env or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        running = LiveServer(process, port, state, log, store)
        try:
            await _until_ready(running)
            yield running
        finally:
            await running.stop()


class KeptServers:
    """Starts a server of a kind when it is first asked for, and keeps it."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._started: dict[str, LiveServer] = {}
        self._failed: dict[str, BaseException] = {}
        self._stack = AsyncExitStack()

    def of(self, kind: str) -> LiveServer:
        if kind in self._failed:  # it would take as long to fail for every other test
            raise self._failed[kind]
        if kind not in self._started:
            context = live_server(kind, env={**OPERATED, **SHARED})
            try:
                entering = self._stack.enter_async_context(context)
                self._started[kind] = self._runner.run(entering)
            except BaseException as error:
                self._failed[kind] = error
                raise
        return self._started[kind]

    async def aclose(self) -> None:
        """Ends them at once: a test may have left answers that a server would wait for."""
        for running in self._started.values():
            with suppress(ProcessLookupError):
                running.process.kill()
        await self._stack.aclose()


@contextmanager
def kept_servers() -> Iterator[KeptServers]:
    """Servers that may outlive the test which asked for one; gone at the end of the block.

    With a loop of their own: pytest-asyncio's session loop ends with each test, because every test
    is parametrised with its loop's factory, and a fixture on that loop would end with it.
    """
    with asyncio.Runner() as runner:
        kept = KeptServers(runner)
        try:
            yield kept
        finally:
            runner.run(kept.aclose())


@cache
def prepared_state() -> Path:
    """A migrated database, the static files and a key, made once for the whole test run."""
    state = Path(tempfile.mkdtemp(prefix="webchat-state-"))
    _manage(state, "migrate", "--verbosity=0")
    # With the files of every app that a test installs: a server links only to those of its own.
    with_apps = {"DJANGO_SETTINGS_MODULE": WITH_APPS}
    _manage(state, "collectstatic", "--noinput", "--verbosity=0", env=with_apps)
    return state


def _command(server: str, port: int) -> list[str]:
    """What `make run` starts, to the letter."""
    sys.path.append(str(ROOT / "scripts"))  # they import each other by their bare names
    try:
        from serve import server_command
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    return [sys.executable, *server_command(server, "127.0.0.1", str(port))]


def _environment(state: Path) -> dict[str, str]:
    return {
        **inherited(),
        **NO_LIMITS,
        "WEBCHAT_STATE_DIR": str(state),
        "WEBCHAT_MODEL": "demo",
    }


def _manage(state: Path, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    finished = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**_environment(state), **(env or {})},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


async def _until_ready(server: LiveServer) -> None:
    async with (
        httpx.AsyncClient(trust_env=False, verify=False) as client,
        asyncio.timeout(START_SECONDS),
    ):
        while True:
            assert server.process.returncode is None, f"the server ended:\n{server.log}"
            with suppress(httpx.TransportError):
                if (await client.get(f"{server.url}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)
