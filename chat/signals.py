"""What transport does when Django says who signed in or out, and whose rights changed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessionStore
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils.timezone import now

from sessions_app.inference.errors import Unavailable

from .apps import installed
from .control import close_sockets, owner_changed, permissions_changed, session_ended
from .identity import VISITOR_KEY
from .pool import CLOSE_RESYNC, CLOSE_SIGNED_OUT

logger = logging.getLogger(__name__)


@receiver(user_logged_in)
def keep_visitors_conversations(
    sender: object, request: HttpRequest | None, user: Any, **kwargs: Any
) -> None:
    """Gives the visitor's conversations to the account; their sockets come back as its own."""
    hub = installed()
    visitor = request.session.pop(VISITOR_KEY, None) if request is not None else None
    if hub is None or visitor is None:
        return

    async def transfer() -> None:
        moved = await hub.sessions.transfer(f"visitor:{visitor}", f"user:{user.pk}")
        for conv_id in moved:
            await close_sockets(conv_id, CLOSE_RESYNC)

    try:
        async_to_sync(transfer)()
    except Unavailable as error:
        # Nobody is kept from signing in by it; the next log-in moves what was left.
        logger.warning("the conversations of a visitor could not be given on: %s", error)
        if request is not None:
            request.session[VISITOR_KEY] = visitor


@receiver(user_logged_out)
def close_sockets_of_this_log_in(sender: object, request: HttpRequest, **kwargs: Any) -> None:
    """The session is flushed after this signal, so it is said to be over and not looked at."""
    if request.session.session_key is not None:
        session_ended(request.session.session_key, CLOSE_SIGNED_OUT)


def watch_models() -> None:
    """Connects what the models of accounts and sessions say. Called once the apps are loaded."""
    user_model = get_user_model()
    post_save.connect(_account_saved, sender=user_model)
    post_delete.connect(_account_deleted, sender=user_model)
    for holder in (user_model, Group):
        for relation in ("user_permissions", "groups", "permissions"):
            if hasattr(holder, relation):
                m2m_changed.connect(_rights_changed, sender=getattr(holder, relation).through)
    for model in (Group, Permission):
        post_delete.connect(_rights_deleted, sender=model)
    store = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, DatabaseSessionStore):
        post_delete.connect(_session_deleted, sender=store.get_model_class())


def _account_saved(
    instance: Any, created: bool, update_fields: Any, using: str, **kwargs: Any
) -> None:
    only_signed_in = update_fields is not None and set(update_fields) == {"last_login"}
    if not created and not only_signed_in:
        _at_commit(partial(owner_changed, f"user:{instance.pk}"), using)


def _account_deleted(instance: Any, using: str, **kwargs: Any) -> None:
    _at_commit(partial(owner_changed, f"user:{instance.pk}"), using)


def _rights_changed(action: str, using: str, **kwargs: Any) -> None:
    if action.startswith("post_"):
        _at_commit(permissions_changed, using)


def _rights_deleted(using: str, **kwargs: Any) -> None:
    _at_commit(permissions_changed, using)


def _session_deleted(instance: Any, using: str, **kwargs: Any) -> None:
    """Django also gives a session another key, and deletes the old one: who was signed in may come
    back as whoever they are now. A visitor whose session ends by signing in is not looked at here.
    """
    if instance.expire_date > now() and SESSION_KEY in instance.get_decoded():
        _at_commit(partial(session_ended, instance.session_key, CLOSE_RESYNC), using)


def _at_commit(announce: Callable[[], None], using: str) -> None:
    """Whoever hears it looks into the database, and shall find what was changed there."""
    transaction.on_commit(announce, using=using, robust=True)
