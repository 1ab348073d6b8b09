"""From a session's runtime to the runner of its inferences."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from .inference.engine import Closing, Engine
from .inference.executor import LoadUser, ToolExecutor
from .inference.mcp import McpServers
from .inference.middleware import MiddlewareRegistry, block_ordering, system_prompt
from .inference.runner import InferenceRunner, nobody
from .inference.toolloop import LoopConfig, ToolLoop
from .inference.tools import ToolRegistry, ToolSource
from .profiles import Profile
from .session import Session


class ProfileEngineBuilder:
    """Builds runners from profiles. Engines of the same model are shared: they keep no state.

    `build_engine` makes the engine of a model's name, and may raise ConfigurationError.
    """

    def __init__(
        self,
        build_engine: Callable[[str], Engine],
        *,
        tools: ToolRegistry,
        mcp: McpServers | None = None,
        middlewares: MiddlewareRegistry,
        executor: ToolExecutor,
        load_user: LoadUser = nobody,
        loop: LoopConfig | None = None,
        hidden: Collection[str] = (),
        inference_timeout: float,
        cancel_grace: float,
    ) -> None:
        self._build_engine = build_engine
        self._tools = tools
        self._mcp = mcp or McpServers()
        self._middlewares = middlewares
        self._executor = executor
        self._load_user = load_user
        self._loop = loop or LoopConfig()
        self._hidden = hidden
        self._timeout = inference_timeout
        self._grace = cancel_grace
        self._engines: dict[str, Engine] = {}

    @property
    def tools(self) -> ToolRegistry:
        """Every tool a profile may allow; of those of servers, which must be asked, the secrets."""
        return ToolRegistry(self._tools, missing=self._mcp.unlisted())

    def prepare(self, model: str) -> None:
        """Builds the model's engine now: a provider's library takes seconds to import."""
        self._engine(model)
        self._mcp.prepare()

    def check(self, profile: Profile) -> None:
        """Raises ConfigurationError that says where the profile is wrong."""
        self._tools_of(profile)
        self._middlewares.build(profile.middlewares, where=f"profile {profile.slug!r}")

    def build(self, session: Session) -> InferenceRunner:
        profile = session.runtime
        loop = ToolLoop(
            self._executor,
            session.steps,
            config=replace(
                self._loop,
                max_iterations=profile.max_iterations,
                tool_choice=profile.tool_choice,
            ),
        )
        named = self._middlewares.build(profile.middlewares, where=f"profile {profile.slug!r}")
        return InferenceRunner(
            self._engine(profile.model),
            middlewares=[system_prompt(profile.system_prompt), *named, block_ordering()],
            loop=loop,
            tools=self._tools_of(profile),
            known=self.tools,
            load_user=self._load_user,
            hidden=self._hidden,
            timeout=self._timeout,
            cancel_grace=self._grace,
        )

    async def aclose(self) -> None:
        """Closes the connections to services and servers. No inference may be running."""
        await self._mcp.aclose()
        for engine in self._engines.values():
            if isinstance(engine, Closing):
                await engine.aclose()

    def _tools_of(self, profile: Profile) -> ToolSource:
        """The profile's allow list; with the approval policy `always`, every call needs one."""
        allowed = self._mcp.allowed(self._tools, profile.tools)
        return allowed if profile.approval == "declared" else _AlwaysAsking(allowed)

    def _engine(self, model: str) -> Engine:
        engine = self._engines.get(model)
        if engine is None:
            engine = self._engines[model] = self._build_engine(model)
        return engine


@dataclass(frozen=True, slots=True)
class _AlwaysAsking:
    """A source's tools, each call to which a person must agree to."""

    source: ToolSource

    async def current(self) -> ToolRegistry:
        return (await self.source.current()).with_approval()
