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
from dataclasses import replace
from pathlib import Path

from chat.serving.listener import raise_descriptor_limit

from .mutants import MUTANTS, SHOWN_BY
from .nemesis import FAULTS, faults
from .run import RESETS_OUTLASTED, Plan, Result, run
from .service import prepared

MOST_SECONDS = 1500.0
"""Rounds that are to deliver so many frames begin in this time."""


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
        default="all",
        help=f"all that can be, or some of {','.join(FAULTS)}; empty for none",
    )
    parser.add_argument("--cluster", action="store_true", help="the Redis is a Redis Cluster")
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
    possible = faults(cluster=asked.cluster)
    if asked.nemesis == ["all"]:
        asked.nemesis = possible
    for name in asked.nemesis:
        if name not in possible:
            parser.error(f"got the fault {name!r}; expected all, or some of: {', '.join(possible)}")
    if asked.cluster and (asked.mutants or asked.mutant):
        parser.error(
            "got --cluster with a mutant; expected one of them: mutants show themselves "
            "by faults of a Redis that stands alone"
        )
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
            every=asked.every,
            window=asked.window,
            seed=asked.seed,
            cluster=asked.cluster,
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
                results.append(_told(await run(plan, state, logs=logs), verbose=verbose))
                delivered += results[-1].counts["frames"]
            plans = [replace(plan, seed=plan.seed + 1) for plan in plans]
    return results


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
