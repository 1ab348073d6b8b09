"""What the tests through the border share: fresh conversations, and accounts to sign in with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import count
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.client import Visitor, visitor
from tests.live import LiveServer

PASSWORD = "a-password-that-nobody-guesses"
ACCOUNTS = 100
MAKE_ACCOUNTS = f"""
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
password = make_password({PASSWORD!r})
names = [f"user{{number}}" for number in range({ACCOUNTS})]
User.objects.bulk_create(User(username=name, password=password) for name in names)
User.objects.create(username="root", password=password, is_staff=True, is_superuser=True)
"""


@pytest.fixture
def conv() -> str:
    """The id of a conversation that nobody has used."""
    return str(uuid4())


@pytest.fixture(scope="session")
def made_accounts() -> dict[str, count[int]]:
    """The servers that have the accounts, by their addresses; the number of the next to give."""
    return {}


@pytest.fixture
def accounts(server: LiveServer, made_accounts: dict[str, count[int]]) -> Callable[[], str]:
    """Gives the name of an account that no other test uses; its password is PASSWORD."""
    if server.url not in made_accounts:
        server.manage("shell", "-v0", "-c", MAKE_ACCOUNTS)
        made_accounts[server.url] = count()
    return lambda: f"user{next(made_accounts[server.url])}"


@pytest_asyncio.fixture
async def root(server: LiveServer, accounts: object) -> AsyncIterator[Visitor]:
    """The operator: a superuser who has signed in."""
    async with visitor(server.url) as somebody:
        await somebody.sign_in("root", PASSWORD)
        yield somebody
