"""The pages people see. They read and their forms post without a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import wraps
from typing import Any, TypeAlias
from uuid import uuid4

from asgiref.sync import sync_to_async
from django.contrib import messages
from django.contrib.auth.views import LoginView, redirect_to_login
from django.contrib.messages.storage.base import Message
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.middleware.csrf import get_token
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.http import content_disposition_header
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_http_methods

from sessions_app.access import ACTIONS, can
from sessions_app.inference.errors import WebchatError

from .actions import act, written
from .apps import hub
from .cards import arrange, blank_cards, in_parts
from .export import EXPORTS
from .identity import identity_of, permitted, welcome
from .submission import cookie_profile, submit_prompt

DRAFT_TAG = "draft"
WRITTEN_TAG = "written"

Page: TypeAlias = Callable[..., Coroutine[Any, Any, HttpResponse]]


class SeeOther(HttpResponseRedirect):
    """After a form was taken: get that page now."""

    status_code = 303


def page(view: Page) -> Page:
    """A page of ours: never stored, for those who may enter, with session and CSRF cookies set."""

    @require_http_methods(["GET", "HEAD", "POST"])
    @cache_control(no_store=True)
    @wraps(view)
    async def entered(request: HttpRequest, **kwargs: str) -> HttpResponse:
        user = await request.auser()
        if hub().settings.login_required and not user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        get_token(request)
        if request.method != "POST":
            await welcome(request)
        return await view(request, **kwargs)

    return entered


@page
async def home(request: HttpRequest) -> HttpResponse:
    """The visitor's conversations, and a composer that starts a new one."""
    if request.method == "POST":
        return SeeOther(await _submit(request, None) or reverse("home"))
    context = {"profile": cookie_profile(request.COOKIES)}
    return await _render(request, "chat/home.html", context)


@page
async def conversation(request: HttpRequest, conv_id: str) -> HttpResponse:
    """One conversation as it stands; scripts follow it from the cursor in the page."""
    if request.method == "POST":
        try:
            if not await act(request, conv_id):
                await permitted(request, "send", conv_id)
                await _submit(request, conv_id)
        except WebchatError as error:
            # As with a draft: when both do not fit the cookie, the older one is dropped.
            if fields := written(request):
                messages.info(request, json.dumps(fields), extra_tags=WRITTEN_TAG)
            messages.error(request, str(error))
        return SeeOther(request.path)
    info = await permitted(request, "transcript", conv_id)
    streams = hub().streams
    snapshot = await streams.snapshot(conv_id)
    identity = await identity_of(request)
    may = [action for action in ACTIONS if can(identity, action, info)]
    context = {
        "info": info,
        "may": may,
        "is_guest": "send" not in may,
        "profile": info.profile,
        "snapshot": snapshot,
        "parts": in_parts(arrange(snapshot.entities, streams.kinds)),
        "blank_cards": blank_cards(streams.kinds),
        "app_kinds": streams.kinds,
    }
    return await _render(request, "chat/conversation.html", context)


@page
async def export(request: HttpRequest, conv_id: str, form: str) -> HttpResponse:
    """The conversation as a file: `md` to read, `json` to work with."""
    info = await permitted(request, "transcript", conv_id)
    if form not in EXPORTS:
        raise Http404("there is no such form of a conversation")
    exported = EXPORTS[form](info.title, info.profile, await hub().streams.snapshot(conv_id))
    response = HttpResponse(exported.text, content_type=exported.content_type)
    response["Content-Disposition"] = content_disposition_header(True, exported.filename)
    return response


async def sign_in(request: HttpRequest) -> HttpResponseBase:
    """Django's log-in, for a browser that has its session and CSRF cookies as on every page."""
    get_token(request)
    if not hub().settings.login_required:
        await welcome(request)
    return await sync_to_async(LoginView.as_view())(request)


async def _submit(request: HttpRequest, conv_id: str | None) -> str | None:
    """The conversation's page; None when the prompt was refused, the reason left as a message."""
    # HTML has a form write every line's end as CR LF; who typed it meant LF.
    prompt = request.POST.get("prompt", "").replace("\r\n", "\n")
    try:
        answer, _ = await submit_prompt(
            request,
            conv_id=conv_id,
            prompt=prompt,
            profile=request.POST.get("profile") or None,
            idempotency_key=request.POST.get("idempotency_key") or None,
        )
    except WebchatError as error:
        # The draft first: when both do not fit the cookie, the older message is the one dropped.
        if prompt:
            messages.info(request, prompt, extra_tags=DRAFT_TAG)
        messages.error(request, str(error))
        return None
    return reverse("conversation", kwargs={"conv_id": answer.conv_id})


async def _render(request: HttpRequest, template: str, context: Mapping[str, Any]) -> HttpResponse:
    notices = list(messages.get_messages(request))
    sessions = hub().sessions
    shared = {
        "user": await request.auser(),
        "conversations": await sessions.owned_by(await welcome(request)),
        "profiles": sessions.profiles(),
        "idempotency_key": uuid4(),
        "draft": _left(notices, DRAFT_TAG),
        "written": json.loads(_left(notices, WRITTEN_TAG) or "{}"),
        "errors": [str(n) for n in notices if n.extra_tags not in (DRAFT_TAG, WRITTEN_TAG)],
    }
    # In a thread: Markdown of a long conversation takes longer than a socket should wait.
    html = await asyncio.to_thread(render_to_string, template, {**shared, **context}, request)
    return HttpResponse(html)


def _left(notices: Iterable[Message], tag: str) -> str:
    """What a refused form had left under this tag."""
    return next((str(notice) for notice in notices if notice.extra_tags == tag), "")
