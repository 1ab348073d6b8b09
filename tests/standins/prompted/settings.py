"""The examples' settings, with this app, and profiles that the demo agent answers."""

from examples.settings import *  # noqa: F403 - a settings module is all its names
from examples.settings import INSTALLED_APPS, THINKER, WEBCHAT

INSTALLED_APPS += ["tests.standins.prompted"]

_profiles = WEBCHAT["PROFILES"]
assert isinstance(_profiles, list)
DEMO_THINKER = {**THINKER, "slug": "demo-thinker", "model": "demo"}
PROMPTED = {"slug": "prompted", "model": "demo", "middlewares": [{"name": "prompted"}]}
WEBCHAT = {**WEBCHAT, "PROFILES": [*_profiles, DEMO_THINKER, PROMPTED]}
