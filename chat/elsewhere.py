"""What the other processes of the service say of their streams."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

import msgspec

from cluster.presence import Presence
from sessions_app.inference.errors import Unavailable

from .redis_log import reached
from .streams import StreamInfo, Streams, together

logger = logging.getLogger(__name__)

TOPIC = "streams"
TOLD_MOST = 10_000

_decoder = msgspec.json.Decoder(dict[str, StreamInfo])


class Elsewhere:
    """Says which streams this process has, and reads what others say: seconds old at most."""

    def __init__(self, presence: Presence, streams: Streams) -> None:
        self._presence = presence
        self._streams = streams
        presence.tell(TOPIC, self._tell)

    async def streams(self) -> Mapping[str, StreamInfo]:
        """The streams of all other processes. Raises Unavailable."""
        found: dict[str, StreamInfo] = {}
        for said in await reached(self._presence.others(TOPIC)):
            try:
                told = _decoder.decode(said)
            except msgspec.MsgspecError as error:
                logger.debug("another process cannot be understood: %s", error)
                continue
            for conv_id, info in told.items():
                found[conv_id] = together(info, found.get(conv_id))
        return found

    async def watched(self) -> Collection[str]:
        """The conversations that have a socket in any process; of others where they can be read."""
        try:
            there: Mapping[str, StreamInfo] = await self.streams()
        except Unavailable:
            there = {}
        everywhere = (there, self._streams.infos())
        return {conv_id for infos in everywhere for conv_id, info in infos.items() if info.sockets}

    async def _tell(self) -> bytes:
        infos = self._streams.infos()
        return msgspec.json.encode(dict(list(infos.items())[:TOLD_MOST]))
