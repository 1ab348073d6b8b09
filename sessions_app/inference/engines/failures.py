"""What a provider's failure means, in one sentence that a person can act on, and what the log gets.

Providers echo keys, HTML pages and whole requests in their errors, so what they say is cut to a
short safe line before anybody sees it.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelQuotaExceededError,
    ModelTimeoutError,
    UnexpectedModelBehavior,
    UserError,
)

from .wires import Endpoint

LONGEST_QUOTE = 200
"""Characters of a provider's own words that we repeat."""

CUT = "The model's answer was cut off before its end. Send the prompt again to retry."
UNREADABLE = "The model's service sent something that this server cannot read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """`sentence` is for people, `facts` and `words` for the log. None holds a key or a second line.

    `words` are the provider's own, and may repeat what it was asked.
    """

    sentence: str
    facts: str
    words: str = ""


def explain(error: Exception, at: Endpoint, *, begun: bool) -> Failure | None:
    """What `error` means for a request to `at`; None if it is not a failure of the provider.

    `begun` says that the answer had begun.
    """
    match error:
        case ModelHTTPError():
            sentence = _refusal(error, at)
        case ModelConnectionError():
            late = isinstance(error, ModelTimeoutError)
            sentence = _broken_line(error, at, begun=begun, late=late)
        case httpx2.TransportError():
            late = isinstance(error, httpx2.TimeoutException)
            sentence = _broken_line(error, at, begun=begun, late=late)
        case ModelAPIError() | UnexpectedModelBehavior():
            sentence = f"{UNREADABLE}. Try again." if begun else f"{UNREADABLE}: {_check_url(at)}."
        case UserError():  # the library's, before a request: the model has no such ability
            said = _safe(str(error), at)
            sentence = f"This request cannot be made to the model {at.model!r}: {said}"
        case _:
            return None
    facts, words = _detail(error, at)
    return Failure(sentence=sentence, facts=facts, words=words)


def _refusal(error: ModelHTTPError, at: Endpoint) -> str:
    status = error.status_code
    said = _safe(_said(error.body), at)
    match error:
        case ModelAuthenticationError() if not at.api_key:
            return f"The model's service asks for a key ({status}): set {at.wire.key_variable}."
        case ModelAuthenticationError() if status == 403:
            return (
                f"The model's service does not let this key use the model ({status}): "
                f"check {at.wire.key_variable} and what it may use."
            )
        case ModelAuthenticationError():
            return f"The model's service refused the key ({status}): check {at.wire.key_variable}."
        case ModelContextWindowExceededError():
            return (
                f"The conversation is longer than the model can read ({status}): "
                "start a new conversation."
            )
        case ModelQuotaExceededError():
            return (
                f"The account at the model's service has no credit or quota left ({status}): "
                "check its billing."
            )
    if status == 404:
        return (
            f"The model's service does not know the model {at.model!r} or the address ({status}): "
            f"check the model's name and {at.wire.url_variable}."
        )
    if status == 429:
        wait = error.retry_after
        when = f"in {wait:.0f} seconds" if wait and wait >= 1 else "in a moment"
        return f"The model's service takes no more requests for now ({status}): try again {when}."
    if status >= 500:
        return f"The model's service has a fault ({status}): try again in a moment."
    return f"The model's service refused the request ({status})" + (f": {said}" if said else ".")


def _broken_line(error: Exception, at: Endpoint, *, begun: bool, late: bool) -> str:
    """A connection that could not be made, went silent or was closed."""
    causes = list(_causes(error))
    connecting = any(
        isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout) for cause in causes
    )
    if late and connecting:
        return (
            "The model's service took no connection within "
            f"{at.connect_timeout:.0f} seconds: {_check_url(at)}."
        )
    if late:
        return f"The model's service was silent for {at.read_timeout:.0f} seconds. Try again."
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return f"The host name of the model's service cannot be found: {_check_url(at)}."
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return f"The model's service cannot be reached securely (TLS): {_check_url(at)}."
    if connecting:
        return f"Nothing answers at the address of the model's service: {_check_url(at)}."
    if begun:
        return CUT
    return "The model's service closed the connection without an answer. Try again in a moment."


def _check_url(at: Endpoint) -> str:
    if at.is_own:
        return "check this server's network and try again"
    return f"check that it runs, and {at.wire.url_variable}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what led to it, nearest first."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _detail(error: Exception, at: Endpoint) -> tuple[str, str]:
    facts = [at.name, type(error).__name__]
    said = str(error)
    if isinstance(error, ModelAPIError):
        facts += [fact for fact in (error.provider_error_type, error.provider_error_code) if fact]
    if isinstance(error, ModelHTTPError):
        facts.append(str(error.status_code))
        said = _said(error.body)
    return _safe(" ".join(facts), at), _safe(said, at)


def _said(body: object) -> str:
    """The provider's own words in the body of its error, whatever its shape."""
    match body:
        case {"error": inner} | {"message": inner} | {"detail": inner}:
            return _said(inner)
        case [first, *_]:
            return _said(first)
        case str():
            return body
        case _:
            return ""


HTML = re.compile(r"<\s*(!doctype|html|head|body|title|h1|p|div|center)\b", re.IGNORECASE)
SECRET = re.compile(
    r"""
    \b(?:bearer|basic)\s+\S+                        # a header's value
    | \b(?:sk|pk|rk|gsk|xai|hf|AIza)[-_\w*.]{6,}    # keys by their prefix, masked ones too
    | [\w+/=*-]{32,}                                # anything as long as a key
    """,
    re.IGNORECASE | re.VERBOSE,
)


def _safe(text: str, at: Endpoint) -> str:
    """`text` as one short line without markup, keys and invisible characters."""
    if HTML.search(text):
        return "(an HTML page)"
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:10_000]).split())
    if at.api_key:
        line = line.replace(at.api_key, "[redacted]")
    line = SECRET.sub("[redacted]", line)
    return line if len(line) <= LONGEST_QUOTE else f"{line[: LONGEST_QUOTE - 1]}…"
