"""Our settings with a channel layer that loses all it is told: what else tells must be enough."""

from webchat_project.settings import *  # noqa: F403 - a settings module is all its names
from webchat_project.settings import CHANNEL_LAYERS, WEBCHAT

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "chat.testing.LossyChannelLayer",
        "CONFIG": {"share": 1, "layer": CHANNEL_LAYERS["default"]},
    }
}
# Who may no longer be on a socket is found by the next check alone, and tests wait for it.
WEBCHAT = {**WEBCHAT, "ACCESS_CHECK_EVERY": 2}
