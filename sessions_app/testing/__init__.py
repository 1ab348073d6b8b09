"""Doubles for tests: an engine that plays a script, a tool that waits, a sink that remembers.

For our tests and an app author's. They need neither Django nor a network. See docs/testing.md;
`chat.testing` has the client that collects frames.
"""

from .engine import AbsorbCancel, Gate, IgnoreCancel, ScriptedEngine, Sleep, Step
from .sink import FLUSHED, Flushed, RecordingSink
from .tools import GatedTool, run_tool

__all__ = [
    "FLUSHED",
    "AbsorbCancel",
    "Flushed",
    "Gate",
    "GatedTool",
    "IgnoreCancel",
    "RecordingSink",
    "ScriptedEngine",
    "Sleep",
    "Step",
    "run_tool",
]
