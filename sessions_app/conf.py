"""The session side's keys of settings.WEBCHAT; read here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from django.conf import settings as django_settings

from .inference.engines.catalog import Credentials
from .profiles import Profile

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """Every key has a default but the profiles' list, which must name at least one."""

    profiles: Annotated[tuple[Profile, ...], msgspec.Meta(min_length=1)]
    model: str = "demo"
    openai_base_url: str = ""
    openai_api_key: str = ""
    anthropic_api_key: str = ""
    gemini_api_key: str = ""
    inference_timeout: Seconds = 600.0
    cancel_grace: Seconds = 5.0

    def credentials(self) -> Credentials:
        return Credentials(
            openai_base_url=self.openai_base_url,
            openai_api_key=self.openai_api_key,
            anthropic_api_key=self.anthropic_api_key,
            gemini_api_key=self.gemini_api_key,
        )

    def resolved_profiles(self) -> tuple[Profile, ...]:
        """The profiles, each with the model it will really use."""
        return tuple(
            msgspec.structs.replace(profile, model=profile.model or self.model)
            for profile in self.profiles
        )


def given() -> Mapping[str, Any]:
    """settings.WEBCHAT as it was written; empty where it is missing."""
    written: Mapping[str, Any] = getattr(django_settings, "WEBCHAT", {})
    return written


def session_settings() -> SessionSettings:
    """The settings as they are now. Raises msgspec.ValidationError; the checks say it better."""
    known = {field.encode_name for field in msgspec.structs.fields(SessionSettings)}
    mine = {key: value for key, value in given().items() if key in known}
    return msgspec.convert(mine, SessionSettings)
