"""What can go wrong, named for what the caller does next.

WebchatError                 root; `code` for machines, `str()` for people
├── Refused                  the request was not taken; nothing happened
│   ├── RunInProgress        wait for the active inference, or cancel it
│   ├── NoActiveInference    nothing to cancel
│   ├── ConversationNotFound absent, or somebody else's: the answer is the same
│   ├── ProfileNotFound      name one of the configured profiles
│   ├── OverridesNotAllowed  the profile takes none
│   ├── BadOverride          the override is not what the profile can be given
│   ├── QueueFull            wait for one of the queued prompts to be taken up
│   ├── NotQueued            that prompt does not wait
│   ├── KeyReused            the idempotency key stands for another request
│   ├── UnknownPause         no such pause waits
│   ├── AlreadyDecided       the pause has ended; `resolution` says how
│   ├── BadEdits             the edited arguments cannot be run; the pause still waits
│   ├── Draining             this process is stopping; come back in a moment
│   └── Unavailable          what the processes share cannot be reached, or nobody answers; later
├── InferenceFailed          an inference ended as `failed`; the sentence goes to the person
│   ├── ProviderFailed       the model's service said no, or the line was cut
│   └── InferenceTimedOut    the time bound of an inference passed
├── ToolError                raised by a tool: a sentence the model may read
│   ├── ToolDenied           the user may not do this; the call ends as `denied`
│   └── ToolUnavailable      what does the tool's work cannot be reached; a later call may
├── StreamStalled            more is published than the log takes; the inference fails
└── ConfigurationError       a setting is wrong; `hint` says how to mend it
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .steps import Resolution


class WebchatError(Exception):
    """Root of our errors. `code` is a stable slug; `str(error)` is one sentence for a person."""

    code = "error"


class Refused(WebchatError):
    """The request was not taken and changed nothing."""

    code = "refused"


class RunInProgress(Refused):
    code = "run_in_progress"


class NoActiveInference(Refused):
    code = "no_active_inference"


class ConversationNotFound(Refused):
    code = "conversation_not_found"


class ProfileNotFound(Refused):
    code = "profile_not_found"


class OverridesNotAllowed(Refused):
    code = "overrides_not_allowed"


class BadOverride(Refused):
    code = "bad_override"


class QueueFull(Refused):
    code = "queue_full"


class NotQueued(Refused):
    code = "not_queued"


class KeyReused(Refused):
    code = "idempotency_key_reused"


class UnknownPause(Refused):
    code = "unknown_pause"


class AlreadyDecided(Refused):
    """`resolution` is a `steps.Resolution`."""

    code = "already_decided"

    def __init__(self, resolution: Resolution) -> None:
        super().__init__(f"this pause ended already: {resolution.decision} by {resolution.by}")
        self.resolution = resolution


class BadEdits(Refused):
    code = "bad_edits"


class Draining(Refused):
    code = "draining"


class Unavailable(Refused):
    """Unlike other refusals: what was asked may have been done, where nobody answered."""

    code = "unavailable"


class InferenceFailed(WebchatError):
    """Raised by an engine to end its inference as `failed` with this sentence."""

    code = "inference_failed"


class ProviderFailed(InferenceFailed):
    code = "provider_failed"


class InferenceTimedOut(InferenceFailed):
    code = "timeout"


class ToolError(WebchatError):
    code = "tool_error"


class ToolDenied(ToolError):
    code = "tool_denied"


class ToolUnavailable(ToolError):
    code = "tool_unavailable"


class StreamStalled(WebchatError):
    code = "stream_stalled"


class ConfigurationError(WebchatError):
    """A setting is wrong. `hint` is the fix, in one sentence."""

    code = "configuration"

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def unknown(noun: str, got: str, expected: Iterable[str]) -> str:
    """One sentence for a name nobody knows: what was got, what is known, what was likely meant."""
    known = sorted(expected)
    near = get_close_matches(got, known, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {noun} {got!r}; expected one of: {', '.join(known) or '(none)'}.{meant}"
