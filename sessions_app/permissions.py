"""Tools behind Django's permissions."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import close_old_connections

from .inference.errors import ToolDenied
from .inference.executor import DefaultToolExecutor
from .inference.tools import Arguments, Tool, ToolContext

P = ParamSpec("P")
T = TypeVar("T")


def fresh_connections(function: Callable[P, T]) -> Callable[P, T]:
    """What a request does for its view: no connection that has ended or is too old is used."""

    @wraps(function)
    def with_fresh_connections(*args: P.args, **kwargs: P.kwargs) -> T:
        close_old_connections()
        try:
            return function(*args, **kwargs)
        finally:
            close_old_connections()

    return with_fresh_connections


class PermissionToolExecutor(DefaultToolExecutor):
    """Runs a tool with a `permission` only for a user who has it, asked at every call.

    The user is read from the database anew: a permission taken away, an account that was closed or
    deleted counts from the next call on. A visitor has no permission. Sync tools may use the
    database; their threads keep no old connections.
    """

    async def authorise(self, tool: Tool, arguments: Arguments, context: ToolContext) -> None:
        if tool.permission is None:
            return
        if not isinstance(context.user, AbstractBaseUser):
            raise ToolDenied(f"{tool.name} is only for people who have logged in.")
        if not await sync_to_async(_may)(context.user.pk, tool.permission):
            raise ToolDenied(f"You need the permission {tool.permission!r} to use {tool.name}.")

    def call_sync(self, tool: Tool, arguments: Arguments, context: ToolContext) -> object:
        return fresh_connections(super().call_sync)(tool, arguments, context)


@fresh_connections
def _may(pk: str | int, permission: str) -> bool:
    user = get_user_model()._default_manager.filter(pk=pk).first()
    return user is not None and user.has_perm(permission)
