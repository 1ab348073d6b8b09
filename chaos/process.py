"""A process that is started, killed and started again."""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 120.0
STOP_SECONDS = 10.0


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
