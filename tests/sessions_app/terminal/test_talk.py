"""A person at a terminal: prompts, decisions, Ctrl-C, the end of input."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import closing

import pytest

from sessions_app.inference.executor import DefaultToolExecutor
from sessions_app.inference.runner import InferenceRunner
from sessions_app.inference.toolloop import LoopConfig, ToolLoop
from sessions_app.inference.tools import ToolRegistry, tool
from sessions_app.inference.turns import ToolCall, ToolUse
from sessions_app.profiles import Profile
from sessions_app.session import Session
from sessions_app.terminal import Lines, Screen, Talk
from sessions_app.testing import Gate, ScriptedEngine

PATIENCE = 10.0
SEND = ToolCall(call_id="c", name="send", arguments={"text": "Hi"})
LOOK = ToolCall(call_id="c", name="look", arguments={})


class Terminal:
    """A pseudo-terminal, or a pipe, with a Talk at its far end; this is the near one."""

    def __init__(self, engine: ScriptedEngine, *, pipe: bool = False, seconds: float = 60) -> None:
        self.engine = engine
        self.text = ""
        self.sent: list[str] = []
        self._seconds = seconds
        self._news = asyncio.Event()
        self._seen = 0
        self._far, self._near = os.pipe() if pipe else reversed(os.openpty())
        self.talk = Talk(
            Profile(slug="agent", title="Agent"),
            self,
            screen=Screen(self, styled=False),
            lines=Lines(self._far),
        )
        self.running: asyncio.Task[bool] | None = None

    def build(self, session: Session) -> InferenceRunner:
        @tool(requires_approval=True)
        async def send(text: str) -> str:
            self.sent.append(text)
            return "sent"

        @tool
        async def look() -> str:
            return "a view"

        config = LoopConfig(step_timeout=self._seconds, approval_timeout=self._seconds)
        return InferenceRunner(
            self.engine,
            loop=ToolLoop(DefaultToolExecutor(), session.steps, config=config),
            tools=ToolRegistry([send, look]),
        )

    def start(self) -> None:
        self.running = asyncio.create_task(self.talk.run())

    def type(self, text: str) -> None:
        os.write(self._near, text.encode())

    async def shows(self, text: str) -> None:
        """Returns once that is shown, after what was waited for before."""
        async with asyncio.timeout(PATIENCE):
            while (at := self.text.find(text, self._seen)) < 0:
                self._news.clear()
                await self._news.wait()
        self._seen = at + len(text)

    async def ended(self) -> bool:
        assert self.running is not None
        async with asyncio.timeout(PATIENCE):
            return await self.running

    def result(self) -> tuple[str, str]:
        """Status and text of the tool's result, as the model read it."""
        [use] = [block for block in self.engine.turns[-1].blocks if isinstance(block, ToolUse)]
        return use.status, use.text

    def hang_up(self) -> None:
        os.close(self._near)

    def close(self) -> None:
        os.close(self._far)

    # What a screen writes to

    def write(self, text: str) -> None:
        self.text += text
        self._news.set()

    def flush(self) -> None:
        pass


@pytest.fixture
def opened() -> Iterator[list[Terminal]]:
    terminals: list[Terminal] = []
    yield terminals
    for terminal in terminals:
        with closing(terminal):
            terminal.hang_up()


async def terminal(opened: list[Terminal], *script: object, seconds: float = 60) -> Terminal:
    made = Terminal(ScriptedEngine(*script), seconds=seconds)  # type: ignore[arg-type] # steps
    opened.append(made)
    made.start()
    await made.shows("> ")
    return made


async def test_lines_are_prompts_until_the_end_of_input(opened: list[Terminal]):
    talk = await terminal(opened, ["Hello."], ["Again."])
    talk.type("hi\n")
    await talk.shows("Hello.\n")
    await talk.shows("> ")
    talk.type("  \nhi\n")
    await talk.shows("Again.\n")
    await talk.shows("> ")
    talk.type("\x04")
    assert await talk.ended()
    assert len(talk.engine.turns) == 2


async def test_agreeing_takes_a_letter_and_nothing_typed_ahead_agrees(opened: list[Terminal]):
    talk = await terminal(opened, [SEND], ["Done."])
    talk.type("send it\nc\nc\n")
    await talk.shows("denied in 60 s: ")
    await asyncio.sleep(0)
    assert talk.sent == []
    talk.type("\n")
    await talk.shows("denied in 60 s: ")
    talk.type("c\n")
    await talk.shows("Done.\n")
    assert talk.sent == ["Hi"]


async def test_edited_arguments_are_checked_and_run(opened: list[Terminal]):
    talk = await terminal(opened, [SEND], ["Done."])
    talk.type("send it\n")
    for typed, said in (
        ("{", "that is no JSON"),
        ("[]", "expected a JSON object"),
        ("", "nothing was changed"),
        ('{"text": 7}', "invalid arguments for send"),
    ):
        await talk.shows("denied in")
        talk.type("e\n")
        await talk.shows('[1] send {"text": "Hi"}')
        await talk.shows("keep these: ")
        talk.type(f"{typed}\n")
        await talk.shows(said)
    await talk.shows("denied in")
    talk.type("edit\n")
    await talk.shows("keep these: ")
    talk.type('{"text": "Ho"}\n')
    await talk.shows("edit by visitor")
    await talk.shows("Done.\n")
    assert talk.sent == ["Ho"]


@pytest.mark.parametrize(
    ("message", "told"),
    [("Not today.", "Not today."), ("", "A person chose not to run this call.")],
)
async def test_a_skipped_call_tells_the_model_why(opened: list[Terminal], message: str, told: str):
    talk = await terminal(opened, [SEND], ["Done."])
    talk.type("send it\n")
    await talk.shows("denied in")
    talk.type("s\n")
    await talk.shows("Enter: ")
    talk.type(f"{message}\n")
    await talk.shows("Done.\n")
    assert (talk.result(), talk.sent) == (("skipped", told), [])


@pytest.mark.parametrize("typed", ["a\n", "\x04"])
async def test_abort_and_the_end_of_input_end_the_inference(opened: list[Terminal], typed: str):
    talk = await terminal(opened, [SEND], ["Hello."])
    talk.type("send it\n")
    await talk.shows("denied in")
    talk.type(typed)
    await talk.shows("[stopped]\n")
    await talk.shows("> ")
    talk.type("hi\n")
    await talk.shows("Hello.\n")
    assert talk.sent == []


async def test_a_pause_that_nobody_decides_ends_and_the_next_line_is_a_prompt(
    opened: list[Terminal],
):
    talk = await terminal(opened, [SEND], ["Nobody."], ["Hello."], seconds=0.05)
    talk.type("send it\n")
    await talk.shows("timeout by timeout")
    await talk.shows("denied: Nobody agreed")
    await talk.shows("Nobody.\n")
    await talk.shows("> ")
    talk.type("c\n")
    await talk.shows("Hello.\n")
    assert talk.sent == []


async def test_step_mode_stops_before_and_after_and_enter_goes_on(opened: list[Terminal]):
    talk = Terminal(ScriptedEngine([LOOK], ["Done."]))
    opened.append(talk)
    talk.talk.step()
    talk.start()
    await talk.shows("> ")
    talk.type("look\n")
    await talk.shows("[Enter] continue, [e]dit, [s]kip, [a]bort; continues in 60 s: ")
    talk.type("\n")
    await talk.shows("[Enter] continue, [a]bort; continues in")
    talk.type("s\n")  # what has run cannot be skipped
    await talk.shows("[Enter] continue, [a]bort; continues in")
    talk.type("\n")
    await talk.shows("Done.\n")


async def test_ctrl_c_stops_an_answer_once_or_twice_and_the_talk_goes_on(opened: list[Terminal]):
    gate = Gate("middle")
    talk = await terminal(opened, ["Hel", gate], ["Hello."])
    talk.type("hi\n")
    await gate.reached()
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    await talk.shows("Hel\n[stopped]\n")
    await talk.shows("> ")
    talk.type("hi\n")
    await talk.shows("Hello.\n")


async def test_ctrl_c_in_a_pause_ends_it_and_the_inference(opened: list[Terminal]):
    talk = await terminal(opened, [SEND], ["Hello."])
    talk.type("send it\n")
    await talk.shows("denied in 60 s: ")
    signal.raise_signal(signal.SIGINT)
    await talk.shows("cancelled by system")
    await talk.shows("[stopped]\n")
    await talk.shows("> ")
    talk.type("hi\n")
    await talk.shows("Hello.\n")
    assert talk.sent == []


async def test_piped_lines_are_prompts_and_decisions_in_their_order():
    talk = Terminal(ScriptedEngine([SEND], ["Done."], [RuntimeError("broken")]), pipe=True)
    with closing(talk):
        talk.start()
        talk.type("send it\nc\nagain")
        talk.hang_up()
        assert not await talk.ended()
    assert talk.sent == ["Hi"]
    assert "Done.\n" in talk.text
    assert "> " not in talk.text


async def test_when_nobody_reads_any_more_the_answer_is_stopped():
    class Gone(Terminal):
        def write(self, text: str) -> None:
            raise BrokenPipeError

    talk = Gone(ScriptedEngine("Hello.", Gate("never")), pipe=True)
    with closing(talk):
        talk.start()
        talk.type("hi\nhi\n")
        assert not await talk.ended()
        talk.hang_up()
    assert len(talk.engine.turns) == 1
