"""The command: `make chaos`, or `python -m chaos --seconds 60 --nemesis kill,stop --seed 1`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from chat.serving.listener import raise_descriptor_limit
from cluster.store import Keys

from .history import End, Entry, History, Place, Violations
from .mutants import MUTANTS, SHOWN_BY
from .nemesis import FAULTS, Nemesis
from .people import CALL_SECONDS, Crowd, Tab, User
from .service import Service, Store, prepared

REST_SECONDS = 45.0
"""Until what was asked last has ended."""
RESETS_OUTLASTED = 6.0
"""A lease of so many seconds does not run out while Redis hangs up on everybody."""
HEAD_SECONDS = 20.0
"""Until every tab has seen the end of it: a follower at rest looks up every 15 s."""


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
    seed: int
    mutant: str = ""

    @property
    def owners_live(self) -> bool:
        """Nobody is killed, and no lease runs out while Redis hangs up."""
        return not {*self.nemesis} - {"reset"} and self.lease >= RESETS_OUTLASTED

    @property
    def name(self) -> str:
        parts = [f"mutant {self.mutant}:"] if self.mutant else []
        parts.append("+".join(self.nemesis) or "nothing")
        return " ".join([*parts, f"loss {self.loss:.0%}"])


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


def main() -> None:
    asked = _arguments()
    raise_descriptor_limit()
    results = asyncio.run(_run_all(_plans(asked), verbose=asked.verbose))
    print("\n" + _table(results), flush=True)
    if asked.json is not None:
        asked.json.write_text(json.dumps([result.numbers() for result in results], indent=1))
    sys.exit(0 if all(result.well for result in results) else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seconds", type=_between(1, 3600), default=30.0)
    parser.add_argument(
        "--nemesis",
        type=_listed,
        default=list(FAULTS),
        help=f"some of {','.join(FAULTS)}; empty for none",
    )
    parser.add_argument("--each", action="store_true", help="a run for each of them")
    parser.add_argument("--mutants", action="store_true", help="runs that must be caught")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="one of them, by these faults")
    parser.add_argument("--loss", type=_between(0, 1), default=0.3, help="of layer messages")
    parser.add_argument("--lease", type=_between(1, 60), default=2.0, help="seconds")
    parser.add_argument("--servers", type=int, default=2, choices=range(1, 9), metavar="1..8")
    parser.add_argument("--conversations", type=int, default=6, choices=range(1, 101), metavar="N")
    parser.add_argument("--tabs", type=int, default=4, choices=range(1, 101), metavar="N")
    parser.add_argument("--users", type=int, default=4, choices=range(1, 101), metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="what the servers complained of")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")
    asked = parser.parse_args()
    for name in asked.nemesis:
        if name not in FAULTS:
            parser.error(f"got the fault {name!r}; expected some of: {', '.join(FAULTS)}")
    return asked


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _between(least: float, most: float) -> type[float]:
    class Bounded(float):
        def __new__(cls, text: str) -> Bounded:
            number = float(text)
            if not least <= number <= most:
                raise argparse.ArgumentTypeError(f"got {text}; expected {least:g} to {most:g}")
            return super().__new__(cls, number)

    return Bounded


def _plans(asked: argparse.Namespace) -> list[Plan]:
    def plan(nemesis: Sequence[str], mutant: str = "") -> Plan:
        return Plan(
            nemesis=tuple(nemesis),
            seconds=asked.seconds,
            loss=asked.loss,
            lease=RESETS_OUTLASTED if tuple(nemesis) == ("reset",) else asked.lease,
            servers=asked.servers,
            conversations=asked.conversations,
            tabs=asked.tabs,
            users=asked.users,
            seed=asked.seed,
            mutant=mutant,
        )

    if asked.mutants:
        return [plan(SHOWN_BY[mutant], mutant) for mutant in MUTANTS]
    if asked.each:
        return [plan([kind]) for kind in asked.nemesis]
    return [plan(asked.nemesis, asked.mutant or "")]


async def _run_all(plans: Sequence[Plan], *, verbose: bool) -> list[Result]:
    # Whoever ends it early leaves no server behind.
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    async with prepared() as state:
        return [_told(await _run(plan, state), verbose=verbose) for plan in plans]


async def _run(plan: Plan, state: Path) -> Result:
    """Breaks things for so long, lets all come to rest, and judges what was seen."""
    env = {
        "CHAOS_LOSS": str(plan.loss),
        "CHAOS_MUTANT": plan.mutant,
        "WEBCHAT_LEASE_SECONDS": str(plan.lease),
    }
    result, violations = Result(plan), Violations()
    histories = [History(str(uuid4()), violations) for _ in range(plan.conversations)]
    for history in histories:
        history.owners_live = plan.owners_live
    async with (
        Service.running(state, servers=plan.servers, env=env) as service,
        httpx.AsyncClient(timeout=CALL_SECONDS, trust_env=False, verify=False) as http,
    ):
        (await http.get(f"{service.servers[0].url}/")).raise_for_status()
        crowd = Crowd(service, http, plan.seed)
        tabs = [Tab(crowd, history) for history in histories for _ in range(plan.tabs)]
        nemesis = Nemesis(service, tabs, kinds=plan.nemesis, lease=plan.lease, seed=plan.seed + 1)
        users = [User(crowd, histories) for _ in range(plan.users)]
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            connected = [group.create_task(tab.run()) for tab in tabs]
            asking = [group.create_task(user.run()) for user in users]
            await nemesis.run(plan.seconds)
            await nemesis.mend()
            await asyncio.sleep(2)
            crowd.asking = False
            await asyncio.wait(asking)
            if plan.nemesis:
                # What it leaves behind must come right although nobody asks any more.
                await users[0].leave_work()
                await nemesis.strike()
                await nemesis.mend()
            await _rested(service.store, histories, REST_SECONDS)
            crowd.leaving = False
            ends = await _all_at_head(service.store, tabs, HEAD_SECONDS)
            for task in connected:
                task.cancel()
        result.seconds = time.monotonic() - began
        for tab in tabs:
            head = ends[tab.history.conv_id].place
            if tab.place != head:
                tab.history.wrong("behind", f"a tab is at {tab.place}, the log at {head}")
        for history in histories:
            history.check(ends[history.conv_id])
            result.statuses += history.statuses
        result.logged = service.logged()
    result.counts, result.faults = crowd.counts, nemesis.counts
    result.violations, result.told = violations.counts, violations.told
    return result


async def _rested(store: Store, histories: Sequence[History], seconds: float) -> None:
    """Returns when nothing runs and nothing waits, or after so long."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        found = [await _end(store, history.conv_id) for history in histories]
        if not any(end.active or end.queued for end in found):
            return
        await asyncio.sleep(0.3)


async def _all_at_head(store: Store, tabs: Sequence[Tab], seconds: float) -> dict[str, End]:
    """How the conversations ended, once every tab has seen it, or after so long."""
    until = time.monotonic() + seconds
    while True:
        convs = {tab.history.conv_id for tab in tabs}
        ends = {conv_id: await _end(store, conv_id) for conv_id in convs}
        at_head = all(tab.place == ends[tab.history.conv_id].place for tab in tabs)
        if at_head or time.monotonic() > until:
            return ends
        await asyncio.sleep(0.2)


async def _end(store: Store, conv_id: str) -> End:
    keys = Keys(conv_id)
    meta: Any = await store.client.hgetall(keys.meta)
    entries: Any = await store.client.xrange(keys.log)
    return End(
        place=Place(
            int(meta.get(b"epoch", 0)),
            int(meta.get(b"head", 0)),
            meta.get(b"head_id", b"").decode(),
        ),
        active=meta.get(b"active", b"").decode(),
        queued=int(meta.get(b"queued", 0)),
        entries=[
            Entry(int(id.split(b"-")[0]), id.decode(), fields[b"x"].decode())
            for id, fields in entries
        ],
    )


def _told(result: Result, *, verbose: bool) -> Result:
    print(f"\n{result.plan.name}, seed {result.plan.seed}: {result.seconds:.0f} s")
    print(f"  seen   {_counted(result.counts)}")
    print(f"  faults {_counted(result.faults)}")
    print(f"  ends   {_counted(result.statuses)}")
    for words in result.told:
        print(f"  VIOLATION {words}")
    if verbose:
        for line, count in result.logged.most_common(20):
            print(f"  logged {count}× {line}")
    sys.stdout.flush()
    return result


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _table(results: Sequence[Result]) -> str:
    lines = [f"{'run':44}{'frames':>10}{'resumes':>9}{'aborts':>8}{'faults':>8}{'violations':>12}"]
    for result in results:
        counts = result.counts
        lines.append(
            f"{result.plan.name:44}{counts['frames']:10}{counts['resumes']:9}"
            f"{counts['aborts']:8}{result.faults.total():8}{result.violations.total():12}"
            + ("" if not result.plan.mutant else "  caught" if result.well else "  NOT CAUGHT")
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
