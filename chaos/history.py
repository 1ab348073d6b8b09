"""What was seen of one conversation by everybody, and what is wrong with it.

Reads the contract (docs/protocol.md); of the product it uses only the fold, whose law it checks.
A place is (epoch, seq, stream id). Who is at the same place must have seen the same, so it is
enough that each place has one frame and one place before it.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

import msgspec

from chat.frames import Cursor, body_of, decode_body
from chat.timeline import Timeline

from .story import Story

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


class Said(NamedTuple):
    """When something was asked and when a server said yes to it, on this machine's clock."""

    asked: float
    answered: float


@dataclass
class Promise:
    """A prompt that was accepted. `removed`: and taken back."""

    said: Said
    inference_id: str = ""
    removed: Said | None = None


@dataclass
class End:
    """A conversation as its store has it when all is over. `step_mode` None: there is none."""

    place: Place
    active: str
    queued: int
    entries: Sequence[Entry] = ()
    step_mode: bool | None = None


@dataclass
class _Loss:
    """What Redis forgot: whatever was said in that time."""

    since: float
    until: float = math.inf


@dataclass
class Decided:
    decision: str
    said: Said


class History:
    """One conversation."""

    def __init__(self, conv_id: str, violations: Violations) -> None:
        self.conv_id = conv_id
        self.prompts: dict[str, Promise] = {}
        self.cancels: dict[str, Said] = {}
        self.decisions: dict[str, Decided] = {}
        self.edits: dict[str, list[Mapping[str, Any]]] = {}
        """By pause, the arguments that somebody asked for, by call."""
        self.step_mode: tuple[bool, Said] | None = None
        """What was asked for last, when nobody else asked."""
        self.owners_live = False
        """No owner dies, or is away for longer than its lease."""
        self.grace = 0.0
        """Seconds until an owner has noticed that all was lost: till then it tells what it knew."""
        self.statuses: Counter[str] = Counter()
        self.judged = False
        """All of the last epoch was there to be judged."""
        self._violations = violations
        self._losses: list[_Loss] = []
        self._dead: dict[int, float] = {}
        self._frames: dict[Place, _Seen] = {}
        self._snapshots: dict[Place, bytes] = {}
        self._epochs: set[int] = set()

    def wrong(self, kind: str, words: str) -> None:
        self._violations.add(kind, f"{self.conv_id[:8]}: {words}")

    # What Redis forgets

    def losing(self, since: float) -> None:
        """Redis is about to forget what was said since; 0: all."""
        self._losses.append(_Loss(since))

    def lost(self) -> None:
        """It works again. A conversation that lost everything goes on in a new epoch."""
        loss = self._losses[-1]
        loss.until = time.monotonic()
        if not loss.since:
            self._dead.update(dict.fromkeys(self._epochs, loss.until + self.grace))

    def forgiven(self, said: Said) -> bool:
        """Whether it may be forgotten."""
        return any(
            said.asked <= loss.until and said.answered >= loss.since for loss in self._losses
        )

    # What clients see

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

    def snapshot(self, raw: bytes, connected: float) -> Place:
        """A client, there since then, was told to start from here; where it is now."""
        told = msgspec.json.decode(raw)
        place = Place.of(told["cursor"])
        if (place.epoch, place.seq) != (told["epoch"], told["version"]):
            self.wrong("snapshot", f"{place} is named {told['epoch']}.{told['version']}")
        self._must_live(place.epoch, connected)
        self._saw(place.epoch)
        shown = _shown(told)
        if self._snapshots.setdefault(place, shown) != shown:
            self.wrong("snapshot", f"two at {place}: {_difference(self._snapshots[place], shown)}")
        return place

    def resumed(self, place: Place | None, epoch: int, connected: float) -> None:
        """A client, there since then, was told that it goes on from its place."""
        if place is None or epoch != place.epoch:
            self.wrong("resume", f"{place} was resumed in epoch {epoch}")
        self._must_live(epoch, connected)

    def _must_live(self, epoch: int, connected: float) -> None:
        if connected > self._dead.get(epoch, math.inf):
            self.wrong("epoch", f"{epoch} goes on, and all of it was lost")

    def _saw(self, epoch: int) -> None:
        if epoch and epoch not in self._epochs:
            self._epochs.add(epoch)
            if len(self._epochs) > 1 and not self._losses:
                self.wrong("epoch", f"nothing was lost, and {sorted(self._epochs)} are epochs")

    # What is true when all is over

    def check(self, end: End) -> None:
        """Judges all that was seen, by the log as it ended."""
        if end.active:
            self.wrong("unended", f"{end.active} is still active")
        elif end.queued:
            self.wrong("unended", f"nothing runs, and {end.queued} wait")
        self._saw(end.place.epoch)
        if end.place.epoch in self._dead:
            self.wrong("epoch", f"{end.place.epoch} is the last one, and all of it was lost")
        self._check_log(end)
        entries = self._whole(end)
        if entries is None:
            return
        self.judged = True
        self._check_folds(end, entries)
        story = Story(self.wrong, self.edits)
        for entry in entries:
            story.take(msgspec.json.decode(entry.text)["event"])
        if story.active is not None and not end.active:
            self.wrong("unended", f"{story.active} has no end in the log")
        self.statuses.update(story.ends.values())
        for inference_id, status in story.ends.items():
            if status == "lost" and self.owners_live:
                self.wrong("lost", f"{inference_id} was lost, and its server lives")
        self._check_promises(story)
        self._check_step_mode(story, end)

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
                if not self._losses:
                    self.wrong("unlogged", f"{place} was seen and is not in the log")
            elif entry.text != seen.text:
                self.wrong("differs", f"{place} in the log is {entry.text[:300]}")
            elif place.seq > first and known[place.seq - 1].id != seen.before:
                self.wrong("splice", f"{place} came after {seen.before!r}, which the log has not")

    def _whole(self, end: End) -> Sequence[Entry] | None:
        """The log from its first frame: what was trimmed, as clients saw it. None: nobody did."""
        if not end.entries:
            return () if not end.place.seq else None
        by_id = {place.id: (place, seen) for place, seen in self._frames.items()}
        earlier = []
        first = end.entries[0]
        seq, id = first.seq, first.id
        while seq > 1:
            with suppress(KeyError):
                _, seen = by_id[id]
                before, seen = by_id[seen.before]
                earlier.append(Entry(before.seq, before.id, seen.text))
                seq, id = before.seq, before.id
                continue
            return None
        return [*reversed(earlier), *end.entries]

    def _check_folds(self, end: End, entries: Sequence[Entry]) -> None:
        """Snapshot at n = the fold of the frames up to n, in the last epoch."""
        timeline = Timeline()
        for entry in entries:
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

    def _check_promises(self, story: Story) -> None:
        """What was acknowledged, and could not be forgotten by Redis, has come about."""
        for key, promise in self.prompts.items():
            started = story.started.get(key)
            if self.forgiven(promise.said):
                continue
            if promise.removed is not None:
                if started is not None and not self.forgiven(promise.removed):
                    self.wrong("promise", f"the prompt {key} was removed and ran as {started}")
            elif started is None:
                self.wrong("promise", f"the prompt {key} was accepted and never ran")
            elif promise.inference_id not in ("", started):
                self.wrong("promise", f"{key} ran as {started}, not {promise.inference_id}")
        for inference_id, said in self.cancels.items():
            if not self.forgiven(said) and story.ends.get(inference_id) != "cancelled":
                ended = story.ends.get(inference_id)
                self.wrong("cancel", f"{inference_id} was cancelled and ended {ended}")
        for pause_id, decided in self.decisions.items():
            told = story.resumed.get(pause_id)
            if not self.forgiven(decided.said) and told != decided.decision:
                self.wrong("decision", f"{pause_id} was decided {decided.decision}, ended {told}")

    def _check_step_mode(self, story: Story, end: End) -> None:
        if end.step_mode is None:
            return
        if story.step_mode is not None and story.step_mode != end.step_mode:
            self.wrong("step mode", f"is {end.step_mode}, and the last frame says the other")
        if self.step_mode is not None:
            asked, said = self.step_mode
            if not self.forgiven(said) and asked != end.step_mode:
                self.wrong("step mode", f"{asked} was asked for last, and it is the other")


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
