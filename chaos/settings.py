"""The settings of the harness's servers. What a run varies comes from the environment."""

import os

from chaos.mutants import mutate
from webchat_project.settings import *  # noqa: F403 - a settings module is all its names
from webchat_project.settings import CHANNEL_LAYERS, WEBCHAT

mutate(os.environ.get("CHAOS_MUTANT", ""))

WEBCHAT = {
    **WEBCHAT,
    "ENGINES": {"chaos": "chaos.engine.ChaosEngine"},
    "MODEL": "chaos:fast",
    "TOOLS": ["chaos.engine.look", "chaos.engine.act"],
    "PROFILES": [{"slug": "default", "tools": ["look", "act"]}],
    "APPROVAL_TIMEOUT": 2,
    "STEP_TIMEOUT": 2,
    "DRAIN_TIMEOUT": 1.5,
    "CANCEL_GRACE": 1,
    "QUEUE_LIMIT": 3,
    "LOG_WINDOW_FRAMES": int(os.environ.get("CHAOS_WINDOW", "1000000")),
    "LOG_WINDOW_BYTES": 1 << 30,
    "PROMPTS_PER_USER": 1_000_000,
    "PROMPTS_PER_ADDRESS": 1_000_000,
    "SOCKETS_PER_USER": 1_000_000,
    "SOCKETS_PER_ADDRESS": 1_000_000,
    "MESSAGES_PER_SOCKET": 1_000_000,
    "MESSAGES_BURST": 1_000_000,
}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "chat.testing.LossyChannelLayer",
        "CONFIG": {
            "share": float(os.environ.get("CHAOS_LOSS", "0")),
            "layer": CHANNEL_LAYERS["default"],
        },
    }
}
