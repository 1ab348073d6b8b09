"""Taking a prompt: the rules that the JSON call and the page's form share."""

from __future__ import annotations

import re
from collections.abc import Mapping

from django.http import HttpRequest

from sessions_app.inference.errors import QueueFull
from sessions_app.values import Policy, PromptRequest, Submitted

from .address import client_address
from .apps import hub
from .errors import BadRequest, MissingPrompt, PromptTooLong
from .identity import ensure_owner
from .translate import well_formed

PROFILE_COOKIE = "chat_profile"
_CONV_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)
_KEY = re.compile(r"[\x21-\x7e]{1,200}", re.ASCII)


def is_conv_id(text: str) -> bool:
    return _CONV_ID.fullmatch(text) is not None


def cookie_profile(cookies: dict[str, str]) -> str | None:
    """The profile the cookie names, if that still exists."""
    slug = cookies.get(PROFILE_COOKIE)
    known = {profile.slug for profile in hub().sessions.profiles()}
    return slug if slug in known else None


async def submit_prompt(
    request: HttpRequest,
    *,
    conv_id: str | None,
    prompt: str,
    profile: str | None,
    idempotency_key: str | None,
    overrides: Mapping[str, object] | None = None,
    policy: Policy = "queue",
) -> tuple[Submitted, bool]:
    """Starts or queues a prompt of the request's owner; the answer, and whether it was replayed.

    `profile` is what the request itself names; else the conversation's own counts, then the
    cookie, then the default. Raises a WebchatError with `code`; then nothing happened.
    """
    prompt = well_formed(prompt)
    _check_prompt(prompt)
    if conv_id is not None and not is_conv_id(conv_id):
        raise BadRequest(
            f"conv_id {conv_id[:80]!r} is not an id; expected 1 to 128 of A-Z a-z 0-9 . _ : - "
            "that begin with a letter or digit, or none for a new conversation"
        )
    if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
        raise BadRequest("an idempotency key is 1 to 200 visible ASCII characters; a uuid is best")
    owner, limits = await ensure_owner(request), hub().limits
    address = client_address(
        request.META.get("REMOTE_ADDR"),
        request.headers.get("X-Forwarded-For", ""),
        trusted_proxies=hub().settings.trusted_proxies,
    )
    try:
        return await hub().sessions.submit(
            PromptRequest(
                owner=owner,
                prompt=prompt,
                conv_id=conv_id,
                profile=profile,
                new_profile=cookie_profile(request.COOKIES),
                overrides=overrides,
                policy=policy,
                idempotency_key=idempotency_key,
            ),
            admit=lambda: limits.take_prompt(owner, address),
        )
    except QueueFull:
        limits.refusals["queue"] += 1
        raise


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise MissingPrompt('the prompt is empty; send {"prompt": "<what to ask>"}')
    limit = hub().settings.prompt_max_bytes
    size = len(prompt.encode())
    if size > limit:
        raise PromptTooLong(f"the prompt has {size} bytes; at most {limit} are taken. Shorten it")
