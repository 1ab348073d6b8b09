"""A log-in for the length of one command, made from the database that the server also has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from importlib import import_module

from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
)
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.sessions.backends.base import SessionBase, UpdateError

from sessions_app.access import account

from .errors import UnknownAccount

LASTS_SECONDS = 300
"""A session that could not be deleted, as after a kill, is worth nothing after this."""


class Login:
    """An account and a session of its own. `renew` before `LASTS_SECONDS` have passed."""

    def __init__(self, user: AbstractBaseUser, session: SessionBase) -> None:
        self.name = user.get_username()
        self.identity = account(user)
        self._session = session

    @property
    def cookies(self) -> dict[str, str]:
        return {settings.SESSION_COOKIE_NAME: str(self._session.session_key)}

    def renew(self) -> None:
        """Another `LASTS_SECONDS` from now. Does nothing where the session is gone."""
        with suppress(UpdateError):  # signed out, which the server says better
            self._session.save()


@contextmanager
def logged_in(username: str) -> Iterator[Login]:
    """Logs the account in, and out again whatever happens in between.

    Raises UnknownAccount. Tells nobody: it is no log-in of that person's, and counts as none.
    """
    user = _account(username)
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = user._meta.pk.value_to_string(user)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.set_expiry(LASTS_SECONDS)
    try:
        session.save()
        yield Login(user, session)
    finally:
        session.flush()


def _account(username: str) -> AbstractBaseUser:
    model = get_user_model()
    manager = model._default_manager
    try:
        user = manager.get_by_natural_key(username)
    except model.DoesNotExist:
        names = manager.values_list(model.USERNAME_FIELD, flat=True)
        near = get_close_matches(username, [str(name) for name in names[:10_000]], n=1)
        meant = f"did you mean {near[0]!r}?" if near else "name an account of this database"
        raise UnknownAccount(f"there is no user {username!r}; {meant} (--user NAME)") from None
    if not user.is_active:
        raise UnknownAccount(f"the account {username!r} is closed; name another with --user NAME")
    assert isinstance(user, AbstractBaseUser)
    return user
