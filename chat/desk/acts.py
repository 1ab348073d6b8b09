"""What an operator can do to a session: each permitted, performed and noted in one place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sessions_app.access import Action, Identity, can
from sessions_app.inference.errors import Refused
from sessions_app.values import Idle

from ..apps import hub
from ..control import close_sockets
from ..decisions import ensure_may_decide
from ..pool import CLOSE_RESYNC
from ..ports import Decision
from .audit import audit
from .rows import Row, stream_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Who acts. `has_permission` asks for a permission that a pause needs."""

    name: str
    identity: Identity
    has_permission: Callable[[str], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One thing to do. `perform(conv_id, by)` returns what was done, or raises Refused.

    `useful` tells whether it would change anything about a session as it is; one that `is_rough`
    takes something away.
    """

    slug: str
    label: str
    consequence: str
    needs: Action
    perform: Callable[[str, str], Awaitable[str]]
    useful: Callable[[Row], bool] = lambda row: True
    is_rough: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of it, in a sentence for the operator; `code` is `done`, or why not."""

    conv_id: str
    code: str
    sentence: str

    @property
    def ok(self) -> bool:
        return self.code == "done"


async def carry_out(act: Act, conv_id: str, operator: Operator) -> Done:
    """Does it, if the operator may. Raises nothing that a session refuses: that is the answer."""
    info = await hub().sessions.find(conv_id)
    if info is None:
        code, sentence = "conversation_not_found", "There is no such conversation any more."
    elif not can(operator.identity, act.needs, info):
        code, sentence = "forbidden", "You are not permitted to do this."
    else:
        try:
            code, sentence = "done", await act.perform(conv_id, operator.name)
        except Refused as refusal:
            code, sentence = refusal.code, str(refusal)
    _note(operator, act.slug, conv_id, code)
    return Done(conv_id=conv_id, code=code, sentence=sentence)


def note_refusal(action: str, conv_id: str, operator: Operator) -> None:
    """Notes that somebody asked for what they may not do; nothing was done."""
    _note(operator, action, conv_id, "forbidden")


def _note(operator: Operator, action: str, conv_id: str, outcome: str) -> None:
    owner = operator.identity.owner
    audit(actor=operator.name, owner=owner, action=action, conv_id=conv_id, outcome=outcome)


async def decide(
    conv_id: str,
    pause_id: str,
    decision: Decision,
    operator: Operator,
    *,
    edits: Mapping[str, Mapping[str, Any]] | None = None,
    message: str = "",
) -> Done:
    """Ends a pause, if the operator may. With the code `bad_edits` it still waits."""
    sessions = hub().sessions

    async def perform(conv_id: str, by: str) -> str:
        await ensure_may_decide(conv_id, pause_id, operator.has_permission)
        ended = await sessions.decide(
            conv_id, pause_id, decision, by=by, edits=edits, message=message
        )
        return f"The pause ended as {ended.decision}."

    act = Act(slug=f"decide:{decision}", label="", consequence="", needs="decide", perform=perform)
    return await carry_out(act, conv_id, operator)


async def _cancel(conv_id: str, by: str) -> str:
    await hub().sessions.cancel(conv_id)
    return "The inference was asked to end."


async def _cancel_all(conv_id: str, by: str) -> str:
    await hub().sessions.cancel(conv_id, queue=True)
    return "The inference was asked to end, and the queue was emptied."


async def _step_on(conv_id: str, by: str) -> str:
    await hub().sessions.set_step_mode(conv_id, True, by=by)
    return "Step mode is on."


async def _step_off(conv_id: str, by: str) -> str:
    await hub().sessions.set_step_mode(conv_id, False, by=by)
    return "Step mode is off."


async def _drop(conv_id: str, by: str) -> str:
    sockets = (await stream_of(conv_id)).sockets
    await close_sockets(conv_id, CLOSE_RESYNC)
    return f"{sockets} socket{' was' if sockets == 1 else 's were'} asked to reconnect."


async def _evict(conv_id: str, by: str) -> str:
    await hub().sessions.evict(conv_id)
    return "The session was unloaded; its history is kept."


ACTS: Mapping[str, Act] = {
    act.slug: act
    for act in (
        Act(
            slug="cancel",
            label="Cancel the inference",
            consequence="It ends as cancelled; what it said so far stays. The queue goes on.",
            needs="cancel",
            perform=_cancel,
            useful=lambda row: row.is_busy,
        ),
        Act(
            slug="cancel-all",
            label="Cancel and empty the queue",
            consequence="It ends as cancelled, and the prompts that wait are forgotten.",
            needs="cancel",
            perform=_cancel_all,
            useful=lambda row: row.session.queue_depth > 0,
        ),
        Act(
            slug="step-on",
            label="Turn step mode on",
            consequence="The agent stops before and after each round of tools, from the next on.",
            needs="step",
            perform=_step_on,
            useful=lambda row: not row.session.step_mode,
            is_rough=False,
        ),
        Act(
            slug="step-off",
            label="Turn step mode off",
            consequence="Steps that wait go on at once; approvals go on waiting.",
            needs="step",
            perform=_step_off,
            useful=lambda row: row.session.step_mode,
            is_rough=False,
        ),
        Act(
            slug="drop",
            label="Drop the sockets",
            consequence="Every tab and client is disconnected and comes back with its cursor.",
            needs="drop",
            perform=_drop,
            useful=lambda row: row.stream.sockets > 0,
        ),
        Act(
            slug="evict",
            label="Evict from memory",
            consequence="An idle session is unloaded; its history stays, and its next prompt "
            "loads it again. A busy one is refused.",
            needs="evict",
            perform=_evict,
            useful=lambda row: isinstance(row.session.state, Idle),
        ),
    )
}
