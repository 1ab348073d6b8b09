"""From the owner of a conversation to the account a tool runs as."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser


async def load_user(owner: str) -> AbstractBaseUser | None:
    """The active account of `user:<pk>`, read anew; None for a visitor, and when there is none."""
    kind, _, pk = owner.partition(":")
    if kind != "user":
        return None
    return await get_user_model().objects.filter(pk=pk, is_active=True).afirst()
