"""Admin → "Live sessions": a list and a page for each, without a table behind them.

Sync views in Django's thread; what they show is read on the event loop, as frozen values.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
from asgiref.sync import async_to_sync
from django.apps import apps
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse

from sessions_app.access import Action, Owned, account, can
from sessions_app.inference.errors import BadEdits
from sessions_app.values import Unloaded

from .apps import hub
from .desk import rows as desk
from .desk.acts import ACTS, Act, Done, Operator, carry_out, note_refusal
from .desk.acts import decide as decide_pause
from .desk.listing import listing
from .desk.turns import own_turns
from .frames import FRAME_TYPES
from .ports import Decision
from .translate import well_formed

PART = "X-Live-Part"
"""The request header by which a page asks for its live part alone."""

SHOWN_TURNS = 20
SHOWN_FRAMES = 100
NAMED_OWNERS = 1000
"""How many accounts a word of a search may stand for."""

DECISIONS: Mapping[Decision, str] = {
    "continue": "Continue",
    "edit": "Run with these arguments",
    "skip": "Skip",
    "abort": "Abort",
}


@admin.register(apps.get_model("sessions_app", "LiveSession"))
class LiveSessionAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # there are no rows
    """Looks like any model's pages, and asks the sessions instead of a table."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self._may(request, "view")

    def has_view_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return self._may(request, "view")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("", wrap(self.changelist_view), name="sessions_app_livesession_changelist"),
            path("<str:conv_id>/", wrap(self.session_view), name="sessions_app_livesession_change"),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: Mapping[str, Any] | None = None
    ) -> HttpResponse:
        """The list; POST does something to the selected ones, once that was confirmed."""
        self._ensure(request, "view")
        if request.method == "POST":
            return self._act(request, request.POST.getlist("_selected_action"))
        shown = listing(
            async_to_sync(desk.rows)(),
            request.GET.dict(),
            profiles=[profile.slug for profile in hub().sessions.profiles()],
            owners_named=_owners_named,
        )
        context = {
            "listing": shown,
            "names": _names([row.session.owner for row in shown.rows]),
            "acts": [act for act in ACTS.values() if self._may(request, act.needs)],
        }
        return self._page(request, "list", "Live sessions", context)

    def session_view(self, request: HttpRequest, conv_id: str) -> HttpResponse:
        """One session; POST does something to it, once that was confirmed."""
        self._ensure(request, "view")
        if request.method == "POST":
            if "decision" in request.POST:
                return self._decide(request, conv_id)
            return self._act(request, [conv_id])
        chosen_type = request.GET.get("type", "")
        found = self._detail(request, conv_id, turns=0)
        if found is None:
            return self._gone(request, conv_id)
        session = found.row.session
        turns = None
        if found.said is not None and not _has_turns(request, session.turns):
            whole = self._detail(request, conv_id, turns=SHOWN_TURNS + 1)
            turns = own_turns(whole.said, SHOWN_TURNS) if whole and whole.said else ()
        context = {
            "found": found,
            "session": session,
            "stream": found.row.stream,
            "names": _names([session.owner]),
            "acts": [
                (act, act.useful(found.row))
                for act in ACTS.values()
                if self._may(request, act.needs, session)
            ],
            "may_decide": self._may(request, "decide", session),
            "may_read": found.said is not None,
            "turns": turns,
            "frames": self._frames(conv_id, found.row.stream.head_seq, chosen_type)
            if found.said is not None and not _is_part(request)
            else (),
            "types": FRAME_TYPES,
            "chosen_type": chosen_type,
            "follows": not isinstance(session.state, Unloaded),
        }
        return self._page(request, "session", conv_id, context)

    def _detail(self, request: HttpRequest, conv_id: str, *, turns: int) -> desk.Detail | None:
        return async_to_sync(desk.detail)(conv_id, reader=account(request.user), turns=turns)

    def _frames(self, conv_id: str, head_seq: int, type_: str) -> Sequence[desk.LoggedFrame]:
        """The last frames, not beyond the place from which the page follows the log itself."""
        frames = async_to_sync(desk.frames)(
            conv_id, types=[type_] if type_ else (), limit=SHOWN_FRAMES, last=True
        )
        return [frame for frame in frames if frame.seq <= head_seq]

    def _act(self, request: HttpRequest, conv_ids: Sequence[str]) -> HttpResponse:
        act = ACTS.get(request.POST.get("action", ""))
        if act is None or not conv_ids:
            wanted = "an action" if act is None else "the sessions to act on"
            messages.warning(request, f"Nothing was done: choose {wanted} first.")
            return HttpResponseRedirect(request.get_full_path())
        if request.POST.get("confirmed") == "yes":
            return self._tell(request, self._carry_out(request, act, conv_ids))
        found = [self._detail(request, conv_id, turns=0) for conv_id in conv_ids]
        rows = [each.row for each in found if each is not None]
        if not rows:
            return self._gone(request, conv_ids[0])
        allowed = [row for row in rows if self._may(request, act.needs, row.session)]
        if not allowed:
            for row in rows:
                note_refusal(act.slug, row.session.conv_id, self._operator(request))
            raise PermissionDenied
        context = {
            "act": act,
            "rows": allowed,
            "names": _names([row.session.owner for row in allowed]),
        }
        return self._page(request, "confirm", f"{act.label}?", context)

    def _carry_out(self, request: HttpRequest, act: Act, conv_ids: Sequence[str]) -> Sequence[Done]:
        operator = self._operator(request)

        async def all_of_them() -> Sequence[Done]:
            return await asyncio.gather(
                *(carry_out(act, conv_id, operator) for conv_id in dict.fromkeys(conv_ids))
            )

        done = async_to_sync(all_of_them)()
        if done and all(each.code == "forbidden" for each in done):
            raise PermissionDenied
        return done

    def _decide(self, request: HttpRequest, conv_id: str) -> HttpResponse:
        """A person's decision of a pause: asked once more, then carried out."""
        decision = request.POST["decision"]
        if decision not in DECISIONS:
            raise Http404("there is no such decision")
        found = self._detail(request, conv_id, turns=0)
        if found is None:
            return self._gone(request, conv_id)
        if not self._may(request, "decide", found.row.session):
            note_refusal(f"decide:{decision}", conv_id, self._operator(request))
            raise PermissionDenied
        problem = ""
        if request.POST.get("confirmed") == "yes":
            try:
                edits = _edits(request) if decision == "edit" else None
            except BadEdits as error:
                problem = str(error)
            else:
                done = self._end_pause(request, conv_id, cast(Decision, decision), edits)
                if done.code != "bad_edits":
                    return self._tell(request, [done])
                problem = done.sentence
        pause_id = request.POST.get("pause_id", "")
        pause = next((each for each in found.detail.pauses if each.pause_id == pause_id), None)
        if pause is None:
            messages.warning(request, "That pause has ended already.")
            return HttpResponseRedirect(request.get_full_path())
        context = {
            "row": found.row,
            "pause": pause,
            "decision": decision,
            "label": DECISIONS[cast(Decision, decision)],
            "arguments": _arguments(request) if decision == "edit" else {},
            "message": request.POST.get("message", ""),
            "problem": problem,
            "is_rough": decision == "abort",
        }
        title = f"{DECISIONS[cast(Decision, decision)]}?"
        return self._page(request, "decide", title, context, status=422 if problem else 200)

    def _end_pause(
        self, request: HttpRequest, conv_id: str, decision: Decision, edits: Any
    ) -> Done:
        return async_to_sync(decide_pause)(
            conv_id,
            request.POST.get("pause_id", ""),
            decision,
            self._operator(request),
            edits=edits,
            message=request.POST.get("message", ""),
        )

    def _tell(self, request: HttpRequest, done: Sequence[Done]) -> HttpResponse:
        """What came of it, one message for what is alike, back where it was asked for."""
        by_sentence: dict[tuple[bool, str], list[str]] = {}
        for each in done:
            by_sentence.setdefault((each.ok, each.sentence), []).append(each.conv_id)
        for (ok, sentence), conv_ids in by_sentence.items():
            which = conv_ids[0] if len(conv_ids) == 1 else f"{len(conv_ids)} sessions"
            level = messages.SUCCESS if ok else messages.WARNING
            messages.add_message(request, level, f"{sentence.rstrip('.')}: {which}")
        return HttpResponseRedirect(request.get_full_path())

    def _gone(self, request: HttpRequest, conv_id: str) -> HttpResponse:
        if _is_part(request):
            raise Http404("there is no such session")
        messages.warning(request, f"There is no session {conv_id[:128]!r}; it may be forgotten.")
        return HttpResponseRedirect(reverse("admin:sessions_app_livesession_changelist"))

    def _page(
        self,
        request: HttpRequest,
        name: str,
        title: str,
        context: Mapping[str, Any],
        *,
        status: int = 200,
    ) -> HttpResponse:
        """The page, or its live part alone for a page that refreshes itself."""
        shared: dict[str, Any] = {
            **context,
            "opts": self.opts,
            "title": title,
            "now_ms": time.time_ns() // 1_000_000,
        }
        template = f"admin/sessions_app/livesession/{name}.html"
        if _is_part(request):
            template = f"admin/sessions_app/livesession/{name}_live.html"
        else:
            # Without the sidebar: the list has more columns than a model's.
            shared = {
                **self.admin_site.each_context(request),
                "is_nav_sidebar_enabled": False,
                **shared,
            }
        # An engine's text may hold half of a surrogate pair.
        html = well_formed(render_to_string(template, shared, request))
        return HttpResponse(html, status=status)

    def _operator(self, request: HttpRequest) -> Operator:
        user = cast(Any, request.user)
        return Operator(
            name=user.get_username(), identity=account(user), has_permission=user.ahas_perm
        )

    def _may(self, request: HttpRequest, action: Action, of: Owned | None = None) -> bool:
        return can(account(request.user), action, of)

    def _ensure(self, request: HttpRequest, action: Action) -> None:
        if not self._may(request, action):
            raise PermissionDenied


def _is_part(request: HttpRequest) -> bool:
    return request.method == "GET" and PART in request.headers


def _has_turns(request: HttpRequest, turns: int) -> bool:
    """Whether the page that refreshes itself shows all of them already."""
    return _is_part(request) and request.GET.get("turns") == str(turns)


def _names(owners: Sequence[str]) -> dict[str, str]:
    """The user names of those owners that are accounts."""
    pks = {owner.partition(":")[2] for owner in owners if owner.startswith("user:")}
    accounts = get_user_model()._default_manager.filter(pk__in=pks) if pks else ()
    return {f"user:{user.pk}": user.get_username() for user in accounts}


def _owners_named(word: str) -> frozenset[str]:
    """The owners whose user name holds the word."""
    model = get_user_model()
    named = {f"{model.USERNAME_FIELD}__icontains": word}
    pks = model._default_manager.filter(**named).values_list("pk", flat=True)[:NAMED_OWNERS]
    return frozenset(f"user:{pk}" for pk in pks)


def _arguments(request: HttpRequest) -> dict[str, str]:
    """The arguments of each call as they were typed, by call id."""
    prefix = "arguments:"
    return {
        name.removeprefix(prefix): text
        for name, text in request.POST.items()
        if name.startswith(prefix) and isinstance(text, str)
    }


def _edits(request: HttpRequest) -> dict[str, dict[str, Any]]:
    """The typed arguments, read. Raises BadEdits for what is no JSON object."""
    edits = {}
    for call_id, text in _arguments(request).items():
        try:
            edits[call_id] = msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadEdits(f"the arguments of {call_id} are no JSON object: {error}") from None
    return edits
