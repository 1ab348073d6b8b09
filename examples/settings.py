"""The project with the examples installed: `DJANGO_SETTINGS_MODULE=examples.settings make run`."""

from webchat_project.settings import *  # noqa: F403 - a settings module is all its names
from webchat_project.settings import INSTALLED_APPS, WEBCHAT

INSTALLED_APPS += ["examples.thinking_mode"]

THINKER = {
    "slug": "thinker",
    "title": "Thinker",
    "system_prompt": "You are a helpful assistant. Answer in Markdown, briefly and truly.",
    "tools": ["calc", "current_time", "demo_send_note"],
    "middlewares": [
        {
            "name": "thinking-mode",
            "config": {
                "levels": {
                    "little": "Answer at once, without thinking long.",
                    "hard": "Think step by step, and check what you found, before you answer.",
                }
            },
        }
    ],
}
_profiles = WEBCHAT["PROFILES"]
assert isinstance(_profiles, list)
WEBCHAT = {**WEBCHAT, "PROFILES": [*_profiles, THINKER]}
