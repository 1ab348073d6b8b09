"""Our settings with the engine of the bench. What one visitor may do is raised here alone."""

from webchat_project.settings import *  # noqa: F403 - a settings module is all its names
from webchat_project.settings import WEBCHAT

WEBCHAT = {
    **WEBCHAT,
    "ENGINES": {"bench": "bench.engine.BenchEngine"},
    "PROFILES": [{"slug": "default", "tools": []}],
}
LOG_LEVEL = "WARNING"
