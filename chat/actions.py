"""What the buttons of a conversation's page do when they are posted as a form."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeAlias, get_args

import msgspec
from django.http import HttpRequest

from sessions_app.inference.errors import BadEdits, NoActiveInference

from .apps import hub
from .decisions import decide_pause
from .desk.audit import noted
from .errors import BadRequest
from .identity import name_of, permitted
from .ports import Decision
from .submission import submit_prompt
from .timeline import Entity

Action: TypeAlias = Callable[[HttpRequest, str, str], Awaitable[None]]
"""Takes the request, the conversation's id and the button's value."""


async def act(request: HttpRequest, conv_id: str) -> bool:
    """Does what the button says that the form was posted with; False when there was none.

    Raises Http404 for who may not, and every WebchatError of the action.
    """
    for name, action in ACTIONS.items():
        if name in request.POST:
            await action(request, conv_id, request.POST[name])
            return True
    return False


def written(request: HttpRequest) -> dict[str, str]:
    """What the person wrote in the fields of pauses, by the fields' names."""
    fields = (name for name in request.POST if name.startswith(("edit:", "message:")))
    return {name: request.POST[name] for name in fields if request.POST[name]}


async def _stop(request: HttpRequest, conv_id: str, value: str) -> None:
    with suppress(NoActiveInference):  # it ended by itself: what the person wanted
        async with noted(request, "cancel", conv_id, as_="cancel"):
            await hub().sessions.cancel(conv_id)


async def _remove(request: HttpRequest, conv_id: str, key: str) -> None:
    async with noted(request, "cancel", conv_id, as_="remove-queued"):
        await hub().sessions.remove_queued(conv_id, key)


async def _run(request: HttpRequest, conv_id: str, key: str) -> None:
    async with noted(request, "cancel", conv_id, as_="run-queued"):
        await hub().sessions.run_queued_now(conv_id, key)


async def _step(request: HttpRequest, conv_id: str, value: str) -> None:
    enabled = value == "on"
    async with noted(request, "step", conv_id, as_=f"step-{'on' if enabled else 'off'}"):
        await hub().sessions.set_step_mode(conv_id, enabled, by=await name_of(request))


async def _again(request: HttpRequest, conv_id: str, inference_id: str) -> None:
    """Sends the prompt of an inference as a new one; a form posted twice sends it once."""
    await permitted(request, "transcript", conv_id)
    await permitted(request, "send", conv_id)
    key = request.POST.get("idempotency_key")
    await submit_prompt(
        request,
        conv_id=conv_id,
        prompt=_prompt_of(inference_id, await _entities(conv_id)),
        profile=None,
        idempotency_key=f"{key}:{inference_id}" if key else None,
    )


async def _decide(request: HttpRequest, conv_id: str, value: str) -> None:
    """`<decision>:<pause id>`. To continue with arguments that were changed is to edit."""
    await permitted(request, "decide", conv_id)
    name, _, pause_id = value.partition(":")
    decision = _DECISIONS.get(name)
    if decision is None:
        raise BadRequest(f"decision {name[:80]!r}; expected one of: {', '.join(_DECISIONS)}")
    edits = await _edits(request, conv_id, pause_id) if decision == "continue" else {}
    await decide_pause(
        request,
        conv_id,
        pause_id,
        "edit" if edits else decision,
        edits=edits,
        message=request.POST.get(f"message:{pause_id}", ""),
    )


ACTIONS: Final[Mapping[str, Action]] = {
    "stop": _stop,
    "remove": _remove,
    "run": _run,
    "step": _step,
    "again": _again,
    "decision": _decide,
}
_DECISIONS: Final[Mapping[str, Decision]] = {name: name for name in get_args(Decision)}


async def _entities(conv_id: str) -> list[Entity]:
    return (await hub().streams.snapshot(conv_id)).entities


def _prompt_of(inference_id: str, entities: list[Entity]) -> str:
    prompt = ""
    for entity in entities:
        if entity.kind == "message" and entity.props["role"] == "user":
            prompt = entity.props["content"]
        elif entity.id == inference_id and entity.kind == "inference":
            return prompt
    raise BadRequest(f"no inference {inference_id[:80]!r} in this conversation; reload the page")


async def _edits(request: HttpRequest, conv_id: str, pause_id: str) -> dict[str, Any]:
    """The arguments that are not those that were shown, by call id. Raises BadEdits."""
    edits = {}
    for call in await _calls(conv_id, pause_id):
        written = request.POST.get(f"edit:{pause_id}:{call['id']}")
        if written is None:
            continue
        try:
            arguments = msgspec.json.decode(written)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise BadEdits(f"the arguments of {call['name']} are not JSON: {error}") from None
        if not isinstance(arguments, dict):
            raise BadEdits(f"the arguments of {call['name']} are no JSON object; write {{…}}")
        if arguments != call["input"]:
            edits[call["id"]] = arguments
    return edits


async def _calls(conv_id: str, pause_id: str) -> list[dict[str, Any]]:
    """The calls as they were shown; none for an unknown pause, which deciding it will tell."""
    for entity in await _entities(conv_id):
        if entity.id == pause_id and entity.kind == "debugger_pause":
            return entity.props["extra"].get("toolCalls", [])  # type: ignore[no-any-return]
    return []
