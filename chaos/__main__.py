"""The command: `make chaos`, or `python -m chaos --seconds 60 --nemesis kill,stop --seed 1`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from chat.serving.listener import raise_descriptor_limit
from cluster.store import Keys

from .history import End, Entry, History, Place, Violations
from .mutants import MUTANTS, SHOWN_BY
from .nemesis import FAULTS, Nemesis
from .people import CALL_SECONDS, Crowd, Tab, User, watch
from .service import Service, Store, prepared

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
MOST_SECONDS = 1500.0
"""Rounds that are to deliver so many frames begin in this time."""


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
    mutant: str = ""

    @property
    def owners_live(self) -> bool:
        """Nobody is killed, and no lease runs out while Redis hangs up."""
        return not {*self.nemesis} - {"reset", "drain"} and self.lease >= RESETS_OUTLASTED

    @property
    def name(self) -> str:
        parts = [f"mutant {self.mutant}:"] if self.mutant else []
        kinds = "all" if {*self.nemesis} == {*FAULTS} else "+".join(self.nemesis)
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


def main() -> None:
    asked = _arguments()
    raise_descriptor_limit()
    running = _run_all(_plans(asked), frames=asked.frames, logs=asked.logs, verbose=asked.verbose)
    results = asyncio.run(running)
    print("\n" + _table(results), flush=True)
    if asked.json is not None:
        asked.json.write_text(json.dumps([result.numbers() for result in results], indent=1))
    delivered = sum(result.counts["frames"] for result in results)
    if delivered < asked.frames:
        print(f"only {delivered} of {asked.frames} frames within {MOST_SECONDS:.0f} s")
    well = all(result.well for result in results) and delivered >= asked.frames
    sys.exit(0 if well else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seconds", type=_between(1, 3600), default=30.0, help="of faults, a run")
    parser.add_argument(
        "--frames",
        type=int,
        default=0,
        metavar="N",
        help="run again, each time with the next seed, until clients got so many in sum",
    )
    parser.add_argument(
        "--nemesis",
        type=_listed,
        default=list(FAULTS),
        help=f"all, or some of {','.join(FAULTS)}; empty for none",
    )
    parser.add_argument("--each", action="store_true", help="a run for each of them")
    parser.add_argument(
        "--mutants", action="store_true", help="runs that must be caught, and one that must not"
    )
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="one of them, by these faults")
    parser.add_argument("--every", type=_between(0.1, 60), default=1.25, help="seconds, a fault")
    parser.add_argument("--loss", type=_between(0, 1), default=0.3, help="of layer messages")
    parser.add_argument("--lease", type=_between(1, 60), default=2.0, help="seconds")
    parser.add_argument("--window", type=int, default=1_000_000, help="frames that a log keeps")
    parser.add_argument("--servers", type=int, default=2, choices=range(1, 9), metavar="1..8")
    parser.add_argument("--conversations", type=int, default=6, choices=range(1, 101), metavar="N")
    parser.add_argument("--tabs", type=int, default=4, choices=range(1, 101), metavar="N")
    parser.add_argument("--users", type=int, default=4, choices=range(1, 101), metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="what the servers complained of")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the servers' logs there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")
    asked = parser.parse_args()
    for name in asked.nemesis:
        if name not in FAULTS:
            parser.error(f"got the fault {name!r}; expected all, or some of: {', '.join(FAULTS)}")
    return asked


def _listed(text: str) -> list[str]:
    if text.strip() == "all":
        return list(FAULTS)
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
            every=asked.every,
            window=asked.window,
            seed=asked.seed,
            mutant=mutant,
        )

    if asked.mutants:
        shown_by = [SHOWN_BY[mutant] for mutant in MUTANTS]
        control = plan([kind for kinds in shown_by for kind in kinds])
        return [control, *(plan(SHOWN_BY[mutant], mutant) for mutant in MUTANTS)]
    if asked.each:
        return [plan([kind]) for kind in asked.nemesis]
    return [plan(asked.nemesis, asked.mutant or "")]


async def _run_all(
    plans: Sequence[Plan], *, frames: int, logs: Path | None, verbose: bool
) -> list[Result]:
    """The results of the plans; of more rounds, each with the next seed, for so many frames."""
    # Whoever ends it early leaves no server behind.
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    ends = time.monotonic() + MOST_SECONDS
    results: list[Result] = []
    delivered = 0
    async with prepared() as state:
        while not results or (delivered < frames and time.monotonic() < ends):
            for plan in plans:
                results.append(_told(await _run(plan, state, logs), verbose=verbose))
                delivered += results[-1].counts["frames"]
            plans = [replace(plan, seed=plan.seed + 1) for plan in plans]
    return results


async def _run(plan: Plan, state: Path, logs: Path | None) -> Result:
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
        Service.running(state, servers=plan.servers, env=env) as service,
        httpx.AsyncClient(timeout=CALL_SECONDS, trust_env=False, verify=False) as http,
    ):
        (await http.get(f"{service.servers[0].url}/")).raise_for_status()
        crowd = Crowd(service, http, plan.seed)
        tabs = [Tab(crowd, history) for history in histories for _ in range(plan.tabs)]
        nemesis = Nemesis(
            service,
            tabs,
            kinds=plan.nemesis,
            lease=plan.lease,
            every=plan.every,
            seed=plan.seed + 1,
        )
        users = [User(crowd, histories) for _ in range(plan.users)]

        def caught() -> bool:
            return bool(plan.mutant and violations.total)

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            connected = [group.create_task(tab.run()) for tab in tabs]
            connected.append(group.create_task(watch(tabs)))
            asking = [group.create_task(user.run()) for user in users]
            await nemesis.run(plan.seconds, enough=caught)
            await nemesis.mend()
            await asyncio.sleep(2)
            crowd.asking = False
            await asyncio.wait(asking)
            patience = min(MUTANT_SECONDS, REST_SECONDS) if plan.mutant else REST_SECONDS
            if plan.nemesis and await _rested(
                service.store, histories, 0 if caught() else patience
            ):
                # What it leaves behind must come right although nobody asks any more.
                await users[0].settle()
                await users[0].leave_work()
                await nemesis.strike()
                await nemesis.mend()
                await _rested(service.store, histories, patience)
            crowd.leaving = False
            patience = min(MUTANT_SECONDS, HEAD_SECONDS) if plan.mutant else HEAD_SECONDS
            ends = await _all_at_head(service.store, tabs, 0 if caught() else patience)
            for task in connected:
                task.cancel()
        result.seconds = time.monotonic() - began
        for name in nemesis.stuck:
            violations.add("drain", f"{name} was asked to go, and did not")
        if not caught():
            await _judge(service.store, histories, tabs, ends)
        for history in histories:
            result.statuses += history.statuses
            crowd.counts["unjudged"] += not history.judged
        result.logged = service.logged()
        if logs is not None:
            service.keep_logs(logs / plan.name.replace(" ", "-").replace(":", ""))
    result.counts, result.faults = crowd.counts, nemesis.counts
    result.violations, result.told = violations.counts, violations.told
    return result


async def _judge(
    store: Store, histories: Sequence[History], tabs: Sequence[Tab], ends: Mapping[str, End]
) -> None:
    for tab in tabs:
        head = ends[tab.history.conv_id].place
        if tab.place != head:
            tab.history.wrong("behind", f"a tab is at {tab.place}, the log at {head}")
    for history in histories:
        history.check(await _whole(store, ends[history.conv_id], history.conv_id))


async def _rested(store: Store, histories: Sequence[History], seconds: float) -> bool:
    """Whether nothing runs and nothing waits, after so long at most."""
    ends = time.monotonic() + seconds
    while True:
        found = [await _end(store, history.conv_id) for history in histories]
        if not any(end.active or end.queued for end in found):
            return True
        if time.monotonic() > ends:
            return False
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
    """How a conversation is, but for its frames."""
    meta: Any = await store.client.hgetall(Keys(conv_id).meta)
    return End(
        place=Place(
            int(meta.get(b"epoch", 0)),
            int(meta.get(b"head", 0)),
            meta.get(b"head_id", b"").decode(),
        ),
        active=meta.get(b"active", b"").decode(),
        queued=int(meta.get(b"queued", 0)),
    )


async def _whole(store: Store, end: End, conv_id: str) -> End:
    """The same with its frames, and what else is stored of it."""
    keys = Keys(conv_id)
    entries: Any = await store.client.xrange(keys.log)
    end.entries = [
        Entry(int(id.split(b"-")[0]), id.decode(), fields[b"x"].decode()) for id, fields in entries
    ]
    record: Any = await store.client.get(keys.record)
    session = None if record is None else json.loads(record).get("session")
    end.step_mode = None if session is None else session["step_mode"]
    return end


def _told(result: Result, *, verbose: bool) -> Result:
    print(f"\n{result.plan.name}: {result.seconds:.0f} s")
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
    lines = [f"{'run':48}{'frames':>10}{'resumes':>9}{'aborts':>8}{'faults':>8}{'violations':>12}"]
    for result in results:
        lines.append(
            _row(result.plan.name, [result])
            + ("" if not result.plan.mutant else "  caught" if result.well else "  NOT CAUGHT")
        )
    if len(results) > 1:
        lines.append(_row("in sum", results))
    return "\n".join(lines)


def _row(name: str, results: Sequence[Result]) -> str:
    frames, resumes, aborts = (
        sum(result.counts[kind] for result in results) for kind in ("frames", "resumes", "aborts")
    )
    faults = sum(result.faults.total() for result in results)
    violations = sum(result.violations.total() for result in results)
    return f"{name:48}{frames:10}{resumes:9}{aborts:8}{faults:8}{violations:12}"


if __name__ == "__main__":
    main()
