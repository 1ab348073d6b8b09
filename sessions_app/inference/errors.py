"""What can go wrong, named for what the caller does next.

WebchatError                 root; `code` for machines, `str()` for people
├── Refused                  the request was not taken; nothing happened
│   ├── RunInProgress        wait for the active inference, or cancel it
│   ├── NoActiveInference    nothing to cancel
│   ├── ConversationNotFound absent, or somebody else's: the answer is the same
│   ├── ProfileNotFound      name one of the configured profiles
│   └── Draining             this process is stopping; come back in a moment
├── InferenceFailed          an inference ended as `failed`; the sentence goes to the person
│   ├── ProviderFailed       the model's service said no, or the line was cut
│   └── InferenceTimedOut    the time bound of an inference passed
├── StreamStalled            more is published than the log takes; the inference fails
└── ConfigurationError       a setting is wrong; `hint` says how to mend it
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


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


class Draining(Refused):
    code = "draining"


class InferenceFailed(WebchatError):
    """Raised by an engine to end its inference as `failed` with this sentence."""

    code = "inference_failed"


class ProviderFailed(InferenceFailed):
    code = "provider_failed"


class InferenceTimedOut(InferenceFailed):
    code = "timeout"


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
