"""Middlewares: what stands around each model call. In a list, the first is the outermost."""

from .agent_mode import AgentModes, agent_mode, current_mode
from .ordering import block_ordering, ordered
from .registry import MiddlewareRegistry, MiddlewareSpec, default_registry
from .structured import OnValue, publish_value, structured_output
from .system_prompt import system_prompt
from .timing import timing

__all__ = [
    "AgentModes",
    "MiddlewareRegistry",
    "MiddlewareSpec",
    "OnValue",
    "agent_mode",
    "block_ordering",
    "current_mode",
    "default_registry",
    "ordered",
    "publish_value",
    "structured_output",
    "system_prompt",
    "timing",
]
