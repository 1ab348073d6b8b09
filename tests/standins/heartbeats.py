"""Our settings with a heart that beats fast, for what waits as long as a proxy has patience."""

from webchat_project.settings import *  # noqa: F403 - a settings module is all its names
from webchat_project.settings import WEBCHAT

WEBCHAT = {**WEBCHAT, "HEARTBEAT": 0.5}
