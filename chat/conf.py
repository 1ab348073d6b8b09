"""The transport's keys of settings.WEBCHAT; read here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from django.conf import settings as django_settings

from .follower import Pace
from .limits import Bounds
from .log import Window

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class ChatSettings(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """Sizes are bytes, times are seconds. Every key has a default."""

    login_required: bool = False
    metrics: bool = False
    metrics_token: str = ""
    loop_lag_warning: Seconds = 1.0
    prompt_max_bytes: Count = 64 * 1024
    body_max_bytes: Count = 256 * 1024
    message_max_bytes: Count = 64 * 1024
    log_window_frames: Count = 10_000
    log_window_bytes: Count = 4 * 1024 * 1024
    log_window_seconds: Seconds = 3600.0
    heartbeat: Seconds = 25.0
    follower_idle: Seconds = 60.0
    drain_timeout: Seconds = 30.0
    access_check_every: Seconds = 60.0
    prompts_per_user: Count = 60
    prompts_per_address: Count = 600
    sockets_per_user: Count = 20
    sockets_per_address: Count = 200
    sockets_per_process: Count = 10_000
    messages_per_socket: Count = 20
    messages_burst: Count = 40
    redis_url: str = ""
    lease_seconds: Annotated[float, msgspec.Meta(ge=1)] = 9.0
    trusted_proxies: Annotated[int, msgspec.Meta(ge=0)] = 0

    def window(self) -> Window:
        return Window(
            frames=self.log_window_frames,
            bytes=self.log_window_bytes,
            seconds=self.log_window_seconds,
        )

    def bounds(self) -> Bounds:
        return Bounds(
            prompts_user=self.prompts_per_user,
            prompts_address=self.prompts_per_address,
            sockets_user=self.sockets_per_user,
            sockets_address=self.sockets_per_address,
            sockets_process=self.sockets_per_process,
            messages=self.messages_per_socket,
            messages_burst=self.messages_burst,
        )

    def pace(self) -> Pace:
        return Pace(heartbeat=self.heartbeat, idle_timeout=self.follower_idle)


def given() -> Mapping[str, Any]:
    """settings.WEBCHAT as it was written; empty where it is missing."""
    written: Mapping[str, Any] = getattr(django_settings, "WEBCHAT", {})
    return written


def chat_settings() -> ChatSettings:
    """The settings as they are now. Raises msgspec.ValidationError; the checks say it better."""
    known = {field.encode_name for field in msgspec.structs.fields(ChatSettings)}
    mine = {key: value for key, value in given().items() if key in known}
    return msgspec.convert(mine, ChatSettings)
