"""The fold of the frames, held against a page that folds the wire by the protocol's words alone."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.frames import ChatMessage, ChatMessageData, DeltaData, LlmDelta, connection_frame
from chat.log import MemoryFrameLog
from chat.timeline import Timeline
from sessions_app.inference import events
from sessions_app.inference.events import Event
from tests.chat.wire import Json, Page, at_once, conversations, frames_of, inference, numbered


class Conversation:
    """A conversation's frames as they go over the wire, and its snapshot after each of them."""

    def __init__(self, told: list[Event]) -> None:
        self.log = MemoryFrameLog("conv", epoch=1, now_ms=lambda: 0)
        self.snapshots = [self.snapshot()]
        self.wire: list[Json] = []
        for numbered_frame in numbered(frames_of(told)):
            at_once(self.log.append([numbered_frame]))
            self.wire.append(json.loads(numbered_frame.entry.text)["event"])
            self.snapshots.append(self.snapshot())

    def snapshot(self, since_version: int = 0) -> Json:
        snapshot = at_once(self.log.snapshot(since_version=since_version))
        text = connection_frame("timeline.snapshot", "conv", snapshot)
        data: Json = json.loads(text)["event"]["data"]
        return data

    @property
    def head(self) -> Json:
        return self.snapshots[-1]


@settings(max_examples=150, deadline=None)
@given(conversations)
def test_a_snapshot_at_any_place_and_the_frames_after_it_are_the_snapshot_at_the_head(
    told: list[Event],
):
    conversation = Conversation(told)
    for snapshot in conversation.snapshots:
        page = Page()
        page.replace(snapshot)
        for event in conversation.wire[snapshot["version"] :]:
            page.take(event)
        page.assert_shows(conversation.head)


@settings(max_examples=100, deadline=None)
@given(conversations)
def test_a_page_that_has_seen_every_frame_shows_every_snapshot_on_its_way(told: list[Event]):
    conversation = Conversation(told)
    page = Page()
    page.assert_shows(conversation.snapshots[0])
    for event in conversation.wire:
        page.take(event)
        page.assert_shows(conversation.snapshots[event["seq"]])


@settings(max_examples=100, deadline=None)
@given(conversations)
def test_what_changed_since_any_version_brings_the_page_of_that_version_to_the_head(
    told: list[Event],
):
    conversation = Conversation(told)
    for snapshot in conversation.snapshots:
        changed = conversation.snapshot(since_version=snapshot["version"])
        assert all(e["updatedSeq"] > snapshot["version"] for e in changed["entities"])
        page = Page()
        page.replace(snapshot)
        page.update(changed)
        page.assert_shows(conversation.head)


@settings(max_examples=50, deadline=None)
@given(conversations)
def test_an_entity_keeps_its_place_and_its_first_seq(told: list[Event]):
    conversation = Conversation(told)
    for earlier, later in zip(conversation.snapshots, conversation.snapshots[1:], strict=False):
        known = [(e["id"], e["createdSeq"]) for e in earlier["entities"]]
        assert [(e["id"], e["createdSeq"]) for e in later["entities"]][: len(known)] == known


def test_an_ordinary_inference_is_a_prompt_an_inference_a_thought_and_an_answer():
    entities = Conversation(inference(1, "Hel", "lo", thinking="hm")).head["entities"]
    assert [(e["id"], e["kind"]) for e in entities] == [
        ("u1", "message"), ("i1", "inference"), ("m1:thinking", "message"), ("m1", "message")
    ]  # fmt: skip
    prompt, run, thought, answer = (entity["props"] for entity in entities)
    assert prompt == {"role": "user", "content": "prompt 1", "streaming": False}
    assert run["status"] == "completed"
    assert (thought["role"], thought["content"]) == ("thinking", "hm")
    assert {k: answer[k] for k in ("role", "content", "streaming", "status")} == {
        "role": "assistant", "content": "Hello", "streaming": False, "status": "completed"
    }  # fmt: skip
    assert answer["metadata"]["usage"]["outputTokens"] == 2


def test_a_message_under_way_is_streaming_and_its_inference_running():
    conversation = Conversation(inference(1, "Hel", "lo")[:-2])
    assert conversation.head["running"]
    _, run, answer = (entity["props"] for entity in conversation.head["entities"])
    assert run["status"] == "running"
    assert (answer["streaming"], answer["status"]) == (True, "streaming")
    assert answer["content"] == "Hello"


def test_the_keys_of_a_snapshot_are_those_of_the_protocol():
    head = Conversation(inference(1, "Hello")).head
    assert head.keys() == {
        "convId", "epoch", "version", "cursor", "serverTimeMs", "running", "queueDepth", "queue",
        "entities",
    }  # fmt: skip
    assert head["entities"][0].keys() == {
        "id", "kind", "createdAtMs", "updatedAtMs", "createdSeq", "updatedSeq", "props"
    }  # fmt: skip
    assert head["cursor"] == f"1.{head['version']}"


def test_an_entity_is_dated_by_its_first_and_its_last_frame():
    timeline = Timeline()
    for seq, frame in enumerate(frames_of(inference(1, "a")), 1):
        timeline.fold(frame, seq=seq, at_ms=seq * 10)
    [run] = [entity for entity in timeline.entities() if entity.kind == "inference"]
    assert (run.created_seq, run.created_at_ms) == (2, 20)
    assert (run.updated_seq, run.updated_at_ms) == (timeline.version, timeline.version * 10)


def test_a_late_summary_is_kept_beside_the_thought():
    told = [*inference(1, "a", thinking="hm")[:-2], events.ThinkingSummary("in short")]
    [thought] = [e for e in Conversation(told).head["entities"] if e["id"] == "m1:thinking"]
    assert (thought["props"]["content"], thought["props"]["summary"]) == ("hm", "in short")


def test_a_snapshot_that_was_given_out_does_not_change_with_what_follows():
    timeline = Timeline()
    told = frames_of(inference(1, "Hel", "lo"))
    for seq, frame in enumerate(told[:4], 1):
        timeline.fold(frame, seq=seq, at_ms=0)
    before = timeline.entities()
    [answer] = [entity for entity in before if entity.id == "m1"]
    for seq, frame in enumerate(told[4:], 5):
        timeline.fold(frame, seq=seq, at_ms=0)
    assert (answer.props["content"], answer.props["streaming"]) == ("Hel", True)


@pytest.mark.parametrize("seq", [0, 2, 7])
def test_a_frame_out_of_place_is_refused_and_folds_nothing(seq: int):
    timeline = Timeline()
    data = ChatMessageData(role="user", content="hi", turn_id="t", idempotency_key="k")
    with pytest.raises(AssertionError):
        timeline.fold(ChatMessage(id="u", data=data), seq=seq, at_ms=0)
    assert (timeline.version, timeline.entities()) == (0, [])


def test_a_delta_costs_what_it_weighs_however_long_the_message_already_is():
    piece, timeline = "x" * 50, Timeline()
    count = 40_000
    deltas = [LlmDelta(id="m", data=DeltaData(delta=piece, offset=n * 50)) for n in range(count)]
    before = time.process_time()
    for seq, frame in enumerate(deltas, 1):
        timeline.fold(frame, seq=seq, at_ms=0)
    # Joining the message for every delta would move 40 GB and take 10 s or more.
    assert time.process_time() - before < 2
    [message] = timeline.entities()
    assert len(message.props["content"]) == 50 * count


@given(st.integers(0, 30))
def test_nothing_changed_since_the_head_or_later(ahead: int):
    conversation = Conversation([*inference(1, "a"), *inference(2, "b")[:-2]])
    version = conversation.head["version"]
    assert conversation.snapshot(since_version=version + ahead)["entities"] == []
