"""Profiles: the named runtimes of WEBCHAT['PROFILES']."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal

import msgspec

from .inference.errors import BadOverride, OverridesNotAllowed, ProfileNotFound, unknown
from .inference.middleware.registry import MiddlewareSpec
from .inference.tools import ToolChoice, allows
from .values import ProfileInfo, RuntimeInfo


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """A named runtime. `model` is what WEBCHAT_MODEL takes; empty means that one."""

    slug: str
    title: str = ""
    model: str = ""
    system_prompt: str = ""
    middlewares: tuple[MiddlewareSpec, ...] = ()
    tools: tuple[str, ...] = ()
    tool_choice: ToolChoice = "auto"
    max_iterations: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5
    step_mode: bool = False
    approval: Literal["declared", "always"] = "declared"
    allow_overrides: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """Names exactly this runtime: equal for equal profiles, in every process. No secret."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]

    def info(self) -> RuntimeInfo:
        """What an operator is shown of it."""
        return RuntimeInfo(
            profile=self.slug,
            title=self.title or self.slug,
            model=self.model,
            fingerprint=self.fingerprint,
            middlewares=tuple(spec.instance_id for spec in self.middlewares),
            tools=self.tools,
            tool_choice=self.tool_choice,
            max_iterations=self.max_iterations,
            approval=self.approval,
            allow_overrides=self.allow_overrides,
        )


class Overrides(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a prompt may change of a profile that allows it. None leaves it."""

    system_prompt: str | None = None
    middlewares: tuple[MiddlewareSpec, ...] | None = None
    tools: tuple[str, ...] | None = None
    step_mode: bool | None = None


def overridden(profile: Profile, given: Mapping[str, object]) -> tuple[Profile, bool | None]:
    """The profile with the overrides in it, and the step mode they ask for.

    Raises OverridesNotAllowed, and BadOverride with what was got and expected. Tools can only be
    taken away: the profile's are its allow list.
    """
    if not profile.allow_overrides:
        raise OverridesNotAllowed(f"profile {profile.slug!r} takes no overrides; leave them out")
    try:
        overrides = msgspec.convert(dict(given), Overrides)
    except msgspec.ValidationError as error:
        raise BadOverride(f"overrides: {error}") from None
    for name in overrides.tools or ():
        if not allows(profile.tools, name):
            raise BadOverride(unknown("tool", name[:80], profile.tools))
    changes = {
        name: value
        for name in ("system_prompt", "middlewares", "tools")
        if (value := getattr(overrides, name)) is not None
    }
    return msgspec.structs.replace(profile, **changes), overrides.step_mode


class Profiles:
    """The configured profiles in their order; the first is the default."""

    def __init__(self, profiles: Sequence[Profile]) -> None:
        self._by_slug = {profile.slug: profile for profile in profiles}
        self.default = profiles[0]

    def __iter__(self) -> Iterator[Profile]:
        return iter(self._by_slug.values())

    def get(self, slug: str | None) -> Profile:
        """The profile of that name, the default for None; raises ProfileNotFound."""
        if slug is None:
            return self.default
        try:
            return self._by_slug[slug]
        except KeyError:
            raise ProfileNotFound(unknown("profile", slug[:80], self._by_slug)) from None

    def get_or_default(self, slug: str) -> Profile:
        """The profile a stored conversation had, or the default if that is no longer configured."""
        return self._by_slug.get(slug, self.default)

    def infos(self) -> tuple[ProfileInfo, ...]:
        return tuple(
            ProfileInfo(
                slug=profile.slug,
                title=profile.title or profile.slug,
                default_prompt=profile.system_prompt,
                model=profile.model,
                tools=profile.tools,
                default=profile is self.default,
            )
            for profile in self
        )
