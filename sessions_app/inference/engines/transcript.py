"""A turn as pydantic-ai's messages, and pydantic-ai's answer as blocks. Nothing else knows both.

Importing this module imports pydantic-ai, which takes seconds. Only `provider` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import groupby
from typing import Any, Literal, TypeAlias

import msgspec
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponsePart,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from ..tools import Offer
from ..turns import (
    Block,
    LlmText,
    Other,
    Reasoning,
    System,
    ToolCall,
    ToolStatus,
    ToolUse,
    Turn,
    User,
)

REDACTED_THINKING = "redacted_thinking"
"""Anthropic's name for reasoning that nobody may read, but the model wants back."""

PROVIDER_PART = "provider_part"
"""Our name for what a provider wants back with a block of ours: its signature of a call or a text,
the name it has for its reasoning. `props`: `provider`, the id of the `block`, `id`, `details`."""

STOPPED = "\n\n[This answer was stopped before its end.]"
"""What the model reads below an answer of its own that was cut short."""

STRICT_IDS: Mapping[str, re.Pattern[str]] = {
    "openai": re.compile(r"[!-~]{1,40}"),
    "anthropic": re.compile(r"[a-zA-Z0-9_-]{1,64}"),
}
"""Who refuses a call's id of another form, or one that comes twice, as other providers' ids may."""

MADE_UP_ID = "pyd_ai_"
"""How an id begins that the library made up because the provider gave none."""

OUTCOMES: Mapping[ToolStatus, Literal["success", "failed", "denied", "interrupted"]] = {
    "success": "success",
    "error": "failed",
    "timeout": "failed",
    "denied": "denied",
    "cancelled": "interrupted",
    "skipped": "interrupted",
}

_RequestPart: TypeAlias = SystemPromptPart | UserPromptPart | ToolReturnPart
_Part: TypeAlias = _RequestPart | TextPart | ThinkingPart | ToolCallPart


def transcript(turn: Turn, system: str) -> list[ModelMessage]:
    """`turn` as the library's messages. `system` is its name for the provider that will read them.

    A provider gets its own ids and signatures back. What another one signed is left out; its calls
    go under ids that this one takes. A result without its call is left out: nobody accepts it.
    """
    messages: list[ModelMessage] = []
    for asks, parts in groupby(_parts(turn, system), lambda part: isinstance(part, _RequestPart)):
        if asks:
            messages.append(ModelRequest(parts=[p for p in parts if isinstance(p, _RequestPart)]))
        else:
            said = [part for part in parts if not isinstance(part, _RequestPart)]
            messages.append(ModelResponse(parts=said, provider_name=system))
    return messages


def _parts(turn: Turn, system: str) -> Iterator[_Part]:
    calls = {block.call_id: block for block in turn.blocks if isinstance(block, ToolCall)}
    ids = _sent_ids(calls.values(), system)
    kept = _kept(turn, system)
    prompts = [n for n, block in enumerate(turn.blocks) if isinstance(block, User)]
    last_prompt = prompts[-1] if prompts else -1
    for place, block in enumerate(turn.blocks):
        own = kept.get(block.id, {})
        match block:
            case System(text=text):
                yield SystemPromptPart(content=text)
            case User(text=text):
                yield UserPromptPart(content=text)
            case LlmText(text=text, stopped=stopped) if text.strip():
                yield TextPart(
                    content=text + STOPPED if stopped else text,
                    provider_name=system if own else None,
                    provider_details=_details(own),
                )
            case ToolCall(call_id=call_id, name=name, arguments=arguments):
                yield ToolCallPart(
                    tool_name=_sent_name(name),
                    args=arguments,
                    tool_call_id=ids[call_id],
                    provider_name=system if own else None,
                    provider_details=_details(own),
                )
            case ToolUse(call_id=call_id, text=text, status=status) if call_id in calls:
                yield ToolReturnPart(
                    tool_name=_sent_name(calls[call_id].name),
                    content=text,
                    tool_call_id=ids[call_id],
                    outcome=OUTCOMES[status],
                )
            case Reasoning(provider=name) if name == system:
                if part := _thinking(block, own, in_this_prompt=place > last_prompt):
                    yield part
            case Other(name="redacted_thinking", props={"provider": name, "data": str(data)}) if (
                name == system
            ):
                yield ThinkingPart(
                    id=REDACTED_THINKING, content="", signature=data, provider_name=system
                )
            case _:
                pass


def _thinking(
    block: Reasoning, own: Mapping[str, object], *, in_this_prompt: bool
) -> ThinkingPart | None:
    """Reasoning that goes back: what is signed, and what the model thought about its open calls.

    The second by the name its provider has for it: DeepSeek refuses a call without its reasoning.
    """
    name = own.get("id")
    details = _details(own)
    if not block.signature and not details and not (in_this_prompt and isinstance(name, str)):
        return None
    return ThinkingPart(
        id=name if isinstance(name, str) else None,
        content=block.text,
        signature=block.signature,
        provider_name=block.provider,
        provider_details=details,
    )


def _kept(turn: Turn, system: str) -> dict[str, Mapping[str, object]]:
    """What this provider wants back, by the id of the block it belongs to."""
    found: dict[str, Mapping[str, object]] = {}
    for block in turn.blocks:
        match block:
            case Other(name="provider_part", props={"provider": name, "block": str(of)}) if (
                name == system
            ):
                found[of] = block.props
            case _:
                pass
    return found


def _details(own: Mapping[str, object]) -> dict[str, Any] | None:
    details = own.get("details")
    return details if isinstance(details, dict) else None


def _sent_ids(calls: Iterable[ToolCall], system: str) -> dict[str, str]:
    """The id under which each call goes out: the provider's own where this one takes it."""
    form = STRICT_IDS.get(system)
    sent: dict[str, str] = {}
    for call in calls:
        made = f"call_{sha256(call.call_id.encode()).hexdigest()[:32]}"
        candidates = (call.provider_id, call.call_id, made)
        if form is None:
            sent[call.call_id] = next(filter(None, candidates))
        else:
            used = set(sent.values())
            sent[call.call_id] = next(
                each for each in candidates if form.fullmatch(each) and each not in used
            )
    return sent


def _sent_name(name: str) -> str:
    """A tool's name as every provider takes it: a model may have called one that cannot exist."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64] or "_"


def answer(response: ModelResponse, system: str) -> tuple[Block, ...]:
    """The answer as blocks: text and reasoning in their order, then the calls in theirs.

    A call's `call_id` is the provider's id, or empty if it gave none; its arguments are the raw
    text where that is no JSON object.
    """
    calling = any(isinstance(part, ToolCallPart) for part in response.parts)
    kept: list[Block] = []
    said: list[Block] = []
    calls: list[Block] = []
    for part in response.parts:
        block = _block(part, system)
        if block is None:
            continue
        (calls if isinstance(block, ToolCall) else said).append(block)
        if own := _wanted_back(part, calling=calling):
            props = {"provider": system, "block": block.id, **own}
            kept.append(Other(name=PROVIDER_PART, props=props))
    # Before the words, so that nothing stands between calls and their results.
    return (*kept, *said, *calls)


def _block(part: ModelResponsePart, system: str) -> Block | None:
    match part:
        case TextPart(content=text) if text:
            return LlmText(text=text)
        case ThinkingPart(id=name, signature=str(data)) if name == REDACTED_THINKING:
            return Other(name=REDACTED_THINKING, props={"provider": system, "data": data})
        case ThinkingPart(content=text, signature=signature) if text or signature:
            return Reasoning(text=text, signature=signature or None, provider=system)
        case ToolCallPart(tool_name=name, args=arguments, tool_call_id=given):
            call_id = "" if given.startswith(MADE_UP_ID) else given
            return ToolCall(call_id=call_id, name=name, arguments=_arguments(arguments))
        case _:
            return None


def _arguments(given: str | Mapping[str, object] | None) -> dict[str, Any] | str:
    """A JSON object where it is one, no arguments where there is nothing, else the raw text."""
    if given is None or not isinstance(given, str):
        return dict(given or {})
    if not given.strip():
        return {}
    try:
        return msgspec.json.decode(given, type=dict[str, Any])
    except (msgspec.DecodeError, ValueError, RecursionError):
        return given


def _wanted_back(part: ModelResponsePart, *, calling: bool) -> dict[str, object]:
    match part:
        case ToolCallPart(provider_details=dict(details)) if details:
            return {"details": details}
        case TextPart() | ThinkingPart() if signature := (part.provider_details or {}).get(
            "thought_signature"
        ):
            return {"details": {"thought_signature": signature}}
        case ThinkingPart(id=str(name), signature=None) if calling:
            return {"id": name}
        case _:
            return {}


def tools_for(
    turn: Turn, offer: Offer, system: str
) -> tuple[ModelRequestParameters, ModelSettings | None]:
    """The tools of a request, and whether the model must use one.

    Anthropic refuses a history with calls if no tool is declared: those it knows are, and not one
    may be called.
    """
    if offer.tools:
        tools = [
            ToolDefinition(
                name=tool.name,
                description=tool.description or None,
                parameters_json_schema=dict(tool.parameters),
            )
            for tool in offer.tools
        ]
        return ModelRequestParameters(function_tools=tools), ModelSettings(tool_choice=offer.choice)
    calls = [block for block in turn.blocks if isinstance(block, ToolCall)]
    if system != "anthropic" or not calls:
        return ModelRequestParameters(), None
    called = dict.fromkeys(_sent_name(call.name) for call in calls)
    tools = [ToolDefinition(name=name) for name in called]
    return ModelRequestParameters(function_tools=tools), ModelSettings(tool_choice="none")
