"""What the demo agent does with tools: acts first, the few rules that play them below.

In the first model call of a prompt it asks for the tools, in the next it answers from their
results. It asks for nothing that is not offered, except where that is the point.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..tools import Offer
from ..turns import System, ToolCall, ToolStatus, ToolUse, Turn, User

LONGEST_RESULT = 300
"""Characters of a result that an answer repeats."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that the demo agent makes. Arguments that are a string are broken on purpose."""

    name: str
    arguments: Mapping[str, object] | str


@dataclass(frozen=True, slots=True)
class Said:
    """A step of an act: thinking, words, and calls after them."""

    thinking: str
    text: str
    calls: tuple[Asked, ...] = ()


Calls: TypeAlias = Callable[[re.Match[str]], tuple[Asked, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """A prompt that needs tools.

    `after` is the answer to one result that is a success; without it, and for all others, the
    results are listed. An `endless` act asks again, whatever the results. One that is `made_up`
    calls what is not there.
    """

    prompt: re.Pattern[str]
    calls: Calls
    before: str
    after: str = ""
    endless: bool = False
    made_up: bool = False


def _prompt(*forms: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{'|'.join(forms)})[\s?!.=]*", re.IGNORECASE)


def _calc(expression: str) -> Asked:
    return Asked("calc", {"expression": expression})


def _task(kind: str) -> Asked:
    return Asked("demo_task", {"kind": kind})


def _time(zone: str | None = None) -> Asked:
    return Asked("current_time", {"timezone": zone} if zone else {})


ACTS = (
    Act(
        prompt=_prompt(
            r"what time is it(?: in (?P<zone>[\w/+-]+))?", "what is the time", "current time"
        ),
        calls=lambda said: (_time(said["zone"]),),
        before="Let me look at the clock.",
        after="It is {0}, says the tool `current_time`.",
    ),
    Act(
        prompt=_prompt(r"(?:calculate|calc|compute)\s+(?P<sum>.+?)"),
        calls=lambda said: (_calc(said["sum"]),),
        before="I leave that to the tool `calc`.",
        after="The result is {0}.",
    ),
    Act(
        prompt=_prompt("who am i", "my account"),
        calls=lambda said: (Asked("my_account", {}),),
        before="Let me look up your account.",
        after="This is what the tool `my_account` knows of you: {0}",
    ),
    Act(
        prompt=_prompt("tools", "use tools", "parallel tools"),
        calls=lambda said: (_calc("6 * 7"), _calc("2 ** 64"), _time()),
        before="I ask for several things at once.",
    ),
    Act(
        prompt=_prompt("approve", "approval"),
        calls=lambda said: (Asked("demo_send_note", {"text": "A note from the demo agent."}),),
        before="I would like to leave a note. A person has to agree to that first.",
    ),
    Act(
        prompt=_prompt("progress"),
        calls=lambda said: (_task("progress"),),
        before="This takes a few seconds, and the tool says how far it is.",
        after="The tool said {0}",
    ),
    Act(
        prompt=_prompt("huge result", "huge"),
        calls=lambda said: (_task("huge"),),
        before="I ask for more text than a result may have.",
    ),
    Act(
        prompt=_prompt("broken tool"),
        calls=lambda said: (_task("broken"),),
        before="I use a tool with a bug in it.",
    ),
    Act(
        prompt=_prompt("slow tool"),
        calls=lambda said: (_task("slow"),),
        before="I use a tool that never ends. Stop me, or wait until its time is up.",
    ),
    Act(
        prompt=_prompt("forbidden"),
        calls=lambda said: (_task("forbidden"),),
        before="I use a tool that nobody may use.",
    ),
    Act(
        prompt=_prompt("bad arguments?"),
        calls=lambda said: (Asked("calc", '{"expression": 6 *'), Asked("calc", {"sum": "6 * 7"})),
        before="I make two calls with arguments that are wrong: the first is no JSON, the second "
        "does not fit.",
    ),
    Act(
        prompt=_prompt("unknown tool"),
        calls=lambda said: (Asked("crystal_ball", {"question": "What comes next?"}),),
        before="I ask for a tool that does not exist.",
        made_up=True,
    ),
    Act(
        prompt=_prompt("loop"),
        calls=lambda said: (_time(),),
        before="I ask for the time, again and again, until I am not let any more.",
        endless=True,
    ),
)

NO_TOOLS = """\
This profile has no tools, so I cannot do that. Talk to an agent that has some, or name some in the
`tools` of this profile.
"""

NOT_OFFERED = """\
That needs the tool {missing}, and this profile does not have it. It has: {offered}.
"""

BECAME: Mapping[ToolStatus, str] = {
    "success": "gave",
    "error": "failed:",
    "denied": "was denied:",
    "timeout": "was too slow:",
    "cancelled": "was cancelled:",
    "skipped": "was not run:",
}

MODE = _prompt(r"(?:switch )?mode(?: (?P<mode>[\w-]+))?")
MODES = re.compile(r"another mode \((?P<others>[^)]+)\) by ending your answer with <(?P<tag>\w+)>")
"""How a system prompt offers modes."""

NO_MODES = """\
This profile has only one mode, so there is nothing to switch. The middleware `agent-mode` gives an
agent several.
"""


def play(turn: Turn, prompt: str, offer: Offer) -> Said | None:
    """The next step of the act that fits `prompt`; None if none does. Pure."""
    if asked := MODE.fullmatch(prompt):
        return _switch(turn, asked["mode"])
    for act in ACTS:
        if asked := act.prompt.fullmatch(prompt):
            return _step(act, act.calls(asked), _results(turn), offer)
    return None


def _step(
    act: Act,
    calls: tuple[Asked, ...],
    results: Sequence[tuple[ToolCall, ToolUse]],
    offer: Offer,
) -> Said:
    offered = {tool.name for tool in offer.tools}
    there = tuple(call for call in calls if call.name in offered or act.made_up)
    if results and not act.endless:
        return Said("The results are there. I answer from them.", _answer(act, results))
    if not offered:
        return Said("I have no tools here, and say so.", NO_TOOLS)
    if not there:
        missing = " or ".join(f"`{name}`" for name in dict.fromkeys(call.name for call in calls))
        listed = ", ".join(f"`{name}`" for name in sorted(offered))
        text = NOT_OFFERED.format(missing=missing, offered=listed)
        return Said("The tool for that is not offered to me.", text)
    again = f" This is time number {len(results) + 1}." if results else ""
    return Said(f"A tool can help here: {there[0].name}.", f"{act.before}{again}", there)


def _answer(act: Act, results: Sequence[tuple[ToolCall, ToolUse]]) -> str:
    if act.after and len(results) == 1 and results[0][1].status == "success":
        return act.after.format(f"`{_shown(results[0][1].text)}`")
    lines = [
        f"- `{call.name}` with `{_shown(_text(call.arguments))}` {BECAME[use.status]} "
        f"`{_shown(use.text)}`"
        for call, use in results
    ]
    return "This is what came back:\n\n" + "\n".join(lines)


def _results(turn: Turn) -> Sequence[tuple[ToolCall, ToolUse]]:
    """The calls of the last prompt with their results, in call order."""
    calls: list[ToolCall] = []
    uses: dict[str, ToolUse] = {}
    for block in turn.blocks:
        if isinstance(block, User):
            calls, uses = [], {}
        elif isinstance(block, ToolCall):
            calls.append(block)
        elif isinstance(block, ToolUse):
            uses[block.call_id] = block
    return [(call, uses[call.call_id]) for call in calls if call.call_id in uses]


def _switch(turn: Turn, wanted: str | None) -> Said:
    told = " ".join(block.text for block in turn.blocks if isinstance(block, System))
    offer = MODES.search(told)
    if offer is None:
        return Said("I am told of no other mode.", NO_MODES)
    others = [name.strip() for name in offer["others"].split(",")]
    mode = wanted or others[0]
    if mode not in others:
        return Said("I know no such mode.", f"I can switch to: {', '.join(others)}.")
    request = json.dumps({"mode": mode, "analysis": "I was asked to switch."})
    tag = offer["tag"]
    return Said(
        f"I am told how to switch: to {mode}.",
        f"I switch to the mode **{mode}**. <{tag}>{request}</{tag}>",
    )


def _text(arguments: Mapping[str, object] | str) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _shown(text: str) -> str:
    """`text` as it can stand in a code span: one line, not long, without its marks."""
    line = " ".join(text.replace("`", "'").split())
    return line if len(line) <= LONGEST_RESULT else f"{line[: LONGEST_RESULT - 1]}…"
