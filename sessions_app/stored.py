"""Stored: what lies in the store beside a conversation's log, with what newer code has added."""

from __future__ import annotations

import msgspec

from cluster.fields import Fields, unknown_fields, with_fields

from .record import VERSION, SessionRecord


class Stored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The session, how far its mail was taken, and the last answers given, oldest first."""

    session: SessionRecord | None = None
    mail_done: str = ""
    answers: tuple[tuple[str, str, msgspec.Raw], ...] = ()  # the mail's id, its sender, the Reply

    @classmethod
    def of(cls, raw: bytes | None) -> Stored:
        return cls() if raw is None else msgspec.json.decode(raw, type=cls)


class _SessionAlone(msgspec.Struct, frozen=True):
    session: msgspec.Raw = msgspec.Raw(b"{}")


def given_to(raw: bytes, owner: str) -> bytes:
    """The same as it is stored, with another owner of the session."""
    session = msgspec.json.decode(raw, type=_SessionAlone).session
    given = with_fields(bytes(session), {"owner": msgspec.Raw(msgspec.json.encode(owner))})
    return with_fields(raw, {"session": msgspec.Raw(given)})


class Newer:
    """What newer code has added to one conversation's, to be written again with every change."""

    def __init__(self, raw: bytes | None = None) -> None:
        self._fields: Fields = {}
        self._of_session: Fields = {}
        if raw is None:
            return
        self._fields = unknown_fields(raw, Stored)
        found = Stored.of(raw).session
        if found is not None:
            session = msgspec.json.decode(raw, type=_SessionAlone).session
            newer = {"v": msgspec.Raw(b"%d" % found.v)}
            self._of_session = {
                **unknown_fields(bytes(session), SessionRecord),
                **(newer if found.v > VERSION else {}),
            }

    def added_to(self, raw: bytes) -> bytes:
        if self._of_session:
            session = msgspec.json.decode(raw, type=_SessionAlone).session
            told = msgspec.Raw(with_fields(bytes(session), self._of_session))
            raw = with_fields(raw, {"session": told})
        return with_fields(raw, self._fields)
