"""A client for tests, that sends prompts and collects frames. See docs/testing.md.

`sessions_app.testing` has the scripted engine, `webchat_project.testing` the hub to run it in.
"""

from .answer import Answer, ToolShown
from .client import ChatClient, Refusal, Reply, Socket
from .lossy import LossyChannelLayer
from .reader import Frame, FrameReader, text_of

__all__ = [
    "Answer",
    "ChatClient",
    "Frame",
    "FrameReader",
    "LossyChannelLayer",
    "Refusal",
    "Reply",
    "Socket",
    "ToolShown",
    "text_of",
]
