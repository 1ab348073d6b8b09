"""The composition as a Django app: so that its settings are checked at start too."""

from __future__ import annotations

from django.apps import AppConfig


class ProjectConfig(AppConfig):
    name = "webchat_project"
    verbose_name = "Webchat"

    def ready(self) -> None:
        from . import checks, redis_checks  # noqa: F401 - register checks

        checks.teach_django_our_middlewares()
