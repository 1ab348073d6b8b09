"""Profiles: the named runtimes of WEBCHAT['PROFILES']."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import msgspec

from .inference.errors import ProfileNotFound, unknown
from .values import ProfileInfo


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named runtime. `model` is what WEBCHAT_MODEL takes; empty means that one."""

    slug: str
    title: str = ""
    model: str = ""
    system_prompt: str = ""

    @property
    def fingerprint(self) -> str:
        """Names exactly this runtime: equal for equal profiles, in every process. No secret."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]


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

    def infos(self) -> tuple[ProfileInfo, ...]:
        return tuple(
            ProfileInfo(
                slug=profile.slug,
                title=profile.title or profile.slug,
                default_prompt=profile.system_prompt,
                model=profile.model,
                tools=(),
                default=profile is self.default,
            )
            for profile in self
        )
