"""The log read as what happened: one inference at a time, each ended once and for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Edits = Mapping[str, Sequence[Mapping[str, Any]]]


class Story:
    """Takes the events of one epoch from the first on, and tells `wrong` what cannot be.

    `edits` are the arguments that people asked for, by pause, then by call.
    """

    def __init__(self, wrong: Callable[[str, str], None], edits: Edits) -> None:
        self.started: dict[str, str] = {}
        self.ends: dict[str, str] = {}
        self.resumed: dict[str, str] = {}
        self.active: str | None = None
        self.step_mode: bool | None = None
        self._wrong = wrong
        self._edits = edits
        self._open: set[str] = set()
        self._keys: set[str] = set()
        self._shown: dict[str, list[dict[str, Any]]] = {}
        self._names: dict[str, str] = {}
        self._inputs: dict[str, list[Any]] = {}
        self._approved: set[str] = set()
        self._ran: set[str] = set()

    def take(self, event: dict[str, Any]) -> None:
        kind, id, data = event["type"], event["id"], event["data"]
        of = event.get("inference_id")
        if of in self.ends:
            self._wrong("after the end", f"{event['seq']} {kind} of {of}")
        elif self.active is not None and of not in (None, self.active):
            self._wrong("overlap", f"{event['seq']} {kind} of {of} while {self.active} runs")
        match kind:
            case "chat.message":
                if (key := data.get("idempotencyKey")) in self._keys:
                    self._wrong("twice", f"the prompt {key} was taken up again at {event['seq']}")
                self._keys.add(key)
                self.started[key] = of or ""
            case "inference.started":
                self.active = id
            case "inference.finished":
                if self.active != id:
                    self._wrong("overlap", f"{event['seq']} ends {id} while {self.active} runs")
                if self._open:
                    self._wrong("open", f"{sorted(self._open)} at the end of {id}")
                self._open.clear()
                self.active, self.ends[id] = None, data["status"]
            case "llm.start" | "llm.thinking.start":
                self._open.add(id)
            case "tool.start":
                self._open.add(id)
                self._names[id], self._inputs[id] = data["name"], [data["input"]]
            case "debugger.pause":
                self._open.add(id)
                self._shown[id] = data["extra"].get("toolCalls", [])
            case "tool.delta" if data["patch"].get("exec"):
                self._runs(id, data["patch"]["input"])
            case "tool.done" | "llm.final" | "llm.thinking.final":
                self._close(event)
            case "debugger.resumed":
                self._close(event)
                self._resume(id, data["decision"])
            case "session.updated":
                self.step_mode = data["stepMode"]

    def _close(self, event: dict[str, Any]) -> None:
        if event["id"] not in self._open:
            self._wrong("open", f"{event['seq']} {event['type']} closes {event['id']} once more")
        self._open.discard(event["id"])

    def _resume(self, pause: str, decision: str) -> None:
        self.resumed[pause] = decision
        for call in self._shown.get(pause, ()):
            if decision in ("continue", "edit") and call["needsApproval"]:
                self._approved.add(call["id"])
            if decision == "edit":
                asked = self._edits.get(pause, ())
                self._inputs[call["id"]] = [edit[call["id"]] for edit in asked]

    def _runs(self, call: str, arguments: Any) -> None:
        """A tool runs once, for what was shown or asked for, and `act` only if it was allowed."""
        if call in self._ran:
            self._wrong("ran", f"the call {call} ran twice")
        self._ran.add(call)
        if arguments not in self._inputs.get(call, ()):
            self._wrong("ran", f"the call {call} ran with {arguments}")
        if self._names.get(call) == "act" and call not in self._approved:
            self._wrong("ran", f"the call {call} ran, and nobody agreed to it")
