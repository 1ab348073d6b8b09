"""Who is behind many of Django's sessions, read anew in a few queries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from importlib import import_module
from typing import Any, TypeAlias

from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessionStore
from django.utils.crypto import constant_time_compare
from django.utils.timezone import now

from sessions_app.access import Identity, account

from .identity import VISITOR_KEY, visitor_identity

_SessionData: TypeAlias = Mapping[str, Any]


async def identities(session_keys: Collection[str]) -> dict[str, Identity]:
    """`reread` off the event loop, in one hop."""
    return await database_sync_to_async(reread)(session_keys)


def reread(session_keys: Collection[str]) -> dict[str, Identity]:
    """Who is behind each session at this moment; a session that is over has nobody.

    One query each for sessions and accounts, and two for each member of staff, where sessions are
    kept in the database. Raises what the database raises.
    """
    sessions = _sessions(session_keys)
    accounts = _accounts(data[SESSION_KEY] for data in sessions.values() if SESSION_KEY in data)
    return {key: _identity(data, accounts) for key, data in sessions.items()}


def _sessions(session_keys: Collection[str]) -> dict[str, _SessionData]:
    store = import_module(settings.SESSION_ENGINE).SessionStore
    if not issubclass(store, DatabaseSessionStore):
        return {key: store(key).load() for key in session_keys}
    alive = store.get_model_class()._default_manager.filter(
        session_key__in=session_keys, expire_date__gt=now()
    )
    decode = store().decode
    return {key: decode(data) for key, data in alive.values_list("session_key", "session_data")}


def _accounts(ids: Iterable[str]) -> dict[str, AbstractBaseUser]:
    model = get_user_model()
    found = model._default_manager.in_bulk({model._meta.pk.to_python(id) for id in ids})
    return {user._meta.pk.value_to_string(user): user for user in found.values()}


def _identity(data: _SessionData, accounts: Mapping[str, AbstractBaseUser]) -> Identity:
    if SESSION_KEY not in data:
        return visitor_identity(data.get(VISITOR_KEY))
    user = accounts.get(data[SESSION_KEY])
    if user is None or not user.is_active or not _is_of(data, user):
        return Identity(None)
    return account(user)


def _is_of(data: _SessionData, user: AbstractBaseUser) -> bool:
    """Whether the session was begun with the password that the account has now."""
    began_with = data.get(HASH_SESSION_KEY) or ""
    now_has = (user.get_session_auth_hash(), *user.get_session_auth_fallback_hash())
    return any(constant_time_compare(began_with, hash) for hash in now_has)
