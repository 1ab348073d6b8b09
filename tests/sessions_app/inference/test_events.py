"""What an engine may say, and where it goes."""

from __future__ import annotations

import asyncio
from dataclasses import FrozenInstanceError
from typing import get_args

import pytest

from sessions_app.inference import events
from sessions_app.inference.events import (
    INTERNAL_EVENTS,
    EngineEvent,
    Event,
    TextDelta,
    Usage,
    publish,
    publishing_to,
)
from tests.standins.recording import Recorder

pytestmark = pytest.mark.virtual


async def test_publishing_outside_of_an_inference_is_an_error():
    with pytest.raises(LookupError):
        publish(TextDelta("to nobody"))


async def test_within_the_block_events_go_to_the_sink_and_afterwards_no_more():
    heard = Recorder()
    with publishing_to(heard):
        publish(TextDelta("a"))
    with pytest.raises(LookupError):
        publish(TextDelta("b"))
    assert heard.text == "a"


async def test_the_innermost_block_counts_and_the_outer_one_comes_back():
    outer, inner = Recorder(), Recorder()
    with publishing_to(outer):
        with publishing_to(inner):
            publish(TextDelta("in"))
        publish(TextDelta("out"))
    assert (outer.text, inner.text) == ("out", "in")


async def test_an_error_inside_the_block_gives_the_sink_back():
    with pytest.raises(ZeroDivisionError), publishing_to(Recorder()):
        raise ZeroDivisionError
    with pytest.raises(LookupError):
        publish(TextDelta("b"))


async def test_a_task_started_inside_publishes_to_the_same_sink():
    heard = Recorder()

    async def speak() -> None:
        publish(TextDelta("from a task"))

    with publishing_to(heard):
        task = asyncio.create_task(speak())
    await task
    assert heard.text == "from a task"


async def test_two_inferences_at_once_do_not_hear_each_other():
    async def speak(name: str) -> Recorder:
        heard = Recorder()
        with publishing_to(heard):
            for _ in range(3):
                publish(TextDelta(name))
                await asyncio.sleep(1)
        return heard

    first, second = await asyncio.gather(speak("a"), speak("b"))
    assert (first.text, second.text) == ("aaa", "bbb")


def test_usage_is_summed_field_by_field():
    total = Usage(input_tokens=1, output_tokens=2, cached_tokens=3) + Usage(output_tokens=10)
    assert total == Usage(input_tokens=1, output_tokens=12, cached_tokens=3)


def test_the_internal_events_are_events_of_an_engine():
    assert set(INTERNAL_EVENTS) <= set(get_args(EngineEvent)) <= set(get_args(Event))


def test_an_event_is_a_value():
    with pytest.raises(FrozenInstanceError):
        TextDelta("a").text = "b"  # type: ignore[misc]
    assert events.Log(message="x") == events.Log(message="x")
