"""Agent mode: the model is told which mode it works in, and may switch to another one.

A mode is a name and a prompt. The turn carries the current one in an `Other` block, so that it
lives as long as the conversation; what the model is told of it is put in anew for each call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from ..engine import Infer, Middleware
from ..errors import ConfigurationError, unknown
from ..events import AgentModeSwitched, Log, publish
from ..turns import Block, Other, System, Turn
from .tagged import NOT_JSON, Tagged, infer_without, unreadable

STATE = "agent_mode"
"""The name of the block that carries the mode."""

SWITCH = "modeSwitch"
"""The tag in which a model asks for another mode."""

_INSERTION_ID = "agent-mode"
_NAME = re.compile(r"[\w-]{1,64}")
_TITLE = "Agent mode switched"


@dataclass(frozen=True, slots=True)
class AgentModes:
    """The prompts by mode, and the mode a conversation starts in.

    Raises ConfigurationError for a name that cannot stand in a tag, and for an unknown default.
    """

    prompts: Mapping[str, str]
    default: str

    def __post_init__(self) -> None:
        for name in self.prompts:
            if not _NAME.fullmatch(name):
                raise ConfigurationError(
                    f"mode {name!r} has a name that cannot stand in a tag",
                    hint="Use 1 to 64 letters, digits, _ and -.",
                )
        if self.default not in self.prompts:
            raise ConfigurationError(
                unknown("mode", self.default, self.prompts),
                hint="Name one of `modes` as `default`.",
            )

    def instructions(self, current: str) -> str:
        """What the model is told while it is in the mode `current`."""
        parts = [f"<currentMode>{current}</currentMode>", self.prompts[current]]
        others = ", ".join(name for name in self.prompts if name != current)
        if others:
            parts.append(
                f"You can switch to another mode ({others}) by ending your answer with "
                f'<{SWITCH}>{{"mode": "NAME", "analysis": "WHY"}}</{SWITCH}>.'
            )
        return "\n\n".join(part for part in parts if part)


def agent_mode(modes: AgentModes) -> Middleware:
    """Tells the model its mode, and takes up the switches it asks for in the text of this call.

    A switch counts from the next model call on, and is published as AgentModeSwitched once the call
    has succeeded. The request itself reaches neither the page nor the history. One for an unknown
    mode, or one that cannot be read, is a Log warning and changes nothing.
    """

    def middleware(infer: Infer) -> Infer:
        async def with_agent_mode(turn: Turn) -> Turn:
            mode = current_mode(turn, modes)
            told = _with_insertion(turn, modes.instructions(mode))
            answered, requests = await infer_without([SWITCH], infer, told, _look_away)
            for request in requests:
                mode = _switched(mode, request, modes)
            return _with_mode(answered, mode)

        return with_agent_mode

    return middleware


def current_mode(turn: Turn, modes: AgentModes) -> str:
    """The mode the turn carries, or the default if it carries none that there is."""
    for block in turn.blocks:
        if isinstance(block, Other) and block.name == STATE:
            mode = block.props.get("mode")
            if isinstance(mode, str) and mode in modes.prompts:
                return mode
    return modes.default


class _Request(msgspec.Struct, frozen=True):
    """What a model writes to switch."""

    mode: str
    analysis: str = ""


def _switched(current: str, block: Tagged, modes: AgentModes) -> str:
    """The mode after the request; publishes what became of it."""
    try:
        request = msgspec.json.decode(block.text, type=_Request)
    except NOT_JSON as error:
        publish(unreadable(block, error))
        return current
    if request.mode not in modes.prompts:
        sentence = unknown("mode", request.mode[:80], modes.prompts)
        publish(Log(level="warning", message=f"The agent asked for an {sentence}"))
        return current
    if request.mode != current:
        publish(
            AgentModeSwitched(
                title=_TITLE, previous=current, current=request.mode, analysis=request.analysis
            )
        )
    return request.mode


def _look_away(block: Tagged) -> None:
    """Requests count once the call has succeeded; in the stream they are only hidden."""


def _with_insertion(turn: Turn, text: str) -> Turn:
    """The turn whose last system block is the one insertion of ours."""
    rest = [block for block in turn.blocks if not _is_insertion(block)]
    return _after_system(turn, rest, System(id=_INSERTION_ID, text=text))


def _with_mode(turn: Turn, mode: str) -> Turn:
    """The turn that carries `mode`, and nothing of what the model was told of it."""
    rest = [
        block
        for block in turn.blocks
        if not _is_insertion(block) and not (isinstance(block, Other) and block.name == STATE)
    ]
    # Not at the end: the last block of an answered turn is the answer.
    return _after_system(turn, rest, Other(id=STATE, name=STATE, props={"mode": mode}))


def _is_insertion(block: Block) -> bool:
    return isinstance(block, System) and block.id == _INSERTION_ID


def _after_system(turn: Turn, rest: list[Block], inserted: Block) -> Turn:
    system = [block for block in rest if isinstance(block, System)]
    others = [block for block in rest if not isinstance(block, System)]
    return msgspec.structs.replace(turn, blocks=(*system, inserted, *others))
