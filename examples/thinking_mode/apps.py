"""Where the app joins Webchat: one line for its kind of event, one for its middleware."""

from django.apps import AppConfig

from chat.app_kinds import AppKind, default_kinds
from sessions_app.inference.middleware import default_registry

from .events import KIND, added_up
from .middleware import ThinkingLevels, thinking_mode


class ThinkingModeConfig(AppConfig):
    name = "examples.thinking_mode"
    verbose_name = "Thinking mode"

    def ready(self) -> None:
        default_kinds.register(
            AppKind(
                KIND,
                fold=added_up,
                template="thinking_mode/card.html",
                module="thinking_mode/card.js",
                style="thinking_mode/card.css",
            )
        )
        default_registry.register(KIND, ThinkingLevels)(thinking_mode)
