"""The Django app of the session side."""

from django.apps import AppConfig

from .conf import SessionSettings


class SessionsConfig(AppConfig):
    name = "sessions_app"
    verbose_name = "Sessions"

    @staticmethod
    def webchat_settings() -> type[SessionSettings]:
        """The keys of settings.WEBCHAT this app reads."""
        return SessionSettings

    def ready(self) -> None:
        from . import checks  # noqa: F401 - registers the checks
