"""URLs that name several servers at once, as `redis+sentinel://` and `redis+cluster://` do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qs

from redis.asyncio.connection import parse_url

Place: TypeAlias = tuple[str, int]
"""Host and port."""

_PLACE = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:\[\]]+))(?::([0-9]{1,5}))?")


class Several(NamedTuple):
    """The parts of such a URL, as they stand in it; `tls` where it begins with `rediss`."""

    tls: bool
    account: str
    places: str
    path: str
    query: str

    def options(self, *, db: str = "") -> dict[str, Any]:
        """Account, database and options for a connection, as redis-py takes them, but for TLS.

        Raises ValueError.
        """
        account = f"{self.account}@" if self.account else ""
        # A URL of one Redis, whose address is not known yet.
        scheme = "rediss" if self.tls else "redis"
        found = {**parse_url(f"{scheme}://{account}somewhere/{db}?{self.query}")}
        del found["host"]
        found.pop("connection_class", None)
        for name in ("host", "port"):
            if name in parse_qs(self.query):
                raise ValueError(f"it has the option {name!r}; expected it in the addresses")
        return found


def several_in(url: str, kind: str) -> Several | None:
    """The parts of a `redis+kind://` or `rediss+kind://`; None of any other URL."""
    scheme, _, rest = url.partition("://")
    known = {f"redis+{kind}": False, f"rediss+{kind}": True}
    if scheme.lower() not in known:
        return None
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    account, _, places = authority.rpartition("@")
    return Several(known[scheme.lower()], account, places, path, query)


def places_in(listed: str, *, of: str, port: int, form: str) -> Sequence[Place]:
    """`host:port,host` as places; `port` where none is said. Raises ValueError.

    `of` says whose addresses they are, and `form` how the URL should be, for who is told.
    """
    return tuple(_place(each, of, port, form) for each in listed.split(","))


def _place(said: str, of: str, port: int, form: str) -> Place:
    found = _PLACE.fullmatch(said)
    port = int(found[3] or port) if found else 0
    if found is None or not 0 < port < 2**16:
        raise ValueError(f"{said!r} is no address of {of}; expected host:port in {form}")
    return found[1] or found[2], port
