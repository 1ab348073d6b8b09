"""The command: `make bench`, or `python -m bench --quick --only a,g`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from chat.serving.listener import raise_descriptor_limit

from .scenarios import ALL, PATIENCE, Numbers, Scenario, scenarios
from .servers import PAIRS, PLAIN, Machinery, Server
from .shared import shared_scenarios

QUICK = 0.1
KNOWN = (*ALL, *PAIRS)
Rounds = defaultdict[str, list[Numbers]]
"""By server, the numbers of each round."""


def main() -> None:
    asked = _arguments()
    raise_descriptor_limit()
    only = KNOWN if asked.servers is None else tuple(asked.servers)
    scale = QUICK if asked.quick else 1.0
    whole = asyncio.run(_run(asked.rounds, asked.only, only, asked.chainlit, scale))
    if asked.json is not None:
        asked.json.write_text(json.dumps(whole, indent=1, ensure_ascii=False))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, 21), metavar="1..20")
    parser.add_argument("--only", type=_listed, help="scenarios by letter: a,g,r or b100,r3")
    parser.add_argument("--servers", type=_listed, help=f"some of: {', '.join(KNOWN)}")
    parser.add_argument(
        "--chainlit", metavar="PYTHON", help="an interpreter that has Chainlit; it is measured too"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the frames, one minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")
    asked = parser.parse_args()
    for name in asked.servers or ():
        if name not in KNOWN:
            parser.error(f"got the server {name!r}; expected some of: {', '.join(KNOWN)}")
    return asked


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",")]


async def _run(
    rounds: int,
    letters: Sequence[str] | None,
    only: tuple[str, ...],
    chainlit: str | None,
    scale: float,
) -> dict[str, object]:
    """Prints a table for each scenario; returns all that was measured."""
    load = os.getloadavg()
    results: dict[str, Rounds] = {}
    print(_machine(load), flush=True)
    async with Machinery.prepared(only, chainlit) as machinery, AsyncExitStack() as stack:
        known = (*scenarios(machinery), *shared_scenarios(machinery))
        chosen = [each for each in known if _wanted(each.name, letters)]
        if not chosen:
            raise SystemExit(
                f"bench: no scenario is named {letters}; expected some of a to h and r"
            )
        running: dict[str, Server] = {}
        for scenario in chosen:
            results[scenario.name] = numbers = Rounds(list)
            for _ in range(min(rounds, scenario.most_rounds)):
                for name in scenario.servers:
                    if not scenario.fresh and name not in running:
                        running[name] = await stack.enter_async_context(machinery.server(name))
                    numbers[name].append(
                        await _measured(scenario, name, machinery, running.get(name), scale)
                    )
            print(f"\n{_table(scenario, numbers)}", flush=True)
    print(f"\nLoad before: {load[0]:.1f}, after: {os.getloadavg()[0]:.1f}.")
    return {"machine": _machine(load), "rounds": results, "at": time.time(), "scale": scale}


async def _measured(
    scenario: Scenario, name: str, machinery: Machinery, running: Server | None, scale: float
) -> Numbers:
    """The numbers of one round; none where the server could not do it in time."""
    try:
        async with asyncio.timeout(PATIENCE):
            if not scenario.fresh:
                assert running is not None
                return await scenario.measure(running, scale)
            async with AsyncExitStack() as stack:
                env: Mapping[str, str] = {}
                if scenario.by_model:
                    env = await stack.enter_async_context(machinery.model())
                fresh = await stack.enter_async_context(machinery.server(name, **env))
                return await scenario.measure(fresh, scale)
    except (TimeoutError, OSError, AssertionError) as error:
        print(f"{scenario.name}: {name} failed: {error!r}", file=sys.stderr, flush=True)
        return {}


def _wanted(name: str, letters: Sequence[str] | None) -> bool:
    return letters is None or name in letters or name[0] in letters


def _table(scenario: Scenario, rounds: Mapping[str, Sequence[Numbers]]) -> str:
    """The median of each number with its spread; what is relative is so round by round."""
    columns = list(dict.fromkeys(key for each in rounds.values() for n in each for key in n))
    heads, rows = ["", *columns], []
    for key in scenario.relative:
        heads.insert(heads.index(key) + 1, "× plain")
    for name in scenario.servers:
        row = [name]
        for key in columns:
            values = [numbers[key] for numbers in rounds[name] if key in numbers]
            row.append(_spread(values))
            if key in scenario.relative:
                row.append(_spread(_ratios(rounds[name], rounds.get(PLAIN, ()), key)))
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [heads, *rows]
    ]
    missing = [f"{name.ljust(widths[0])}  not measured" for name in scenario.missing]
    return "\n".join([f"{scenario.name}  {scenario.title}", *lines, *missing])


def _ratios(mine: Sequence[Numbers], plain: Sequence[Numbers], key: str) -> list[float]:
    pairs = zip(mine, plain, strict=False)
    return [each[key] / base[key] for each, base in pairs if key in each and key in base]


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    middle = f"{statistics.median(values):,.{_digits(values)}f}"
    if len(values) == 1:
        return middle
    low, high = (f"{value:,.{_digits(values)}f}" for value in (min(values), max(values)))
    return f"{middle} [{low}–{high}]"


def _digits(values: Sequence[float]) -> int:
    return 0 if min(values) >= 1000 else 1 if min(values) >= 10 else 2


def _machine(load: tuple[float, float, float]) -> str:
    cores = os.cpu_count()
    return (
        f"{platform.machine()}, {cores} cores, {platform.system()}, "
        f"Python {platform.python_version()}; load {load[0]:.1f} before we began"
    )


if __name__ == "__main__":
    main()
