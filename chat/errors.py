"""Refusals of the transport itself, and the HTTP status of every refusal."""

from __future__ import annotations

from sessions_app.inference.errors import Refused, WebchatError


class BadRequest(Refused):
    code = "bad_request"


class BadConvId(BadRequest):
    """Told over the socket by this code, over HTTP as a bad request."""

    code = "bad_conv_id"


class MissingPrompt(Refused):
    code = "missing_prompt"


class PromptTooLong(Refused):
    code = "prompt_too_long"


class Forbidden(Refused):
    code = "forbidden"


class LoginRequired(Refused):
    code = "login_required"


class SignedOut(Refused):
    code = "signed_out"


class RateLimited(Refused):
    """`retry_after` is in seconds, from 1."""

    code = "rate_limited"

    def __init__(self, sentence: str, *, retry_after: int) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after


class TooManySockets(Refused):
    """Told over the socket. `everybody`: the process is full, whoever asks."""

    code = "too_many_sockets"

    def __init__(self, sentence: str, *, everybody: bool) -> None:
        super().__init__(sentence)
        self.everybody = everybody


class UnsupportedMediaType(Refused):
    code = "unsupported_media_type"


_STATUS = {
    "bad_request": 400,
    "missing_prompt": 400,
    "bad_override": 400,
    "login_required": 403,
    "signed_out": 403,
    "forbidden": 403,
    "overrides_not_allowed": 403,
    "conversation_not_found": 404,
    "profile_not_found": 404,
    "not_queued": 404,
    "unknown_pause": 404,
    "run_in_progress": 409,
    "no_active_inference": 409,
    "already_decided": 409,
    "prompt_too_long": 413,
    "unsupported_media_type": 415,
    "bad_edits": 422,
    "idempotency_key_reused": 422,
    "queue_full": 429,
    "rate_limited": 429,
    "draining": 503,
    "unavailable": 503,
}


def http_status(error: WebchatError) -> int:
    """The status a refusal is answered with; 500 for what is no refusal."""
    return _STATUS.get(error.code, 500)
