"""Middlewares by name: what a profile lists, checked before anybody depends on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec

from ..engine import Middleware
from ..errors import ConfigurationError, unknown
from ..events import check_app_kind
from .agent_mode import AgentModes, agent_mode
from .ordering import block_ordering
from .structured import structured_output
from .system_prompt import system_prompt
from .timing import timing

ConfigT = TypeVar("ConfigT", bound=msgspec.Struct)


class MiddlewareSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of a profile's list. Without an `id` its name is the instance's id."""

    name: str
    id: str = ""
    config: dict[str, Any] = {}

    @property
    def instance_id(self) -> str:
        return self.id or self.name


@dataclass(frozen=True, slots=True)
class _Entry:
    config_type: type[msgspec.Struct]
    factory: Callable[[Any], Middleware]  # takes what `config_type` describes: see `register`
    after: frozenset[str]


class MiddlewareRegistry:
    """Factories by name, each with the type of its configuration."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def register(
        self, name: str, config_type: type[ConfigT], *, after: Sequence[str] = ()
    ) -> Callable[[Callable[[ConfigT], Middleware]], Callable[[ConfigT], Middleware]]:
        """Makes `name` stand for the decorated factory.

        The factory is given the configuration as a `config_type`, and may raise ConfigurationError.
        `after` names middlewares that undo this one's work when they are listed after it.
        """
        if name in self._entries:
            raise ConfigurationError(
                f"two middlewares are named {name!r}", hint="Give each one a name of its own."
            )

        def add(factory: Callable[[ConfigT], Middleware]) -> Callable[[ConfigT], Middleware]:
            self._entries[name] = _Entry(config_type, factory, frozenset(after))
            return factory

        return add

    def build(self, specs: Sequence[MiddlewareSpec], where: str) -> tuple[Middleware, ...]:
        """The listed middlewares in their order. `where` says whose list it is, in errors.

        Raises ConfigurationError for an unknown name, a wrong configuration, an id that is there
        twice, and an order in which one would undo the other.
        """
        built: list[Middleware] = []
        positions: dict[str, int] = {}
        for position, spec in enumerate(specs):
            here = f"{where}, middlewares[{position}] ({spec.instance_id[:80]!r})"
            entry = self._entries.get(spec.name)
            if entry is None:
                raise ConfigurationError(
                    f"{here}: {unknown('middleware', spec.name[:80], self._entries)}",
                    hint="Correct the name, or register the middleware before profiles are built.",
                )
            if spec.instance_id in positions:
                raise ConfigurationError(
                    f"{here}: the id is taken by middlewares[{positions[spec.instance_id]}]",
                    hint="Leave one of them out, or give each an `id` of its own.",
                )
            positions[spec.instance_id] = position
            for later in specs[position + 1 :]:
                if later.name in entry.after:
                    raise ConfigurationError(
                        f"{here}: {later.name!r} is listed after it and would undo its work",
                        hint=f"List {spec.name!r} after {later.name!r}.",
                    )
            try:
                built.append(entry.factory(_config(spec, entry)))
            except ConfigurationError as error:
                raise ConfigurationError(f"{here}: {error}", hint=error.hint) from None
        return tuple(built)


def _config(spec: MiddlewareSpec, entry: _Entry) -> msgspec.Struct:
    """The spec's configuration as its factory takes it. Raises ConfigurationError."""
    keys = [field.encode_name for field in msgspec.structs.fields(entry.config_type)]
    expects = f"{spec.name!r} is configured with: {', '.join(keys) or '(nothing)'}."
    for key in spec.config:
        if key not in keys:
            raise ConfigurationError(unknown("config key", key[:80], keys), hint=expects)
    try:
        return msgspec.convert(spec.config, entry.config_type)
    except msgspec.ValidationError as error:
        said, _, path = str(error).partition(" - at `$.")
        key = f"config.{path.rstrip('`')}" if path else "config"
        raise ConfigurationError(f"{key}: {said}", hint=expects) from None


default_registry = MiddlewareRegistry()
"""The shipped middlewares. An app adds its own before profiles are built, in `AppConfig.ready`."""


class SystemPromptConfig(msgspec.Struct, frozen=True, kw_only=True):
    text: str


class BlockOrderingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing to choose."""


class LoggingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`model` is what the lines call the model."""

    model: str = ""


class AgentModeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`modes` are prompts by mode; a conversation starts in `default`."""

    modes: dict[str, str]
    default: str


class StructuredOutputConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Each tag is also the kind of the AppEvent that brings its values to the page."""

    tags: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


@default_registry.register("system-prompt", SystemPromptConfig)
def _system_prompt(config: SystemPromptConfig) -> Middleware:
    return system_prompt(config.text)


@default_registry.register("block-ordering", BlockOrderingConfig)
def _block_ordering(config: BlockOrderingConfig) -> Middleware:
    return block_ordering()


@default_registry.register("logging", LoggingConfig)
def _logging(config: LoggingConfig) -> Middleware:
    return timing(config.model)


@default_registry.register("agent-mode", AgentModeConfig, after=("system-prompt",))
def _agent_mode(config: AgentModeConfig) -> Middleware:
    return agent_mode(AgentModes(config.modes, config.default))


@default_registry.register("structured-output", StructuredOutputConfig)
def _structured_output(config: StructuredOutputConfig) -> Middleware:
    middleware = structured_output(config.tags)
    for tag in config.tags:
        check_app_kind(tag)
    return middleware
