"""What was seen of one conversation by everybody, and what is wrong with it.

Reads the contract (docs/protocol.md); of the product it uses only the fold, whose law it checks.
A place is (epoch, seq, stream id). Who is at the same place must have seen the same, so it is
enough that each place has one frame and one place before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple

import msgspec

from chat.frames import Cursor, body_of, decode_body
from chat.timeline import Timeline

SHOWN = 8
"""Violations of one kind that are told in words."""


class Place(NamedTuple):
    epoch: int
    seq: int
    id: str

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}" + (f".{self.id}" if self.id else "")

    @classmethod
    def of(cls, cursor: str) -> Place:
        epoch, seq, id = (*cursor.split(".", 2), "")[:3]
        return cls(int(epoch), int(seq), id)


class Violations:
    """What was wrong, by kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.told: list[str] = []

    def add(self, kind: str, words: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN:
            self.told.append(f"{kind}: {words}")

    @property
    def total(self) -> int:
        return self.counts.total()


class _Seen(NamedTuple):
    before: str
    text: str


class Entry(NamedTuple):
    """A frame of the log."""

    seq: int
    id: str
    text: str


@dataclass
class Promise:
    """What a server said yes to. `given` is this machine's clock."""

    given: float
    inference_id: str = ""
    removed: bool = False
    answer: dict[str, Any] = field(default_factory=dict)


@dataclass
class End:
    """A conversation as its store has it when all is over."""

    place: Place
    active: str
    queued: int
    entries: Sequence[Entry]


class History:
    """One conversation. `lost_at`: the latest moment whose words Redis may have forgotten."""

    def __init__(self, conv_id: str, violations: Violations) -> None:
        self.conv_id = conv_id
        self.prompts: dict[str, Promise] = {}
        self.cancels: dict[str, float] = {}
        self.decisions: dict[str, tuple[str, float]] = {}
        self.lost_at = 0.0
        self.owners_live = False
        """No owner dies, or is away for longer than its lease."""
        self.statuses: Counter[str] = Counter()
        self._violations = violations
        self._frames: dict[Place, _Seen] = {}
        self._snapshots: dict[Place, bytes] = {}
        self._epochs: set[int] = set()

    def wrong(self, kind: str, words: str) -> None:
        self._violations.add(kind, f"{self.conv_id[:8]}: {words}")

    def frame(self, before: Place, seq: int, id: str, text: str) -> Place:
        """A client that was at a place got the next frame; where it is now."""
        if seq != before.seq + 1:
            self.wrong("order", f"{seq} came after {before}")
        place = Place(before.epoch, seq, id)
        seen = self._frames.get(place)
        if seen is None:
            self._frames[place] = _Seen(before.id, text)
            self._saw(place.epoch)
        elif seen.text != text:
            self.wrong("differs", f"{place} is {text[:300]} and {seen.text[:300]}")
        elif seen.before != before.id:
            self.wrong("splice", f"{place} came after {before.id!r} and after {seen.before!r}")
        return place

    def snapshot(self, raw: bytes) -> Place:
        """A client was told to start from here; where it is now."""
        told = msgspec.json.decode(raw)
        place = Place.of(told["cursor"])
        if (place.epoch, place.seq) != (told["epoch"], told["version"]):
            self.wrong("snapshot", f"{place} is named {told['epoch']}.{told['version']}")
        self._saw(place.epoch)
        shown = _shown(told)
        if self._snapshots.setdefault(place, shown) != shown:
            self.wrong("snapshot", f"two at {place}: {_difference(self._snapshots[place], shown)}")
        return place

    def _saw(self, epoch: int) -> None:
        if epoch and epoch not in self._epochs:
            self._epochs.add(epoch)
            if len(self._epochs) > 1 and not self.lost_at:
                self.wrong("epoch", f"nothing was lost, and {sorted(self._epochs)} are epochs")

    def check(self, end: End) -> None:
        """Judges it all, once everything has come to rest."""
        if end.active or end.queued:
            self.wrong("unended", f"{end.active or 'nothing'} runs, {end.queued} wait")
        self._saw(end.place.epoch)
        self._check_log(end)
        self._check_folds(end)
        story = _Story(self)
        for entry in end.entries:
            story.take(msgspec.json.decode(entry.text)["event"])
        self.statuses.update(story.ends.values())
        for inference_id, status in story.ends.items():
            if status == "lost" and self.owners_live:
                self.wrong("lost", f"{inference_id} was lost, and its server lives")
        self._check_promises(story)

    def _check_log(self, end: End) -> None:
        known = {entry.seq: entry for entry in end.entries}
        seqs = [entry.seq for entry in end.entries]
        first = seqs[0] if seqs else end.place.seq + 1
        if seqs != list(range(first, end.place.seq + 1)):
            self.wrong("log", f"its numbers are not those from {first} to {end.place.seq}")
        for place, seen in self._frames.items():
            if place.epoch != end.place.epoch or place.seq < first:
                continue
            entry = known.get(place.seq)
            if entry is None or entry.id != place.id:
                if not self.lost_at:
                    self.wrong("unlogged", f"{place} was seen and is not in the log")
            elif entry.text != seen.text:
                self.wrong("differs", f"{place} in the log is {entry.text[:300]}")
            elif place.seq > first and known[place.seq - 1].id != seen.before:
                self.wrong("splice", f"{place} came after {seen.before!r}, which the log has not")

    def _check_folds(self, end: End) -> None:
        """Snapshot at n = the fold of the frames up to n, in the last epoch."""
        if not end.entries or end.entries[0].seq != 1:
            return
        timeline = Timeline()
        for entry in end.entries:
            body = body_of(entry.text, entry.seq, entry.id)
            timeline.fold(decode_body(body), seq=entry.seq, at_ms=0)
            place = Place(end.place.epoch, entry.seq, entry.id)
            if (shown := self._snapshots.get(place)) is not None:
                folded = _shown(
                    msgspec.to_builtins(
                        timeline.snapshot(self.conv_id, Cursor(*place), since_version=0, now_ms=0)
                    )
                )
                if shown != folded:
                    self.wrong("fold", f"{place}: {_difference(shown, folded)}")

    def _check_promises(self, story: _Story) -> None:
        """What was acknowledged, and could not be forgotten by Redis, has come about."""
        for key, promise in self.prompts.items():
            started = story.started.get(key)
            if promise.given < self.lost_at:
                continue
            if promise.removed:
                if started is not None:
                    self.wrong("promise", f"the prompt {key} was removed and ran as {started}")
            elif started is None:
                self.wrong("promise", f"the prompt {key} was accepted and never ran")
            elif promise.inference_id not in ("", started):
                self.wrong("promise", f"{key} ran as {started}, not {promise.inference_id}")
        for inference_id, given in self.cancels.items():
            if given > self.lost_at and story.ends.get(inference_id) != "cancelled":
                ended = story.ends.get(inference_id)
                self.wrong("cancel", f"{inference_id} was cancelled and ended {ended}")
        for pause_id, (decision, given) in self.decisions.items():
            if given > self.lost_at and story.resumed.get(pause_id) != decision:
                told = story.resumed.get(pause_id)
                self.wrong("decision", f"{pause_id} was decided {decision} and ended {told}")


class _Story:
    """The log read as what happened: one inference at a time, each ended once and for all."""

    def __init__(self, history: History) -> None:
        self.started: dict[str, str] = {}
        self.ends: dict[str, str] = {}
        self.resumed: dict[str, str] = {}
        self._wrong = history.wrong
        self._active: str | None = None
        self._open: set[str] = set()
        self._keys: set[str] = set()

    def take(self, event: dict[str, Any]) -> None:
        kind, id, data = event["type"], event["id"], event["data"]
        of = event.get("inference_id")
        if of in self.ends:
            self._wrong("after the end", f"{event['seq']} {kind} of {of}")
        elif self._active is not None and of not in (None, self._active):
            self._wrong("overlap", f"{event['seq']} {kind} of {of} while {self._active} runs")
        match kind:
            case "chat.message":
                if (key := data.get("idempotencyKey")) in self._keys:
                    self._wrong("twice", f"the prompt {key} was taken up again at {event['seq']}")
                self._keys.add(key)
                self.started[key] = of or ""
            case "inference.started":
                self._active = id
            case "inference.finished":
                if self._active != id:
                    self._wrong("overlap", f"{event['seq']} ends {id} while {self._active} runs")
                if self._open:
                    self._wrong("open", f"{sorted(self._open)} at the end of {id}")
                self._open.clear()
                self._active, self.ends[id] = None, data["status"]
            case "tool.start" | "llm.start" | "llm.thinking.start" | "debugger.pause":
                self._open.add(id)
            case "tool.done" | "llm.final" | "llm.thinking.final":
                self._close(event)
            case "debugger.resumed":
                self._close(event)
                self.resumed[id] = data["decision"]

    def _close(self, event: dict[str, Any]) -> None:
        if event["id"] not in self._open:
            self._wrong("open", f"{event['seq']} {event['type']} closes {event['id']} once more")
        self._open.discard(event["id"])


def _shown(snapshot: dict[str, Any]) -> bytes:
    """What a snapshot says, without the moments, which frames do not carry."""
    entities = [
        {name: value for name, value in entity.items() if not name.endswith("AtMs")}
        for entity in snapshot["entities"]
    ]
    told = {
        "running": snapshot["running"],
        "queue": [item["idempotencyKey"] for item in snapshot.get("queue", [])],
        "entities": entities,
    }
    return msgspec.json.encode(told, order="deterministic")


def _difference(one: bytes, other: bytes) -> str:
    """The first thing in which two of `_shown` differ."""
    first, second = msgspec.json.decode(one), msgspec.json.decode(other)
    for name in ("running", "queue"):
        if first[name] != second[name]:
            return f"{name} is {first[name]} and {second[name]}"
    for a, b in zip_longest(first["entities"], second["entities"]):
        if a != b:
            return f"{str(a)[:400]} and {str(b)[:400]}"
    return "nothing"
