"""What is switched off to see whether the checker notices. Only the harness's servers come here.

A mutant changes the scripts' text as a server loads it, and names the faults that show it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cluster import leases, store

Change = Callable[[str], str]


def _without(*lines: str) -> Change:
    def changed(text: str) -> str:
        for line in lines:
            assert line in text, f"the script has no line {line!r} any more"
            text = text.replace(line, "")
        return text

    return changed


MUTANTS: Mapping[str, Mapping[str, Change]] = {
    "fence": {
        "append": _without(
            "if m[1] ~= process or m[2] ~= fence then return {'FENCED', ''} end",
        ),
        "renew": _without(
            "if m[1] ~= ARGV[1] or m[2] ~= ARGV[2] then return {'FENCED', ''} end",
        ),
    },
    "reaper": {"due": lambda text: "return {}"},
    "id": {
        "read": _without(
            "if id ~= m[3] then answer[1] = 'diverged' end",
            "if own[1] ~= id then answer[1] = 'diverged' return answer end",
        )
    },
    "nonce": {
        "append": lambda text: text.replace("if n > 0 and head_id == last_id then", "if false then")
    },
}
"""By name, what becomes of each verb's script."""

SHOWN_BY: Mapping[str, tuple[str, ...]] = {
    "fence": ("stop",),
    "reaper": ("kill",),
    "id": ("rollback",),
    "nonce": ("reset",),
}
"""By name, the faults without which a mutant looks well."""


def mutate(name: str) -> None:
    """Makes this process a mutant; an empty name is none."""
    if not name:
        return
    changes = MUTANTS[name]
    original = store.source

    def source(verb: str) -> str:
        text = original(verb)
        return changes[verb](text) if verb in changes else text

    store.source = source
    if name == "fence":
        _never_fence_itself()


def _never_fence_itself() -> None:
    """The other half of the fence: a lease that its own process never sees end."""

    def set_far(lease: leases.Lease, name: str, value: Any) -> None:
        object.__setattr__(lease, name, value + 3600 if name == "until" else value)

    leases.Lease.__setattr__ = set_far  # type: ignore[assignment,method-assign]
