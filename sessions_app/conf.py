"""The session side's keys of settings.WEBCHAT; read here and nowhere else."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec
from django.conf import settings as django_settings
from django.utils.module_loading import import_string

from .builder import ProfileEngineBuilder
from .inference.engine import Engine
from .inference.engines.catalog import SHIPPED, Credentials, EngineFactory, build_engine
from .inference.errors import ConfigurationError
from .inference.executor import ToolExecutor
from .inference.mcp import McpServerConfig, McpServers
from .inference.middleware import default_registry
from .inference.toolloop import LoopConfig
from .inference.tools import Tool, ToolRegistry
from .manager import ManagerLimits
from .profiles import Profile
from .secrets import secrets_in
from .store import TurnPersister, TurnStore, unpersisted
from .users import load_user

DEFAULT_TOOLS = (
    "sessions_app.inference.shipped_tools.calc",
    "sessions_app.inference.shipped_tools.current_time",
    "sessions_app.django_tools.my_account",
    "sessions_app.inference.demo_tools.demo_send_note",
    "sessions_app.inference.demo_tools.demo_task",
)
"""Dotted names of what WEBCHAT['TOOLS'] registers when it is not given."""

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """Every key has a default but the profiles' list, which must name at least one."""

    profiles: Annotated[tuple[Profile, ...], msgspec.Meta(min_length=1)]
    model: str = "demo"
    engines: dict[str, str] = {}
    openai_base_url: str = ""
    openai_api_key: str = ""
    anthropic_api_key: str = ""
    gemini_api_key: str = ""
    inference_timeout: Seconds = 600.0
    cancel_grace: Seconds = 5.0
    step_timeout: Seconds = 30.0
    approval_timeout: Seconds = 300.0
    tools: tuple[str, ...] = DEFAULT_TOOLS
    mcp_servers: dict[str, McpServerConfig] = {}
    tool_executor: str = "sessions_app.permissions.PermissionToolExecutor"
    turn_store: str = ""
    turn_persister: str = ""
    queue_limit: Annotated[int, msgspec.Meta(ge=1)] = 16
    live_sessions: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    evict_idle: Seconds = 300.0
    evict_every: Seconds = 60.0
    conversation_ttl: Seconds = 24 * 3600.0
    memory_budget: Annotated[int, msgspec.Meta(ge=1)] = 512 * 1024 * 1024
    idempotency_ttl: Seconds = 24 * 3600.0
    tracing: bool = False
    tracing_content: bool = False

    def credentials(self) -> Credentials:
        return Credentials(
            openai_base_url=self.openai_base_url,
            openai_api_key=self.openai_api_key,
            anthropic_api_key=self.anthropic_api_key,
            gemini_api_key=self.gemini_api_key,
        )

    def limits(self) -> ManagerLimits:
        return ManagerLimits(
            queue=self.queue_limit,
            live_sessions=self.live_sessions,
            idempotency_seconds=self.idempotency_ttl,
            evict_idle_seconds=self.evict_idle,
            evict_every_seconds=self.evict_every,
            conversation_ttl_seconds=self.conversation_ttl,
            memory_bytes=self.memory_budget,
        )

    def resolved_profiles(self) -> tuple[Profile, ...]:
        """The profiles, each with the model it will really use."""
        return tuple(
            msgspec.structs.replace(profile, model=profile.model or self.model)
            for profile in self.profiles
        )

    def load_engines(self) -> Mapping[str, EngineFactory]:
        """The app's own engines of WEBCHAT['ENGINES']. Raises ConfigurationError."""
        for name in self.engines:
            if name in SHIPPED or not name or ":" in name:
                raise ConfigurationError(
                    f"WEBCHAT['ENGINES'] has the name {name!r}",
                    hint=f"Choose a name without a colon, other than {', '.join(SHIPPED)}.",
                )
        return {
            name: _load_callable(
                dotted, key="ENGINES", hint="Name a class or function that makes an engine."
            )
            for name, dotted in self.engines.items()
        }

    def load_tools(self) -> ToolRegistry:
        """The tools of WEBCHAT['TOOLS']. Raises ConfigurationError with what was wrong."""
        registry = ToolRegistry()
        for name in self.tools:
            found = _load(name, key="TOOLS")
            if not isinstance(found, Tool):
                raise ConfigurationError(
                    f"WEBCHAT['TOOLS'] names {name!r}, which is a {type(found).__name__}",
                    hint="Name a function decorated with @tool, or a Tool.",
                )
            registry.add(found)
        return registry

    def load_executor(self) -> ToolExecutor:
        """An instance of WEBCHAT['TOOL_EXECUTOR']."""
        executor: ToolExecutor = _made(
            self.tool_executor, key="TOOL_EXECUTOR", verbs=("prepare", "execute")
        )
        return executor

    def load_turn_store(self) -> TurnStore | None:
        """An instance of WEBCHAT['TURN_STORE'], if it names one."""
        if not self.turn_store:
            return None
        store: TurnStore = _made(self.turn_store, key="TURN_STORE", verbs=("load", "transfer"))
        return store

    def load_turn_persister(self) -> TurnPersister:
        """What WEBCHAT['TURN_PERSISTER'] names, or one that keeps nothing."""
        if not self.turn_persister:
            return unpersisted
        hint = "Name a function: async def persist(conversation: StoredConversation) -> None."
        persister: TurnPersister = _load_callable(
            self.turn_persister, key="TURN_PERSISTER", hint=hint
        )
        if not inspect.iscoroutinefunction(persister):
            raise ConfigurationError(
                f"WEBCHAT['TURN_PERSISTER'] names {self.turn_persister!r}, which is not async",
                hint=hint,
            )
        return persister


def session_builder(
    settings: SessionSettings, *, engine: Engine | None = None, tools: Iterable[Tool] = ()
) -> ProfileEngineBuilder:
    """The builder the settings describe. Raises ConfigurationError.

    For tests: `engine` answers in the place of every model, and each of `tools` takes the place of
    the one of its name.
    """
    own = settings.load_engines()

    def engine_of(model: str) -> Engine:
        return engine or build_engine(model, settings.credentials(), own)

    return ProfileEngineBuilder(
        engine_of,
        tools=settings.load_tools().replaced(tools),
        mcp=McpServers(settings.mcp_servers),
        middlewares=default_registry,
        executor=settings.load_executor(),
        load_user=load_user,
        loop=LoopConfig(
            step_timeout=settings.step_timeout, approval_timeout=settings.approval_timeout
        ),
        hidden=secrets_in([{"SECRET_KEY": django_settings.SECRET_KEY}, given()]),
        inference_timeout=settings.inference_timeout,
        cancel_grace=settings.cancel_grace,
    )


def _load(name: str, *, key: str) -> Any:
    """What a dotted name in the settings stands for."""
    try:
        return import_string(name)
    except ImportError as error:
        raise ConfigurationError(
            f"WEBCHAT[{key!r}] names {name!r}, which cannot be imported: {error}",
            hint="Write the dotted name of something importable, as in myapp.tools.lookup.",
        ) from None


def _load_callable(name: str, *, key: str, hint: str) -> Any:
    """What a dotted name stands for, if that can be called."""
    found = _load(name, key=key)
    if not callable(found):
        raise ConfigurationError(
            f"WEBCHAT[{key!r}] names {name!r}, which is a {type(found).__name__}", hint=hint
        )
    return found


def _made(name: str, *, key: str, verbs: tuple[str, ...]) -> Any:
    """An instance of the class that a dotted name stands for, which must have the verbs."""
    hint = f"Name a class that takes no arguments and has {' and '.join(verbs)}."
    make = _load_callable(name, key=key, hint=hint)
    try:
        made = make()
    except TypeError as error:
        raise ConfigurationError(
            f"WEBCHAT[{key!r}] names {name!r}, which cannot be made: {error}", hint=hint
        ) from error
    for verb in verbs:
        if not callable(getattr(made, verb, None)):
            raise ConfigurationError(
                f"WEBCHAT[{key!r}] names {name!r}, which has no {verb}", hint=hint
            )
    return made


def given() -> Mapping[str, Any]:
    """settings.WEBCHAT as it was written; empty where it is missing."""
    written: Mapping[str, Any] = getattr(django_settings, "WEBCHAT", {})
    return written


def session_settings() -> SessionSettings:
    """The settings as they are now. Raises msgspec.ValidationError; the checks say it better."""
    known = {field.encode_name for field in msgspec.structs.fields(SessionSettings)}
    mine = {key: value for key, value in given().items() if key in known}
    return msgspec.convert(mine, SessionSettings)
