"""The harness of `make chaos`: its checker notices what is wrong, and a run of it ends well."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from chaos.history import Decided, End, Entry, History, Place, Promise, Said, Violations
from tests.live import ROOT

EPOCH = 1_764_000_000_000
THEN = Said(1.0, 2.0)


class Scene:
    """One conversation with an answer in it, seen by two clients in whole."""

    def __init__(self) -> None:
        self.violations = Violations()
        self.history = History("a-conversation", self.violations)
        self.entries: list[Entry] = []
        self.place = Place(EPOCH, 0, "")
        self.say("chat.message", "u1", role="user", content="hi", turnId="t", idempotencyKey="k")
        self.say(
            "inference.started", "i1", turnId="t", profile="default", model="m", idempotencyKey="k"
        )
        self.say("inference.finished", "i1", status="completed", durationMs=5)
        self.history.prompts["k"] = Promise(THEN, "i1")

    def say(self, kind: str, id: str, inference_id: str = "i1", **data: Any) -> None:
        """The log gets one more frame."""
        seq = len(self.entries) + 1
        told: dict[str, Any] = {
            "type": kind,
            "id": id,
            "inference_id": inference_id,
            "turn_id": "t",
            "data": data,
        }
        told["metadata"] = {"model": "m", "stopReason": "stop", "durationMs": 5}
        body = json.dumps(told, separators=(",", ":"))
        named = f"{seq}-7"
        text = f'{{"sem":true,"event":{{"seq":{seq},"stream_id":"{named}",{body[1:]}}}'
        self.entries.append(Entry(seq, named, text))

    def see(self, *entries: Entry) -> None:
        """A client that begins at the beginning gets these."""
        place = Place(EPOCH, 0, "")
        for entry in entries:
            place = self.history.frame(place, entry.seq, entry.id, entry.text)

    def judged(self, **other: Any) -> set[str]:
        last = self.entries[-1]
        end = End(Place(EPOCH, last.seq, last.id), "", 0, self.entries, step_mode=False)
        for name, value in other.items():
            setattr(end, name, value)
        self.history.check(end)
        return set(self.violations.counts)


def twice(scene: Scene) -> None:
    scene.see(*scene.entries[:1], *scene.entries[:1])


def hole(scene: Scene) -> None:
    scene.see(scene.entries[0], scene.entries[2])


def other_words(scene: Scene) -> None:
    scene.see(*scene.entries)
    scene.see(scene.entries[0]._replace(text=scene.entries[0].text.replace("hi", "ho")))


def splice(scene: Scene) -> None:
    rewritten = scene.entries[0]._replace(id="1-9")
    scene.see(rewritten, *scene.entries[1:])


def unlogged(scene: Scene) -> None:
    scene.see(*scene.entries, scene.entries[2]._replace(seq=4, id="4-7"))


def second_end(scene: Scene) -> None:
    scene.say("inference.finished", "i1", status="lost", durationMs=5)


def overlap(scene: Scene) -> None:
    scene.say(
        "inference.started",
        "i2",
        "i2",
        turnId="t",
        profile="default",
        model="m",
        idempotencyKey="k",
    )
    scene.say("inference.finished", "i3", "i3", status="lost", durationMs=5)


def prompt_twice(scene: Scene) -> None:
    scene.say("chat.message", "u2", "i2", role="user", content="hi", idempotencyKey="k", turnId="t")


def never_ran(scene: Scene) -> None:
    scene.history.prompts["other"] = Promise(THEN)


def not_cancelled(scene: Scene) -> None:
    scene.history.cancels["i1"] = THEN


def new_epoch(scene: Scene) -> None:
    scene.history.frame(Place(EPOCH + 1, 0, ""), 1, "1-7", scene.entries[0].text)


def other_snapshot(scene: Scene) -> None:
    scene.see(*scene.entries)
    told = {"cursor": f"{EPOCH}.2.2-7", "epoch": EPOCH, "version": 2, "running": False}
    scene.history.snapshot(json.dumps({**told, "entities": []}).encode(), connected=0)


def no_end(scene: Scene) -> None:
    scene.entries.pop()


def call(scene: Scene, name: str, *ran: str, decision: str = "") -> None:
    """The answer calls a tool with "a"; it is run for each of `ran`, after a pause if decided."""
    last = scene.entries.pop()
    scene.say("tool.start", "c1", name=name, input={"word": "a"})
    if decision:
        shown = {"id": "c1", "name": name, "input": {"word": "a"}, "needsApproval": True}
        told: dict[str, Any] = {
            "phase": "after_inference",
            "summary": "",
            "deadlineMs": 1,
            "onTimeout": "deny",
        }
        scene.say("debugger.pause", "p1", pauseId="p1", extra={"toolCalls": [shown]}, **told)
        scene.say("debugger.resumed", "p1", pauseId="p1", decision=decision, by="visitor")
    for word in ran:
        scene.say("tool.delta", "c1", patch={"exec": True, "input": {"word": word}})
    scene.say("tool.done", "c1", status="success")
    assert '"inference.finished"' in last.text
    scene.say("inference.finished", "i1", status="completed", durationMs=5)


def ran_twice(scene: Scene) -> None:
    call(scene, "look", "a", "a")


def ran_otherwise(scene: Scene) -> None:
    call(scene, "look", "b")


def ran_unasked(scene: Scene) -> None:
    call(scene, "act", "a")


def ran_as_it_was_before_an_edit(scene: Scene) -> None:
    scene.history.edits["p1"] = [{"c1": {"word": "b"}}]
    call(scene, "act", "a", decision="edit")


def decided_otherwise(scene: Scene) -> None:
    scene.history.decisions["p1"] = Decided("skip", THEN)
    call(scene, "act", decision="continue")


def step_mode_forgotten(scene: Scene) -> None:
    scene.history.step_mode = (True, THEN)


def epoch_after_all_was_lost(scene: Scene) -> None:
    scene.see(*scene.entries)
    scene.history.losing(since=0)
    scene.history.lost()


def resumed_after_all_was_lost(scene: Scene) -> None:
    epoch_after_all_was_lost(scene)
    scene.history.resumed(Place(EPOCH, 3, "3-7"), EPOCH, connected=monotonic() + 1)


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (twice, "order"),
        (hole, "order"),
        (other_words, "differs"),
        (splice, "splice"),
        (unlogged, "unlogged"),
        (second_end, "after the end"),
        (overlap, "overlap"),
        (prompt_twice, "twice"),
        (never_ran, "promise"),
        (not_cancelled, "cancel"),
        (new_epoch, "epoch"),
        (other_snapshot, "fold"),
        (no_end, "unended"),
        (ran_twice, "ran"),
        (ran_otherwise, "ran"),
        (ran_unasked, "ran"),
        (ran_as_it_was_before_an_edit, "ran"),
        (decided_otherwise, "decision"),
        (step_mode_forgotten, "step mode"),
        (epoch_after_all_was_lost, "epoch"),
        (resumed_after_all_was_lost, "epoch"),
    ],
)
def test_the_checker_notices(spoil: Callable[[Scene], None], kind: str):
    scene = Scene()
    spoil(scene)
    assert kind in scene.judged()


def test_the_checker_has_nothing_against_what_is_well():
    scene = Scene()
    scene.see(*scene.entries)
    scene.see(*scene.entries)
    assert not scene.judged()


def test_the_checker_has_nothing_against_an_edit_that_is_heeded():
    scene = Scene()
    scene.history.edits["p1"] = [{"c1": {"word": "b"}}]
    scene.history.decisions["p1"] = Decided("edit", THEN)
    call(scene, "act", "b", decision="edit")
    assert not scene.judged()


def test_what_redis_has_forgotten_is_forgiven_and_what_was_said_before_is_not():
    scene = Scene()
    scene.history.prompts["before"] = Promise(THEN)
    scene.history.prompts["meanwhile"] = Promise(Said(monotonic(), monotonic() + 60))
    scene.history.losing(since=monotonic())
    scene.history.lost()
    assert scene.judged() == {"promise"}
    assert len(scene.violations.told) == 1
    assert "before" in scene.violations.told[0]


def test_what_was_trimmed_is_judged_as_clients_saw_it():
    scene = Scene()
    scene.see(*scene.entries)
    assert not scene.judged(entries=scene.entries[2:])
    assert scene.history.judged


def test_what_was_trimmed_and_nobody_saw_is_not_judged():
    scene = Scene()
    assert not scene.judged(entries=scene.entries[2:])
    assert not scene.history.judged


def test_the_checker_notices_what_still_runs():
    assert Scene().judged(active="i1") == {"unended"}


def test_nothing_is_lost_while_every_server_lives():
    scene = Scene()
    scene.history.owners_live = True
    scene.entries.pop()
    scene.say("inference.finished", "i1", status="lost", durationMs=5)
    assert scene.judged() == {"lost"}


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_servers_are_killed_and_stopped_and_nobody_sees_a_wrong_frame():
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chaos", "--nemesis", "stop,kill,drain", "--seconds", "6"),
        *("--loss", "0.5", "--conversations", "3", "--tabs", "3"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()
