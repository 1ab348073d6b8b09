"""The command: `make soak`, or `python -m bench.soak --minutes 30 --server daphne`.

A bounded load on one server: conversations come and go, sockets drop in mid-answer and resume by
their cursor, answers are cancelled, readers stop reading. Each minute it prints what the server
holds. It ends with 1 where that is not flat once the server is warm, or where a visit went wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, fields
from random import Random
from uuid import uuid4

import httpx
from prometheus_client.parser import text_string_to_metric_families

from .orders import Orders
from .servers import OURS, Machinery, Ours

TOKEN = uuid4().hex
ENV = {
    "DJANGO_SETTINGS_MODULE": "bench.soak_settings",
    "WEBCHAT_METRICS_TOKEN": TOKEN,
    **{
        f"WEBCHAT_{limit}": "1000000"
        for limit in (
            "PROMPTS_PER_USER",
            "PROMPTS_PER_ADDRESS",
            "SOCKETS_PER_USER",
            "SOCKETS_PER_ADDRESS",
        )
    },
}
VISITORS = 6
STUCK = 2
ANSWER = Orders(frames=40, per_second=20).encode()
ANSWER_SECONDS = 2.0
PATIENCE = 30.0
"""Seconds for each step of a visit."""
SAMPLE_SECONDS = 10.0
WARM_SHARE = 0.3
"""The part of the time in which the figures may still rise."""
MAY_GROW = {"memory": (0.05, 4.0), "descriptors": (0.1, 8.0), "tasks": (0.1, 8.0)}
"""From the first half of the rest to the second: a share, and so many more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the server held at one moment. Memory is MiB."""

    memory: float
    descriptors: float
    tasks: float
    sockets: float
    logs: float


def risen(samples: Sequence[Sample]) -> list[str]:
    """What grew once the server was warm: a sentence for each figure that is not flat."""
    warm = samples[int(len(samples) * WARM_SHARE) :]
    early, late = warm[: len(warm) // 2], warm[len(warm) // 2 :]
    told = []
    for name, (share, more) in MAY_GROW.items():
        before, after = (
            statistics.median(getattr(sample, name) for sample in half) for half in (early, late)
        )
        if after > before * (1 + share) + more:
            told.append(f"{name} rose from {before:.0f} to {after:.0f}")
    return told


class Soak:
    """The load on one server, and what it came to."""

    def __init__(self, server: Ours) -> None:
        self._server = server
        self._chance = Random(0)  # noqa: S311 - it hides nothing
        self.done: Counter[str] = Counter()
        self.samples: list[Sample] = []

    async def run(self, seconds: float) -> None:
        """Loads the server for so long, and looks at it meanwhile."""
        end = time.monotonic() + seconds
        jobs = [self._again(end, "visits", self._visit) for _ in range(VISITORS)]
        jobs += [self._again(end, "stuck readers", self._stuck_reader) for _ in range(STUCK)]
        await asyncio.gather(self._watch(end), *jobs)

    async def _watch(self, end: float) -> None:
        began, told = time.monotonic(), 0
        while (now := time.monotonic()) < end:
            await asyncio.sleep(min(SAMPLE_SECONDS, end - now))
            self.samples.append(await self._sample())
            if (minutes := int((time.monotonic() - began) // 60)) > told:
                told = minutes
                self._tell(minutes)

    async def _sample(self) -> Sample:
        text = await self._server.get("/metrics", Authorization=f"Bearer {TOKEN}")
        found = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        return Sample(
            memory=self._server.cost.memory / 2**20,
            descriptors=self._server.descriptors,
            tasks=found["webchat_tasks"],
            sockets=found["webchat_sockets"],
            logs=found["webchat_logs"],
        )

    def _tell(self, minute: int) -> None:
        last = self.samples[-round(60 / SAMPLE_SECONDS) :]
        held = ", ".join(
            f"{statistics.median(getattr(sample, field.name) for sample in last):.0f} {field.name}"
            for field in fields(Sample)
        )
        done = ", ".join(f"{number} {what}" for what, number in sorted(self.done.items()))
        cpu = self._server.cost.cpu
        print(f"minute {minute}: {held}; {cpu:.0f} s of CPU; {done}", flush=True)

    async def _again(self, end: float, name: str, job: Callable[[], Awaitable[None]]) -> None:
        while time.monotonic() < end:
            try:
                await job()
            except (TimeoutError, OSError, RuntimeError, httpx.HTTPError) as error:
                self.done["failures"] += 1
                print(
                    f"one of the {name} failed: {type(error).__name__}: {error}",
                    file=sys.stderr,
                    flush=True,
                )
            self.done[name] += 1

    async def _visit(self) -> None:
        """A few answers in a new conversation; some are cancelled, some heard in two parts."""
        conv = str(uuid4())
        async with self._step("a new conversation's socket", conv):
            wire = await self._server.open(conv)
        try:
            for _ in range(self._chance.randint(1, 3)):
                end = wire.end()
                async with self._step("the log's head", conv):
                    epoch, head = await self._server.cursor(conv)  # its end comes after this
                async with self._step("a prompt to be taken", conv):
                    await self._server.say(conv, ANSWER)
                what = self._chance.choice(("answers", "cancels", "resumes"))
                if what != "answers":
                    await asyncio.sleep(self._chance.uniform(0.1, ANSWER_SECONDS / 2))
                if what == "cancels":
                    async with self._step("a cancel to be answered", conv):
                        if not await self._server.cancel(conv):
                            what = "late cancels"
                elif what == "resumes":
                    wire.close()
                    wire = self._server.wire(conv, cursor=f"{epoch}.{head}")
                    end = wire.end()
                    async with self._step("a socket that comes back to be accepted", conv):
                        await wire.open()
                before = wire.frames
                async with self._step(f"the end of one of the {what}, after frame {before}", conv):
                    await end
                self.done[what] += 1
        finally:
            wire.close()

    @asynccontextmanager
    async def _step(self, what: str, conv: str) -> AsyncIterator[None]:
        """Raises TimeoutError with what was waited for, and what the server says of it."""
        try:
            async with asyncio.timeout(PATIENCE):
                yield
        except TimeoutError:
            told = "it does not say"
            with suppress(TimeoutError, httpx.HTTPError):
                async with asyncio.timeout(PATIENCE):
                    told = await self._server.get(f"/api/timeline?conv_id={conv}")
            raise TimeoutError(
                f"{PATIENCE:.0f} s for {what}; its timeline: {told[-1000:]}"
            ) from None

    async def _stuck_reader(self) -> None:
        conv = str(uuid4())
        async with self._step("a socket that will not read", conv):
            wire = await self._server.open(conv)
        try:
            wire.stop_reading()
            async with self._step("a prompt of one that does not read to be taken", conv):
                await self._server.say(conv, ANSWER)
            await asyncio.sleep(2 * ANSWER_SECONDS)
        finally:
            wire.close()


async def _run(kind: str, minutes: float) -> int:
    name = f"webchat {kind}"
    async with (
        Machinery.prepared((name,)) as machinery,
        machinery.server(name, **ENV) as server,
    ):
        assert isinstance(server, Ours)
        soak = Soak(server)
        await soak.run(minutes * 60)
    told = risen(soak.samples)
    if soak.done["failures"]:
        told.append(f"{soak.done['failures']} failed of {soak.done['visits']} visits")
    print("\n".join(told) or f"flat: {name}, {minutes:g} minutes", flush=True)
    return 1 if told else 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    kinds = [name.rpartition(" ")[2] for name in OURS]
    parser.add_argument("--server", choices=kinds, default="uvicorn")
    asked = parser.parse_args()
    if asked.minutes < 1:
        parser.error(f"got {asked.minutes:g} minutes; a server is not warm before one has passed")
    sys.exit(asyncio.run(_run(asked.server, asked.minutes)))


if __name__ == "__main__":
    main()
