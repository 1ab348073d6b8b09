"""Our settings with the engine of the bench. What one visitor may do is raised here alone."""

import os

from webchat_project.settings import *  # noqa: F403 - a settings module is all its names
from webchat_project.settings import CHANNEL_LAYERS, LOGGING, WEBCHAT

WEBCHAT = {
    **WEBCHAT,
    "ENGINES": {"bench": "bench.engine.BenchEngine"},
    "PROFILES": [{"slug": "default", "tools": []}],
    "PROMPTS_PER_USER": 1_000_000,
    "PROMPTS_PER_ADDRESS": 1_000_000,
    "SOCKETS_PER_USER": 1_000_000,
    "SOCKETS_PER_ADDRESS": 1_000_000,
    "MESSAGES_PER_SOCKET": 1_000_000,
    "MESSAGES_BURST": 1_000_000,
}
LOGGING["root"]["level"] = "WARNING"
if os.environ.get("BENCH_LAYER") == "core":
    CHANNEL_LAYERS["default"]["BACKEND"] = "channels_redis.core.RedisChannelLayer"
