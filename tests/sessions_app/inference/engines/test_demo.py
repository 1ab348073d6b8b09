"""The demo agent: honest, deterministic, and as rough as it is told to be."""

from __future__ import annotations

import asyncio

import pytest

from sessions_app.inference.engines.demo import DemoEngine
from sessions_app.inference.engines.demo_scripts import LONGEST_ANSWER, TOPICS
from sessions_app.inference.errors import InferenceFailed
from sessions_app.inference.events import (
    AppEvent,
    Log,
    ModelCallFinished,
    TextDelta,
    ThinkingDelta,
    ThinkingSummary,
)
from sessions_app.inference.turns import LlmText, Reasoning, Turn, User
from tests.standins.recording import Recorder, ask, infer


@pytest.fixture
def engine() -> DemoEngine:
    return DemoEngine(pace=0)


@pytest.fixture
def heard() -> Recorder:
    return Recorder()


async def test_it_thinks_then_speaks_in_small_pieces_then_says_that_it_is_finished(
    engine: DemoEngine, heard: Recorder
) -> None:
    await ask(engine, "help", heard)
    kinds = [type(event) for event in heard.events]
    assert list(dict.fromkeys(kinds)) == [ThinkingDelta, TextDelta, ModelCallFinished]
    assert kinds == sorted(kinds, key=[ThinkingDelta, TextDelta, ModelCallFinished].index)
    assert max(len(e.text) for e in heard.events if isinstance(e, TextDelta)) < 60


async def test_the_turn_holds_exactly_what_was_streamed(
    engine: DemoEngine, heard: Recorder
) -> None:
    turn = await ask(engine, "markdown", heard)
    prompt, reasoning, answer = turn.blocks
    assert isinstance(prompt, User)
    assert isinstance(reasoning, Reasoning)
    assert isinstance(answer, LlmText)
    assert (reasoning.text, answer.text) == (heard.thinking, heard.text)


async def test_the_same_prompt_gets_the_same_answer(engine: DemoEngine) -> None:
    first, second = Recorder(), Recorder()
    await ask(engine, "what is this?", first)
    await ask(engine, "What is THIS", second)
    assert first.text == second.text


@pytest.mark.parametrize("phrase", [phrase for topic in TOPICS for phrase in topic.phrases])
async def test_every_phrase_reaches_its_own_page(
    engine: DemoEngine, heard: Recorder, phrase: str
) -> None:
    await ask(engine, f"Please: {phrase}!", heard)
    [topic] = [topic for topic in TOPICS if phrase in topic.phrases]
    assert heard.text == topic.text


async def test_every_prompt_that_help_names_has_an_answer_of_its_own(engine: DemoEngine) -> None:
    for prompt in (
        "what is this",
        "how do I connect a real model",
        "how does reconnect work",
        "how do I stop an answer",
        "where is my data",
        "markdown",
        "history",
    ):
        heard = Recorder()
        await ask(engine, prompt, heard)
        assert "I can't answer that" not in heard.text, prompt


async def test_markdown_shows_every_kind_of_formatting(engine: DemoEngine, heard: Recorder) -> None:
    await ask(engine, "markdown", heard)
    for sign in ("# ", "- ", "1. ", "|---|", "```python", "> ", "[a link](https://"):
        assert sign in heard.text


async def test_connecting_a_model_names_the_settings(engine: DemoEngine, heard: Recorder) -> None:
    await ask(engine, "how do I connect a real model?", heard)
    for setting in (
        "WEBCHAT_MODEL=openai-chat:",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "WEBCHAT_MODEL=anthropic:",
        "ANTHROPIC_API_KEY",
        "WEBCHAT_MODEL=google:",
        "GEMINI_API_KEY",
        "WEBCHAT_MODEL=local:smollm2",
    ):
        assert setting in heard.text


async def test_an_unknown_prompt_gets_an_honest_answer_that_repeats_it_shortly(
    engine: DemoEngine, heard: Recorder
) -> None:
    await ask(engine, f"Write\n\n# a poem about {'the sea ' * 100}", heard)
    assert "scripted demo agent" in heard.text
    [quoted] = [line for line in heard.text.splitlines() if line.startswith("> ")]
    assert quoted.startswith("> Write # a poem about the sea")
    assert len(quoted) <= 102


async def test_it_remembers_what_was_asked_before(engine: DemoEngine, heard: Recorder) -> None:
    turn = await ask(engine, "hello", Recorder())
    await infer(engine, turn.with_blocks(User(text="what did I ask?")), heard)
    assert "1. hello" in heard.text
    assert "what did I ask" not in heard.text


async def test_its_usage_counts_the_words_it_read_and_wrote(
    engine: DemoEngine, heard: Recorder
) -> None:
    await ask(engine, "fail is a word of five", heard)
    finished = heard.events[-1]
    assert isinstance(finished, ModelCallFinished)
    assert finished.usage is not None
    assert finished.stop_reason == "stop"
    assert finished.usage.input_tokens == 6
    assert finished.usage.output_tokens == len(f"{heard.thinking} {heard.text}".split())


async def test_a_turn_without_a_prompt_is_answered_too(engine: DemoEngine, heard: Recorder) -> None:
    await infer(engine, Turn(), heard)
    assert "(nothing)" in heard.text


async def test_told_to_fail_it_fails_after_some_text(engine: DemoEngine, heard: Recorder) -> None:
    with pytest.raises(InferenceFailed, match="in mid-answer"):
        await ask(engine, "fail", heard)
    assert heard.text
    assert not any(isinstance(event, ModelCallFinished) for event in heard.events)


async def test_told_to_fail_at_once_it_fails_before_the_first_word(
    engine: DemoEngine, heard: Recorder
) -> None:
    with pytest.raises(InferenceFailed, match="before its first word"):
        await ask(engine, "Fail at once!", heard)
    assert heard.events == []


async def test_long_writes_as_many_words_as_it_is_told(engine: DemoEngine, heard: Recorder) -> None:
    await ask(engine, "long 3000", heard)
    assert len(heard.text.split()) == 3000


async def test_long_has_a_bound(engine: DemoEngine, heard: Recorder) -> None:
    await ask(engine, "long 999999", heard)
    assert len(heard.text.split()) == LONGEST_ANSWER


@pytest.mark.virtual
async def test_slow_counts_one_number_each_second(heard: Recorder) -> None:
    began = asyncio.get_running_loop().time()
    await ask(DemoEngine(pace=0), "slow 30", heard)
    assert asyncio.get_running_loop().time() - began == pytest.approx(30)
    assert heard.text.startswith("Counting: 1 2 3 ")
    assert heard.text.endswith(" 29 30 and done.")


@pytest.mark.virtual
async def test_pieces_come_at_the_pace_it_was_built_with(heard: Recorder) -> None:
    began = asyncio.get_running_loop().time()
    await ask(DemoEngine(pace=0.5), "hello", heard)
    took = asyncio.get_running_loop().time() - began
    assert took == pytest.approx(0.5 * (len(heard.events) - 1))


@pytest.mark.virtual
@pytest.mark.parametrize("prompt", ["silent", "hang"])
async def test_silence_lasts_until_it_is_cancelled(prompt: str, heard: Recorder) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3_600):
            await ask(DemoEngine(), prompt, heard)
    assert heard.events == []


@pytest.mark.virtual
async def test_a_cancelled_answer_says_nothing_more(heard: Recorder) -> None:
    answer = asyncio.create_task(ask(DemoEngine(), "slow 30", heard))
    await asyncio.sleep(10)
    answer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answer
    said = list(heard.events)
    await asyncio.sleep(100)
    assert heard.events == said
    assert " 7 " in heard.text
    assert " 20 " not in heard.text


async def test_a_summary_comes_when_the_thinking_is_over(
    engine: DemoEngine, heard: Recorder
) -> None:
    await ask(engine, "summary", heard)
    kinds = [type(event) for event in heard.events]
    assert kinds.index(ThinkingSummary) > kinds.index(TextDelta)


async def test_it_can_think_twice_in_one_call(engine: DemoEngine, heard: Recorder) -> None:
    turn = await ask(engine, "think twice", heard)
    kinds = [type(block) for block in turn.blocks[1:]]
    assert kinds == [Reasoning, LlmText, Reasoning, LlmText]


async def test_every_level_is_in_the_log(engine: DemoEngine, heard: Recorder) -> None:
    await ask(engine, "log", heard)
    levels = [event.level for event in heard.events if isinstance(event, Log)]
    assert levels == ["info", "warning", "error"]


async def test_an_apps_event_is_changed_and_has_an_id_of_its_own_for_each_prompt(
    engine: DemoEngine, heard: Recorder
) -> None:
    turn = await ask(engine, "app event", heard)
    await infer(engine, turn.with_blocks(User(text="app event")), heard)
    ids = [event.id for event in heard.events if isinstance(event, AppEvent)]
    assert ids == ["demo:1", "demo:1", "demo:2", "demo:2"]
