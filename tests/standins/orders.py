"""How a prompt orders tool calls of a stand-in, in one language for all three wires.

    call calc {"expression": "6*7"}             one call, its arguments in fragments
    call calc {"expression": "1"} & calc {}     two calls side by side
    call+think+text now                         a thought and words before it; no arguments at all

Words after `+`:

    think       a thought first, signed where the wire signs
    signed      the first call signed as Gemini does behind OpenAI's wire
    text        words before the calls
    after       words after them
    same-id     all calls of the answer under one id
    repeat-id   the ids of every answer begin anew
    no-id       no id
    stop        finish as an answer without calls does
    length      stop at the model's limit
    again       the same calls again, whatever the results say
    cut         break off in the middle of the arguments
    hang        say nothing more there

Arguments are sent as they stand, so that they can be broken. When the last message carries the
tools' results, a stand-in says them: `The tools said: 42 | 7`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FRAGMENT = 7
"""Characters of arguments that travel in one piece."""

BEFORE = "Let me see. "
AFTER = "That is all."
THOUGHT = "I need a tool."
SIGNED = {"google": {"thought_signature": "c2lnbmVk"}}


@dataclass(frozen=True, slots=True)
class Call:
    id: str
    name: str
    arguments: str

    @property
    def fragments(self) -> list[str]:
        return [
            self.arguments[at : at + FRAGMENT] for at in range(0, len(self.arguments), FRAGMENT)
        ]


@dataclass(frozen=True, slots=True)
class Plan:
    """An answer with calls in it."""

    calls: tuple[Call, ...]
    flags: frozenset[str]


def plan(orders: str, *, answered: bool, made: int) -> Plan | None:
    """The calls that `orders` asks for; None for another answer.

    `answered`: the results are there. `made`: calls that the history has already.
    """
    found = re.fullmatch(r"call((?:\+[a-z-]+)*) (.+)", orders)
    if found is None:
        return None
    flags = frozenset(filter(None, found[1].split("+")))
    if answered and "again" not in flags:
        return None
    first = 1 if "repeat-id" in flags else made + 1
    calls = []
    for number, asked in enumerate(found[2].split(" & "), start=first):
        name, _, arguments = asked.partition(" ")
        call_id = "" if "no-id" in flags else f"call_{first if 'same-id' in flags else number}"
        calls.append(Call(call_id, name, arguments))
    return Plan(tuple(calls), flags)


def said(results: list[str]) -> str:
    return f"The tools said: {' | '.join(results)}"
