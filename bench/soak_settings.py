"""The bench's settings, with everything forgotten within seconds: what stays is a leak."""

from bench.settings import *  # noqa: F403 - a settings module is all its names
from bench.settings import WEBCHAT

WEBCHAT = {
    **WEBCHAT,
    "EVICT_IDLE": 5,
    "EVICT_EVERY": 2,
    "FOLLOWER_IDLE": 5,
    "CONVERSATION_TTL": 15,
    "IDEMPOTENCY_TTL": 15,
}
