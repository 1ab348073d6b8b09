"""The Django app of the transport, and the one place its collaborators are found."""

from __future__ import annotations

from typing import cast

from django.apps import AppConfig, apps

from .conf import ChatSettings
from .hub import Hub


class ChatConfig(AppConfig):
    name = "chat"
    verbose_name = "Chat"
    hub: Hub | None = None

    @staticmethod
    def webchat_settings() -> type[ChatSettings]:
        """The keys of settings.WEBCHAT this app reads."""
        return ChatSettings

    def ready(self) -> None:
        from . import checks, signals  # noqa: F401 - register checks and receivers

        signals.watch_models()


def hub() -> Hub:
    """What asgi.py wired. Raises RuntimeError in a process that serves nothing."""
    found = installed()
    if found is None:
        raise RuntimeError(
            "no hub is wired in this process; serve webchat_project.asgi, or install one with "
            "chat.apps.install(hub)"
        )
    return found


def installed() -> Hub | None:
    """The process's hub, if it serves anything."""
    # The registry gives the config by label; this label is ours.
    return cast(ChatConfig, apps.get_app_config("chat")).hub


def install(new: Hub | None) -> None:
    """Makes `new` the process's hub. Called by asgi.py, and by tests."""
    cast(ChatConfig, apps.get_app_config("chat")).hub = new
