"""Identities: who is behind a session, for all who ask at the same time."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Collection, Mapping
from contextvars import Context

from asgiref.sync import sync_to_async
from django.db import OperationalError, connections

from sessions_app.access import Identity

BATCH = 100
"""Sessions read at once at most: others wait for the thread too."""

KEPT_SECONDS = 60.0
"""How long a database connection may lie unused before it is not trusted any more."""

_KEY = re.compile(r"[\x21-\x7e]+", re.ASCII)


class Identities:
    """Reads in one thread, whose database connection it keeps between two reads.

    Every answer was read after it was asked for. Who asks while a read is under way shares the next
    one, so that a thousand handshakes at once take ten reads.
    """

    def __init__(self, read: Callable[[Collection[str]], Mapping[str, Identity]]) -> None:
        self._read = read
        self._used = 0.0
        self._asked: dict[str, asyncio.Future[Identity]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def behind(self, session_key: str) -> Identity:
        """Who is behind the session at this moment. Raises what the database raises."""
        if not _KEY.fullmatch(session_key):
            return Identity(None)  # some databases refuse to look for what they cannot store
        if self._reading is None or self._reading.done():
            self._asked = {}
            # Of no request: its thread is none of a request's, and its end is none of a request's.
            self._reading = asyncio.create_task(
                self._read_all(), name="identities", context=Context()
            )
        answer = self._asked.get(session_key)
        if answer is None:
            answer = self._asked[session_key] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(answer)

    async def _read_all(self) -> None:
        while self._asked:
            batch = {key: self._asked.pop(key) for key in tuple(self._asked)[:BATCH]}
            found: Mapping[str, Identity | Exception]
            try:
                found = await sync_to_async(self._read_now)(tuple(batch))
            except Exception as failure:  # noqa: BLE001 - who asked is told
                found = dict.fromkeys(batch, failure)
            for key, answer in batch.items():
                who = found.get(key, Identity(None))
                if isinstance(who, Identity):
                    answer.set_result(who)
                else:
                    answer.set_exception(who)
                    answer.exception()  # who asked may have gone

    def _read_now(self, session_keys: Collection[str]) -> Mapping[str, Identity | Exception]:
        if time.monotonic() - self._used > KEPT_SECONDS:
            connections.close_all()
        try:
            return self._read(session_keys)
        except Exception:  # noqa: BLE001 - read again, and raised then
            # A connection that the database has ended says so only when it is used.
            connections.close_all()
            return self._read_each(session_keys)
        finally:
            self._used = time.monotonic()

    def _read_each(self, session_keys: Collection[str]) -> Mapping[str, Identity | Exception]:
        """One by one: nobody is turned away because somebody else's session cannot be read."""
        found: dict[str, Identity | Exception] = {}
        for key in session_keys:
            try:
                found |= self._read([key])
            except OperationalError:
                raise
            except Exception as error:  # noqa: BLE001 - who asked is told
                found[key] = error
        return found
