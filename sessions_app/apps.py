"""The Django app of the session side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import AppConfig

if TYPE_CHECKING:
    from .conf import SessionSettings


class SessionsConfig(AppConfig):
    name = "sessions_app"
    verbose_name = "Sessions"

    @staticmethod
    def webchat_settings() -> type[SessionSettings]:
        """The keys of settings.WEBCHAT this app reads."""
        # Imports models, so only once the apps are loaded.
        from .conf import SessionSettings

        return SessionSettings

    def ready(self) -> None:
        from . import checks  # noqa: F401 - registers the checks
