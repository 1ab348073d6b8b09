"""Tools: what a model may ask to be done, and how an app declares it."""

from __future__ import annotations

import dataclasses
import inspect
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, get_type_hints, overload

import msgspec

from .errors import ConfigurationError, unknown
from .events import ToolProgress, publish

Arguments: TypeAlias = Mapping[str, Any]
ErrorPolicy: TypeAlias = Literal["continue", "abort", "retry"]
NeedsApproval: TypeAlias = bool | Callable[[Arguments], bool]
ToolChoice: TypeAlias = Literal["auto", "none", "required"]
MASK = "•••"
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What a tool may know of the call it serves.

    `user` is whatever the app's user loader gave for `owner`; None for a visitor.
    `idempotency_key` is the same for every attempt at this call. `cancel` is set once nobody waits
    for this attempt any more, as its time is up or the inference was stopped: the function in a
    thread that looks at it, or sleeps by `cancel.wait(seconds)`, gives its thread back.
    """

    session_id: str
    inference_id: str
    call_id: str
    owner: str
    user: object | None = None
    report: Callable[[ToolProgress], None] = publish
    cancel: threading.Event = field(default_factory=threading.Event, compare=False)

    @property
    def idempotency_key(self) -> str:
        return f"{self.inference_id}:{self.call_id}"

    def progress(self, fraction: float | None = None, note: str = "") -> None:
        """Tells the people watching how far the call is: 0 to 1, and a short note.

        Never waits; may be called from the thread of a sync tool.
        """
        self.report(ToolProgress(call_id=self.call_id, progress=fraction, note=note))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function a model may call. `parameters` is the JSON Schema of its arguments' object.

    `secrets` names arguments that no frame, log or snapshot may show. `timeout` is in seconds, for
    one attempt. `permission` is what an authorising executor asks of the user; an approval needs
    `approval_permission` of who decides.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    call: Callable[[Arguments, ToolContext], object]
    is_async: bool = True
    timeout: float = 30.0
    on_error: ErrorPolicy = "continue"
    attempts: int = 3
    secrets: frozenset[str] = frozenset()
    requires_approval: NeedsApproval = False
    approval_permission: str | None = None
    permission: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"tool name {self.name!r} is not one that providers take",
                hint="Use 1 to 64 of A-Z a-z 0-9 _ -.",
            )
        # A misspelt secret would be shown.
        arguments = self.parameters.get("properties", {})
        for name in self.secrets:
            if name not in arguments:
                raise ConfigurationError(
                    f"tool {self.name!r}: {unknown('secret argument', name, arguments)}",
                    hint="Name arguments of the tool in `secrets`.",
                )

    def needs_approval(self, arguments: Arguments) -> bool:
        """Whether a person must agree to this call. A predicate that raises means yes."""
        if not callable(self.requires_approval):
            return self.requires_approval
        try:
            return bool(self.requires_approval(arguments))
        except Exception:  # noqa: BLE001 - an app's predicate; when in doubt, ask
            return True

    def masked(self, arguments: Arguments) -> dict[str, Any]:
        """The arguments as they may be shown."""
        return _masked(arguments, self.secrets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Tools that are not here: all whose names have this beginning.

    `why` is the end of a sentence. The arguments in `secrets` are masked all the same.
    """

    beginning: str
    why: str
    secrets: frozenset[str] = frozenset()


class ToolSource(Protocol):
    """Where an inference gets its tools from, when it begins."""

    async def current(self) -> ToolRegistry:
        """The tools as they are now. Called inside an inference, so it may publish."""


class ToolRegistry:
    """Tools by name. The registry handed to a run is its allow list."""

    def __init__(self, tools: Iterable[Tool] = (), *, missing: Iterable[Missing] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        self._missing = tuple(missing)
        for tool in tools:
            self.add(tool)

    async def current(self) -> ToolRegistry:
        """Itself: a registry is a ToolSource that does not change."""
        return self

    def add(self, tool: Tool) -> None:
        if tool.name in self._tools:
            raise ConfigurationError(
                f"two tools are named {tool.name!r}", hint="Give each tool a name of its own."
            )
        self._tools[tool.name] = tool

    def get(self, name: str) -> Tool | None:
        return self._tools.get(name)

    def unknown(self, name: str) -> str:
        """One sentence for a call to a tool that is not here."""
        missing = self._missing_of(name)
        if missing is not None:
            return f"{name} cannot be called now: {missing.why}"
        return unknown("tool", name, self._tools)

    def knows(self, name: str) -> bool:
        """Whether the tool is here, or is known to be missing."""
        return name in self._tools or self._missing_of(name) is not None

    def shown(self, name: str, arguments: dict[str, Any] | str) -> dict[str, Any] | str:
        """What a model gave for the arguments of `name`, as it may be shown.

        A model that makes a name up may mean any tool: then what any of them keeps secret is.
        """
        known = self._tools.get(name) or self._missing_of(name)
        secrets = frozenset[str]().union(
            *(each.secrets for each in ([known] if known else [*self, *self._missing]))
        )
        if isinstance(arguments, dict):
            return _masked(arguments, secrets)
        return MASK if secrets else arguments

    def with_approval(self) -> ToolRegistry:
        """The same tools, each call to which a person must agree to."""
        asking = (dataclasses.replace(tool, requires_approval=True) for tool in self)
        return ToolRegistry(asking, missing=self._missing)

    def only(self, names: Iterable[str]) -> ToolRegistry:
        """The registry reduced to `names`. Raises ConfigurationError for an unknown one."""
        chosen = []
        for name in names:
            tool = self._tools.get(name)
            if tool is None:
                raise ConfigurationError(
                    unknown("tool", name, self._tools), hint="Register the tool, or leave it out."
                )
            chosen.append(tool)
        return ToolRegistry(chosen)

    def replaced(self, tools: Iterable[Tool]) -> ToolRegistry:
        """The registry with `tools` in the places of those of their names.

        Raises ConfigurationError for a name it does not have.
        """
        instead = {tool.name: tool for tool in tools}
        self.only(instead)
        return ToolRegistry(instead.get(tool.name, tool) for tool in self)

    def _missing_of(self, name: str) -> Missing | None:
        return next((each for each in self._missing if name.startswith(each.beginning)), None)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tools)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)


def _masked(arguments: Arguments, secrets: frozenset[str]) -> dict[str, Any]:
    return {name: MASK if name in secrets else value for name, value in arguments.items()}


def allows(allowed: Iterable[str], name: str) -> bool:
    """Whether an allow list has `name`. An entry `prefix_*` has every name that begins so."""
    return any(
        entry == name or (entry.endswith("_*") and name.startswith(entry[:-1])) for entry in allowed
    )


@dataclass(frozen=True, slots=True)
class Offer:
    """The tools a model call may use, and whether it must."""

    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = "auto"


NO_TOOLS = Offer()
_offer: ContextVar[Offer] = ContextVar("webchat_tool_offer", default=NO_TOOLS)


def offered() -> Offer:
    """What an engine shall offer its model in the running call."""
    return _offer.get()


@contextmanager
def offering(tools: Iterable[Tool], choice: ToolChoice) -> Iterator[None]:
    """Within the block, engines offer these tools; with the choice `none`, no tool."""
    token = _offer.set(Offer(() if choice == "none" else tuple(tools), choice))
    try:
        yield
    finally:
        _offer.reset(token)


@overload
def tool(function: Callable[..., object]) -> Tool: ...
@overload
def tool(**options: Any) -> Callable[[Callable[..., object]], Tool]: ...
def tool(function: Callable[..., object] | None = None, **options: Any) -> Any:
    """Makes a Tool of a function, sync or async.

    Type hints become the JSON Schema, the docstring's first paragraph the description. A parameter
    annotated `ToolContext` receives the call's context and is no argument of the model. Options are
    the fields of Tool. A sync function runs in a thread.
    """

    def declare(function: Callable[..., object]) -> Tool:
        return _declare(function, options)

    return declare if function is None else declare(function)


def _declare(function: Callable[..., object], options: dict[str, Any]) -> Tool:
    where = f"tool {function.__name__!r}"
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            f"{where} has an annotation that cannot be evaluated: {error}",
            hint="Import the type at module level, outside of TYPE_CHECKING.",
        ) from None
    fields: list[Any] = []
    context_name = None
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints.get(name)
        if kind is None or parameter.kind not in _BY_NAME:
            raise ConfigurationError(
                f"parameter {name!r} of {where} "
                + ("has no type" if kind is None else "cannot be given by name"),
                hint="Annotate every parameter, and use no *args, **kwargs or positional-only /.",
            )
        if kind is ToolContext:
            context_name = name
            continue
        has_default = parameter.default is not parameter.empty
        fields.append((name, kind, parameter.default) if has_default else (name, kind))
    try:
        struct = msgspec.defstruct(
            f"{function.__name__}_arguments", fields, kw_only=True, forbid_unknown_fields=True
        )
        schema = _schema(struct)
    except TypeError as error:
        raise ConfigurationError(
            f"the arguments of {where} have no JSON Schema: {error}",
            hint="Use JSON types, dataclasses or msgspec structs; None in place of a list default.",
        ) from None
    names = [entry[0] for entry in fields]

    def call(arguments: Arguments, context: ToolContext) -> object:
        typed = _typed(arguments, struct)
        values = {name: getattr(typed, name) for name in names}
        if context_name is not None:
            values[context_name] = context
        return function(**values)

    described = inspect.getdoc(function) or ""
    declared: dict[str, Any] = {
        "name": function.__name__,
        "description": " ".join(described.split("\n\n")[0].split()),
        "parameters": schema,
        "call": call,
        "is_async": inspect.iscoroutinefunction(function),
    }
    return Tool(**{**declared, **options})


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _typed(arguments: Arguments, struct: type[msgspec.Struct]) -> msgspec.Struct:
    """The arguments as the function takes them. Raises msgspec.ValidationError."""
    try:
        return msgspec.convert(arguments, struct)
    except msgspec.ValidationError:
        # For JSON Schema 3.0 is an integer, and models write it.
        return msgspec.convert(arguments, struct, strict=False)


def _schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The struct's JSON Schema, whole in one object."""
    (reference,), components = msgspec.json.schema_components([struct])
    schema: dict[str, Any] = components.pop(reference["$ref"].removeprefix("#/$defs/"))
    schema.pop("title", None)
    return schema | {"$defs": components} if components else schema
