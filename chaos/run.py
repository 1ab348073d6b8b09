"""One run: servers, a crowd and a nemesis for so long; then all comes to rest, and is judged."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from redis.asyncio import Redis

from cluster.store import Keys

from .history import End, Entry, History, Place, Violations
from .nemesis import Nemesis, faults
from .people import CALL_SECONDS, Crowd, Tab, User, watch
from .service import Service

REST_SECONDS = 60.0
"""Until what was asked last has ended."""
RESETS_OUTLASTED = 6.0
"""A lease of so many seconds does not run out while Redis hangs up on everybody."""
NOTICED_SECONDS = 2.0
"""An owner knows within its lease that its data is gone, on a machine that is busy a bit later."""
HEAD_SECONDS = 30.0
"""Until every tab has seen the end of it: a follower at rest looks up every 15 s."""
MUTANT_SECONDS = 20.0
"""For either with a mutant, which shows itself by what does not come to rest."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run."""

    nemesis: tuple[str, ...]
    seconds: float
    loss: float
    lease: float
    servers: int
    conversations: int
    tabs: int
    users: int
    every: float
    window: int
    seed: int
    cluster: bool = False
    mutant: str = ""

    @property
    def owners_live(self) -> bool:
        """Nobody is killed, and no lease runs out while Redis hangs up or goes elsewhere."""
        return (
            not {*self.nemesis} - {"reset", "drain", "promote", "move"}
            and self.lease >= RESETS_OUTLASTED
        )

    @property
    def name(self) -> str:
        parts = [f"mutant {self.mutant}:"] if self.mutant else []
        whole = {*self.nemesis} == {*faults(cluster=self.cluster)}
        kinds = "all" if whole else "+".join(self.nemesis)
        if self.cluster:
            parts.append("cluster:")
        return " ".join([*parts, kinds or "nothing", f"loss {self.loss:.0%}", f"seed {self.seed}"])


@dataclass
class Result:
    """What came of a run."""

    plan: Plan
    seconds: float = 0
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    logged: Counter[str] = field(default_factory=Counter)

    def numbers(self) -> dict[str, object]:
        """All of it, as JSON has it."""
        return {**vars(self), "plan": asdict(self.plan)}

    @property
    def well(self) -> bool:
        """No violation; of a mutant, at least one."""
        return bool(self.violations) is bool(self.plan.mutant)


async def run(plan: Plan, state: Path, *, logs: Path | None = None) -> Result:
    """Breaks things for so long, lets all come to rest, and judges what was seen."""
    env = {
        "CHAOS_LOSS": str(plan.loss),
        "CHAOS_MUTANT": plan.mutant,
        "CHAOS_WINDOW": str(plan.window),
        "WEBCHAT_LEASE_SECONDS": str(plan.lease),
    }
    result, violations = Result(plan), Violations()
    histories = [History(str(uuid4()), violations) for _ in range(plan.conversations)]
    for history in histories:
        history.owners_live = plan.owners_live
        history.grace = plan.lease + NOTICED_SECONDS
    async with (
        Service.running(state, cluster=plan.cluster, servers=plan.servers, env=env) as service,
        httpx.AsyncClient(timeout=CALL_SECONDS, trust_env=False, verify=False) as http,
    ):
        (await http.get(f"{service.servers[0].url}/")).raise_for_status()
        scene = _Scene(plan, service, Crowd(service, http, plan.seed), histories, violations)
        began = time.monotonic()
        ends = await scene.play()
        result.seconds = time.monotonic() - began
        for name in scene.nemesis.stuck:
            violations.add("drain", f"{name} was asked to go, and did not")
        if not scene.caught:
            await _judge(service.store.client, histories, scene.tabs, ends)
        for history in histories:
            result.statuses += history.statuses
            scene.crowd.counts["unjudged"] += not history.judged
        result.logged = service.logged()
        if logs is not None:
            service.keep_logs(logs / plan.name.replace(" ", "-").replace(":", ""))
    result.counts, result.faults = scene.crowd.counts, scene.nemesis.counts
    result.violations, result.told = violations.counts, violations.told
    return result


class _Scene:
    """All who take part in a run."""

    def __init__(
        self,
        plan: Plan,
        service: Service,
        crowd: Crowd,
        histories: list[History],
        violations: Violations,
    ) -> None:
        self.plan = plan
        self.crowd = crowd
        self.histories = histories
        self.client = service.store.client
        self.tabs = [Tab(crowd, history) for history in histories for _ in range(plan.tabs)]
        self.users = [User(crowd, histories) for _ in range(plan.users)]
        self.nemesis = Nemesis(
            service,
            self.tabs,
            kinds=plan.nemesis,
            lease=plan.lease,
            every=plan.every,
            seed=plan.seed + 1,
        )
        self._violations = violations

    @property
    def caught(self) -> bool:
        """Whether there is nothing left to find out: a mutant has shown itself."""
        return bool(self.plan.mutant and self._violations.total)

    async def play(self) -> dict[str, End]:
        """Everybody asks, things break, all comes to rest; how the conversations are then."""
        async with asyncio.TaskGroup() as group:
            connected = [group.create_task(tab.run()) for tab in self.tabs]
            connected.append(group.create_task(watch(self.tabs)))
            asking = [group.create_task(user.run()) for user in self.users]
            await self.nemesis.run(self.plan.seconds, enough=lambda: self.caught)
            await self.nemesis.mend()
            await asyncio.sleep(2)
            self.crowd.asking = False
            await asyncio.wait(asking)
            if self.plan.nemesis and await self._rested():
                await self._strike_once_more()
            self.crowd.leaving = False
            ends = await _all_at_head(self.client, self.tabs, self._patience(HEAD_SECONDS))
            for task in connected:
                task.cancel()
        return ends

    async def _strike_once_more(self) -> None:
        """What a fault leaves behind must come right although nobody asks any more."""
        await self.users[0].settle()
        await self.users[0].leave_work()
        await self.nemesis.strike()
        await self.nemesis.mend()
        await self._rested()

    def _patience(self, seconds: float) -> float:
        if self.caught:
            return 0
        return min(MUTANT_SECONDS, seconds) if self.plan.mutant else seconds

    async def _rested(self) -> bool:
        """Whether nothing runs and nothing waits, after `REST_SECONDS` at most."""
        ends = time.monotonic() + self._patience(REST_SECONDS)
        while True:
            found = [await _end(self.client, history.conv_id) for history in self.histories]
            if not any(end.active or end.queued for end in found):
                return True
            if time.monotonic() > ends:
                return False
            await asyncio.sleep(0.3)


async def _judge(
    client: Redis,
    histories: Sequence[History],
    tabs: Sequence[Tab],
    ends: Mapping[str, End],
) -> None:
    for tab in tabs:
        head = ends[tab.history.conv_id].place
        if tab.place != head:
            tab.history.wrong("behind", f"a tab is at {tab.place}, the log at {head}")
    for history in histories:
        history.check(await _whole(client, ends[history.conv_id], history.conv_id))


async def _all_at_head(client: Redis, tabs: Sequence[Tab], seconds: float) -> dict[str, End]:
    """How the conversations ended, once every tab has seen it, or after so long."""
    until = time.monotonic() + seconds
    while True:
        convs = {tab.history.conv_id for tab in tabs}
        ends = {conv_id: await _end(client, conv_id) for conv_id in convs}
        at_head = all(tab.place == ends[tab.history.conv_id].place for tab in tabs)
        if at_head or time.monotonic() > until:
            return ends
        await asyncio.sleep(0.2)


async def _end(client: Redis, conv_id: str) -> End:
    """How a conversation is, but for its frames."""
    meta: Any = await client.hgetall(Keys(conv_id).meta)
    return End(
        place=Place(
            int(meta.get(b"epoch", 0)),
            int(meta.get(b"head", 0)),
            meta.get(b"head_id", b"").decode(),
        ),
        active=meta.get(b"active", b"").decode(),
        queued=int(meta.get(b"queued", 0)),
    )


async def _whole(client: Redis, end: End, conv_id: str) -> End:
    """The same with its frames, and what else is stored of it."""
    keys = Keys(conv_id)
    entries: Any = await client.xrange(keys.log)
    end.entries = [
        Entry(int(id.split(b"-")[0]), id.decode(), fields[b"x"].decode()) for id, fields in entries
    ]
    record: Any = await client.get(keys.record)
    session = None if record is None else json.loads(record).get("session")
    end.step_mode = None if session is None else session["step_mode"]
    return end
