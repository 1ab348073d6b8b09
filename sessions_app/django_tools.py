"""Tools that read from Django, and change nothing."""

from __future__ import annotations

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser, PermissionsMixin

from .inference.tools import ToolContext, tool
from .permissions import fresh_connections

VISITOR = "This conversation is a visitor's: nobody has logged in, so there is no account."
GONE = "The account of this conversation no longer exists."


@tool
async def my_account(context: ToolContext) -> object:
    """Tell who the person in this conversation is: user name, date joined, last login, groups."""
    if not isinstance(context.user, AbstractBaseUser):
        return VISITOR
    return await sync_to_async(_account)(context.user.pk)


@fresh_connections
def _account(pk: str | int) -> object:
    user = get_user_model()._default_manager.filter(pk=pk).first()
    if user is None:
        return GONE
    return {
        "username": user.get_username(),
        "date_joined": getattr(user, "date_joined", None),
        "last_login": user.last_login,
        "groups": _groups(user),
    }


def _groups(user: AbstractBaseUser) -> list[str]:
    """A user model of the project's own need not have groups, nor a date of joining."""
    if not isinstance(user, PermissionsMixin):
        return []
    return list(user.groups.order_by("name").values_list("name", flat=True))
