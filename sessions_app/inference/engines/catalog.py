"""From a name to an engine: `demo`, `openai-chat:…`, `anthropic:…`, `google:…`, `local:smollm2`.

An app's own names stand beside these, see `EngineFactory`.

Importing this module and `check_spec` cost nothing. The first `build_engine` of a provider imports
its client library, the one of a local model loads it: do it at start, not while people wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from ..engine import Engine
from ..errors import ConfigurationError, unknown
from ..packages import installed
from . import local
from .demo import DemoEngine
from .wires import WIRES, Endpoint, Wire

EXAMPLES = (
    "demo, openai-chat:gpt-5-mini, anthropic:claude-sonnet-4-5, google:gemini-2.5-flash "
    "or local:smollm2"
)

SHIPPED = ("demo", "local", *WIRES)

EngineFactory: TypeAlias = Callable[[str], Engine]
"""Makes an app's own engine. It is given what follows the colon: for `parrot:green`, `green`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Keys and addresses of providers. The repr shows no key.

    An empty address means the provider's own service.
    """

    openai_api_key: str = field(default="", repr=False)
    openai_base_url: str = ""
    anthropic_api_key: str = field(default="", repr=False)
    anthropic_base_url: str = ""
    gemini_api_key: str = field(default="", repr=False)
    google_base_url: str = ""


def build_engine(
    spec: str, credentials: Credentials, own: Mapping[str, EngineFactory] | None = None
) -> Engine:
    """The engine that `spec` names, with the app's `own` ones by their names.

    Raises ConfigurationError as `check_spec` does.
    """
    match _named(spec, credentials, own or {}):
        case _Own(factory, model):
            return _made(factory, model, spec)
        case "demo":
            return DemoEngine()
        case "local":
            return local.LocalEngine()
        case endpoint:
            _require_packages(endpoint.wire)
            from .provider import ProviderEngine

            return ProviderEngine(endpoint)


def check_spec(
    spec: str, credentials: Credentials, own: Mapping[str, EngineFactory] | None = None
) -> None:
    """Raises ConfigurationError if `spec` cannot be built. Imports no library and calls nobody."""
    match _named(spec, credentials, own or {}):
        case "demo" | _Own():
            pass
        case "local":
            local.require_packages()
        case endpoint:
            _require_packages(endpoint.wire)


@dataclass(frozen=True, slots=True)
class _Own:
    factory: EngineFactory
    model: str


def _named(
    spec: str, credentials: Credentials, own: Mapping[str, EngineFactory]
) -> Literal["demo", "local"] | Endpoint | _Own:
    """What `spec` stands for: one of ours, an app's own, or a model behind an API."""
    scheme, colon, model = spec.strip().partition(":")
    if scheme in own:
        return _Own(own[scheme], model)
    if scheme == "demo":
        if colon:
            raise ConfigurationError(
                f"the demo model takes no name, got {spec!r}", hint="Set WEBCHAT_MODEL to demo."
            )
        return "demo"
    if scheme == "local":
        if model.strip() != local.NAME:
            raise ConfigurationError(
                unknown("local model", model.strip(), (local.NAME,)),
                hint="Run other models in Ollama, vLLM or llama.cpp, set OPENAI_BASE_URL to their "
                "address (for Ollama http://127.0.0.1:11434/v1) and WEBCHAT_MODEL to "
                "openai-chat:<model>.",
            )
        return "local"
    wire = WIRES.get(scheme)
    if wire is None:
        raise ConfigurationError(
            unknown("model scheme", scheme, (*SHIPPED, *own)),
            hint=f"Set WEBCHAT_MODEL to one of these forms: {EXAMPLES}.",
        )
    if not model.strip():
        raise ConfigurationError(
            f"{spec!r} names no model",
            hint=f"Write the model's name after the colon: {wire.name}:<model>.",
        )
    api_key, given_url = (text.strip() for text in _access(wire, credentials))
    endpoint = Endpoint(
        wire=wire,
        model=model.strip(),
        base_url=_checked_url(given_url, wire) if given_url else wire.base_url,
        api_key=api_key,
    )
    if not api_key and not (wire.name == "openai-chat" and not endpoint.is_own):
        raise ConfigurationError(
            f"{endpoint.name!r} needs a key, and {wire.key_variable} is not set",
            hint=_key_hint(wire),
        )
    if not all("!" <= character <= "~" for character in api_key):
        raise ConfigurationError(
            f"{wire.key_variable} has a space or a letter in it that no key has",
            hint=f"Copy the key again, without quotes or line breaks, into {wire.key_variable}.",
        )
    return endpoint


def _made(factory: EngineFactory, model: str, spec: str) -> Engine:
    engine = factory(model)
    if not isinstance(getattr(engine, "model", None), str) or not callable(
        getattr(engine, "infer", None)
    ):
        raise ConfigurationError(
            f"what was made for the model {spec!r} is no engine but a {type(engine).__name__}",
            hint="An engine has a text `model` and `async infer(turn)`; see docs/engines.md.",
        )
    return engine


def _access(wire: Wire, credentials: Credentials) -> tuple[str, str]:
    """The key and the address for `wire`, either of them perhaps empty."""
    match wire.name:
        case "openai-chat":
            return credentials.openai_api_key, credentials.openai_base_url
        case "anthropic":
            return credentials.anthropic_api_key, credentials.anthropic_base_url
        case "google":
            return credentials.gemini_api_key, credentials.google_base_url


def _key_hint(wire: Wire) -> str:
    hint = f"Set {wire.key_variable}."
    if wire.name == "openai-chat":
        hint += f" A compatible service of your own may need none: set {wire.url_variable} to it."
    return hint


def _checked_url(url: str, wire: Wire) -> str:
    """`url`, if requests can go there. No error repeats it: people paste keys into it."""
    try:
        parts = urlsplit(url)
        reachable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        parts, reachable = urlsplit(""), False
    if not reachable:
        raise ConfigurationError(
            f"{wire.url_variable} is not the address of a service",
            hint=f"Write scheme and host, as in http://127.0.0.1:11434/v1 or {wire.base_url}.",
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{wire.url_variable} carries more than an address",
            hint="Leave out user, password, query and fragment. "
            f"A key belongs in {wire.key_variable}.",
        )
    return url


def _require_packages(wire: Wire) -> None:
    for package in ("pydantic_ai", wire.package):
        if not installed(package):
            raise ConfigurationError(
                f"{wire.name} models need the package {package}, which is not installed",
                hint="Install the locked requirements: pip install -r requirements.txt.",
            )
