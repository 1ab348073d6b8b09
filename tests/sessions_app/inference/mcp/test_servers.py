"""Tools of real MCP servers, over both transports and both protocols, as an agent meets them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import pytest_asyncio

from sessions_app.inference.events import Log, ToolCallStarted, ToolProgress, publishing_to
from sessions_app.inference.executor import DefaultToolExecutor, ToolResult, ToolRun
from sessions_app.inference.mcp import McpServerConfig, McpServers
from sessions_app.inference.shipped_tools import calc
from sessions_app.inference.tools import MASK, ToolRegistry
from sessions_app.inference.turns import ToolCall
from sessions_app.testing import RecordingSink
from tests.live import ROOT
from tests.ports import free_port

# One loop for the module: connections live in it, and so do the servers' processes.
pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = 20.0
SECRET = "s3cret-of-the-operator"
PROGRAM = ["-m", "tests.standins.mcp_server"]
REACHED_BY = ["streams", "streams, legacy", "http", "http, legacy"]


class Agent:
    """An agent that is allowed `calc` and tools of servers; a fresh inference for each call."""

    def __init__(self, servers: McpServers, *names: str) -> None:
        self.servers = servers
        self.sink = RecordingSink()
        self._source = servers.allowed(ToolRegistry([calc]), ["calc", *names])
        self._executor = DefaultToolExecutor()

    async def tools(self) -> ToolRegistry:
        with publishing_to(self.sink):
            return await self._source.current()

    async def call(self, name: str, /, **arguments: object) -> ToolResult:
        """The one call of an inference, which takes no longer than it may."""
        run = ToolRun(
            registry=await self.tools(),
            session_id="s",
            inference_id="i",
            owner="o",
            user=None,
            ensure_running=lambda: None,
        )
        call = ToolCall(call_id="c", name=name, arguments=arguments)
        with publishing_to(self.sink):
            async with asyncio.timeout(PATIENCE):
                prepared = await self._executor.prepare(call, run)
                if isinstance(prepared, ToolResult):
                    return prepared
                (result,) = await self._executor.execute([prepared], run)
        return result

    async def said(self, name: str, /, **arguments: object) -> str:
        """The result of a call that must succeed."""
        result = await self.call(name, **arguments)
        assert result.status == "success", result
        return result.text

    async def failed(self, name: str, /, **arguments: object) -> str:
        """The result of a call that must not."""
        result = await self.call(name, **arguments)
        assert result.status == "error", result
        return result.text

    @property
    def progress(self) -> Sequence[ToolProgress]:
        return [event for event in self.sink.events if isinstance(event, ToolProgress)]

    @property
    def lines(self) -> Sequence[str]:
        return [event.message for event in self.sink.events if isinstance(event, Log)]


class HttpServer:
    """A stand-in at an address of its own, to be ended and begun again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self._process: asyncio.subprocess.Process | None = None

    async def begin(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *PROGRAM, "--port", str(self.port), cwd=ROOT
        )
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)

    async def end(self) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http_server() -> AsyncIterator[HttpServer]:
    server = HttpServer()
    await server.begin()
    yield server
    await server.end()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(http_server: HttpServer) -> AsyncIterator[McpServers]:
    """One connection of each kind, made at its first use and shared by the tests."""
    headers = {"authorization": f"Bearer {SECRET}"}
    made = McpServers(
        {
            "one": on_streams(),
            "two": on_streams(ERA="legacy"),
            "three": McpServerConfig(url=http_server.url, headers=headers),
            "four": McpServerConfig(url=http_server.url, headers={**headers, "era": "legacy"}),
        }
    )
    yield made
    await made.aclose()


PREFIXES = {"streams": "one", "streams, legacy": "two", "http": "three", "http, legacy": "four"}


@pytest.fixture(params=REACHED_BY)
def x(request: pytest.FixtureRequest) -> str:
    """The prefix of a server."""
    return PREFIXES[request.param]


@pytest.fixture
def agent(servers: McpServers, x: str) -> Agent:
    return Agent(servers, f"{x}_*")


def on_streams(**env: str) -> McpServerConfig:
    env = {"AUTHORIZATION": f"Bearer {SECRET}", "PYTHONPATH": str(ROOT), **env}
    return McpServerConfig(command=sys.executable, args=tuple(PROGRAM), env=env)


@asynccontextmanager
async def closing(**configs: McpServerConfig) -> AsyncIterator[McpServers]:
    servers = McpServers(configs)
    try:
        yield servers
    finally:
        await servers.aclose()


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


# What there is


async def test_tools_are_listed_under_the_prefix_with_their_schema(agent: Agent, x: str):
    registry = await agent.tools()

    assert {"calc", f"{x}_echo", f"{x}_wait"} <= set(registry.names)
    echo = registry.get(f"{x}_echo")
    assert echo is not None
    assert echo.description == "Say it again."
    assert echo.parameters["required"] == ["text"]
    assert echo.parameters["properties"]["text"]["type"] == "string"
    assert agent.lines == []


async def test_a_name_that_providers_refuse_is_made_one_they_take(agent: Agent, x: str):
    text = await agent.said(f"{x}_points_swap_v2", x=1, y=2)

    assert json.loads(text) == {"x": 2, "y": 1}


async def test_an_allow_list_names_the_tools_it_wants(servers: McpServers, x: str, caplog):
    agent = Agent(servers, f"{x}_echo", f"{x}_ehco")
    names = (await agent.tools()).names
    await agent.tools()

    assert set(names) == {"calc", f"{x}_echo"}
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == [f"MCP server {x} has no tool '{x}_ehco'"]
    assert "expected one of: calc" in await agent.failed(f"{x}_ehco")


async def test_a_tool_that_is_learnt_later_is_offered_from_then_on(agent: Agent, x: str):
    name = f"later_{x}"
    assert f"{x}_{name}" not in (await agent.tools()).names
    await agent.said(f"{x}_learn", name=name)

    async def is_offered() -> bool:
        return f"{x}_{name}" in (await agent.tools()).names

    await until(is_offered)
    assert await agent.said(f"{x}_{name}", text="new") == "new"


# Calls


async def test_a_call_is_answered(agent: Agent, x: str):
    assert await agent.said(f"{x}_echo", text="hello") == "hello"


async def test_an_error_of_the_tool_is_a_result_the_model_can_read(agent: Agent, x: str):
    text = await agent.failed(f"{x}_fail", why="there is no such file")

    assert text.startswith(f"{x}_fail failed: ")
    assert "there is no such file" in text


async def test_a_result_that_is_not_what_the_server_promised_is_an_error(agent: Agent, x: str):
    text = await agent.failed(f"{x}_lie")

    assert f"the MCP server '{x}' sent a result that is none: " in text
    assert text.endswith("'not a number' is not of type 'integer'")


async def test_a_picture_is_named_and_not_dumped(agent: Agent, x: str):
    assert await agent.said(f"{x}_picture") == "a dot\n[image/png, 1000 bytes]"


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [({"x": 1}, "'y' is a required property"), ({"x": 1, "y": -1}, "y: -1 is less than")],
)
async def test_wrong_arguments_never_reach_the_server(
    agent: Agent, x: str, arguments: dict[str, int], wrong: str
):
    text = await agent.failed(f"{x}_points_swap_v2", **arguments)

    assert text.startswith(f"invalid arguments for {x}_points_swap_v2: ")
    assert wrong in text
    assert not any(isinstance(event, ToolCallStarted) for event in agent.sink.events)


async def test_each_conversation_hears_the_progress_of_its_own_call(servers: McpServers, x: str):
    anna, bert = Agent(servers, f"{x}_*"), Agent(servers, f"{x}_*")
    anna_said, bert_said = await asyncio.gather(
        anna.said(f"{x}_wait", seconds=0.05, name="anna's"),
        bert.said(f"{x}_wait", seconds=0.05, name="bert's"),
    )

    assert (anna_said, bert_said) == ("anna's is done", "bert's is done")
    for agent, name in ((anna, "anna's"), (bert, "bert's")):
        assert [event.note for event in agent.progress] == [f"{name} began"]
        assert agent.progress[0].progress == 0.25


async def test_cancel_reaches_the_server(agent: Agent, x: str):
    name = f"cancelled by {x}"
    call = asyncio.create_task(agent.call(f"{x}_wait", seconds=3600, name=name))
    await until_it_began(agent, x, name)
    call.cancel()
    async with asyncio.timeout(1):
        await asyncio.wait({call})

    assert call.cancelled()
    await until_cancelled(agent, x, name)


async def test_a_call_that_takes_too_long_is_ended_on_the_server_too(http_server: HttpServer):
    config = McpServerConfig(url=http_server.url, timeout=0.3)
    async with closing(x=config) as servers:
        agent = Agent(servers, "x_*")
        result = await agent.call("x_wait", seconds=3600, name="too long")

        assert result.status == "timeout"
        assert "0.3 seconds" in result.text
        await until_cancelled(agent, "x", "too long")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


async def until_it_began(agent: Agent, x: str, name: str) -> None:
    await until_known(agent, x, "begun", name)


async def until_cancelled(agent: Agent, x: str, name: str) -> None:
    await until_known(agent, x, "cancelled", name)


async def until_known(agent: Agent, x: str, what: str, name: str) -> None:
    """The server says that this call of `wait` has come so far."""

    async def is_known() -> bool:
        return name in json.loads(await agent.said(f"{x}_waits"))[what]

    await until(is_known)


# Secrets


async def test_a_servers_credentials_are_shown_nowhere(agent: Agent, x: str, caplog):
    caplog.set_level(logging.DEBUG)
    name = "authorization" if x in ("three", "four") else "AUTHORIZATION"
    said = await agent.said(f"{x}_reveal", name=name)
    failed = await agent.failed(f"{x}_fail", why=f"the key is {SECRET}")
    await agent.said(f"{x}_wait", seconds=0.05, name=SECRET)

    assert said == MASK
    assert f"MCP server {x} says: {MASK} may take long" in caplog.text
    assert SECRET not in caplog.text
    assert failed.endswith(f"the key is {MASK}")
    assert [event.note for event in agent.progress] == [f"{MASK} began"]
    assert SECRET not in repr(agent.servers.__dict__)


async def test_a_program_gets_no_more_of_our_environment_than_it_needs(servers: McpServers):
    agent = Agent(servers, "one_*")
    ours = "PYTEST_CURRENT_TEST"  # pytest sets it for as long as a program may be begun here
    assert ours in os.environ
    assert await agent.said("one_reveal", name=ours) == "nothing"
    assert await agent.said("one_reveal", name="PATH") == os.environ["PATH"]


async def test_secret_arguments_are_masked_where_a_tool_has_them(http_server: HttpServer, caplog):
    config = McpServerConfig(url=http_server.url, secrets=("token", "tokne"))
    async with closing(x=config) as servers:
        agent = Agent(servers, "x_*")
        said = await agent.said("x_echo", text="got ", token=SECRET)

    assert said == f"got {MASK}"
    (started,) = [event for event in agent.sink.events if isinstance(event, ToolCallStarted)]
    assert started.input == {"text": "got ", "token": MASK}
    assert "no tool of MCP server x has the secret argument 'tokne'" in caplog.text


# Dead servers


async def test_a_program_that_ends_in_a_call_is_a_clear_result_and_is_started_anew(
    servers: McpServers,
):
    async def ends_and_is_back(x: str) -> None:
        agent = Agent(servers, f"{x}_*")
        other = asyncio.create_task(agent.failed(f"{x}_wait", seconds=3600, name="meanwhile"))
        await until_it_began(agent, x, "meanwhile")
        for text in (await agent.failed(f"{x}_crash"), await other):
            assert f"the MCP server '{x}' was lost during the call" in text
            assert "whether it was carried out is not known" in text
        assert await agent.said(f"{x}_echo", text="again") == "again"

    await asyncio.gather(ends_and_is_back("one"), ends_and_is_back("two"))


async def test_a_program_killed_between_two_calls_is_started_anew(servers: McpServers):
    async def is_back(x: str) -> bool:
        result = await Agent(servers, f"{x}_*").call(f"{x}_echo", text="second")
        # It may be that nobody knew yet.
        assert result.text == "second" or "was lost during the call" in result.text
        return result.status == "success"

    for x in ("one", "two"):
        os.kill(int(await Agent(servers, f"{x}_*").said(f"{x}_process")), signal.SIGKILL)

    await asyncio.gather(*(until(partial(is_back, x)) for x in ("one", "two")))


async def test_a_server_that_goes_and_comes_back_is_found_again(http_server: HttpServer):
    modern = McpServerConfig(url=http_server.url)
    legacy = McpServerConfig(url=http_server.url, headers={"era": "legacy"})
    async with closing(x=modern, y=legacy, unaware=legacy) as servers:
        agent = Agent(servers, "x_*", "y_*")
        unaware = Agent(servers, "unaware_*")
        await asyncio.gather(
            agent.said("x_echo", text="first"),
            agent.said("y_echo", text="first"),
            unaware.said("unaware_echo", text="first"),
        )
        waiting = asyncio.create_task(agent.failed("x_wait", seconds=3600, name="until the end"))
        await until_it_began(agent, "x", "until the end")

        assert "was lost during the call" in await agent.failed("y_crash")
        assert "was lost during the call" in await waiting
        for x in "xy":
            reason = f"the MCP server '{x}' cannot be reached at its address"
            assert reason in await agent.failed(f"{x}_echo", text="second")
            assert f"Tools may be missing: {reason}." in agent.lines
        assert await agent.said("calc", expression="6*7") == "42"

        await http_server.begin()
        for x in "xy":
            assert await agent.said(f"{x}_echo", text="third") == "third"
        # Its session is one that the new server knows nothing of.
        assert await unaware.said("unaware_echo", text="second") == "second"


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (McpServerConfig(command="no-such-program"), "cannot be started: No such file"),
        (McpServerConfig(command=sys.executable, args=("-c", "")), "ended before it had answered"),
        (McpServerConfig(url="http://127.0.0.1:1/mcp"), "cannot be reached at its address"),
        (
            McpServerConfig(
                command=sys.executable,
                args=("-c", "import sys; sys.stdin.read()"),
                connect_timeout=0.3,
            ),
            "did not answer within 0.3 seconds",
        ),
    ],
)
async def test_a_server_that_is_dead_at_first_keeps_no_other_tool_from_running(
    config: McpServerConfig, why: str
):
    async with closing(x=config) as servers:
        agent = Agent(servers, "x_echo")

        assert await agent.said("calc", expression="6*7") == "42"
        (line,) = agent.lines
        assert line.startswith(f"Tools may be missing: the MCP server 'x' {why}")
        text = await agent.failed("x_echo", text="hello")
        assert text.startswith(f"x_echo cannot be called now: the MCP server 'x' {why}")


async def test_a_server_that_answers_http_but_not_mcp_says_how(http_server: HttpServer):
    config = McpServerConfig(url=http_server.url.replace("/mcp", "/nothing?key=123456789"))
    async with closing(x=config) as servers:
        agent = Agent(servers, "x_*")
        await agent.tools()

    assert agent.lines == ["Tools may be missing: the MCP server 'x' answered with HTTP 404."]


async def test_a_server_that_is_slow_to_fail_is_not_waited_for_by_every_prompt():
    config = McpServerConfig(
        command=sys.executable, args=("-c", "import sys; sys.stdin.read()"), connect_timeout=0.5
    )
    async with closing(x=config) as servers:
        agent = Agent(servers, "x_*")
        await agent.tools()
        async with asyncio.timeout(0.1):
            await agent.tools()

    assert len(agent.lines) == 2


# The end


async def test_who_gives_up_waiting_for_a_connection_ends_it_for_nobody_else(
    http_server: HttpServer,
):
    async with closing(x=McpServerConfig(url=http_server.url)) as servers:
        agent = Agent(servers, "x_*")
        impatient = asyncio.create_task(agent.tools())
        patient = asyncio.create_task(agent.tools())
        for _ in range(3):
            await asyncio.sleep(0)
        assert "mcp:x" in {task.get_name() for task in asyncio.all_tasks()}
        impatient.cancel()

        assert "x_echo" in (await patient).names
        assert impatient.cancelled()


async def test_nothing_is_left_when_all_is_closed():
    async with closing(x=on_streams()) as servers:
        agent = Agent(servers, "x_*")
        process = int(await agent.said("x_process"))
        call = asyncio.create_task(agent.failed("x_wait", seconds=3600, name="to the end"))
        await until_it_began(agent, "x", "to the end")
        assert is_running(process)

    assert not is_running(process)
    assert "was lost during the call" in await call
    assert [
        task for task in asyncio.all_tasks() if task.get_name() in ("mcp:x", "mcp-watch:x")
    ] == []
    assert "is being closed" in (await agent.tools()).unknown("x_nothing")
