"""RedisStore: the verbs by which processes share conversations. Each is one atomic step.

Every verb may be sent again after a lost answer, and then changes nothing more: redis-py does so
by itself on a broken connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Literal, NamedTuple, TypeAlias

from redis.asyncio import Redis

from .together import together

NAMESPACE = "webchat"

Refusal: TypeAlias = Literal["fenced", "lost", "diverged", "expired"]
"""Why an owner is none any more: another took over; the data is gone; the log went back; the store
was away for longer than the lease."""


class Claim(NamedTuple):
    """Who owns the conversation after the call. `held` by another process: nothing changed.

    `fence` and `epoch` go with every verb of the owner. `remaining_ms` is the time that the lease
    of `owner` has left.
    """

    held: bool
    owner: str
    remaining_ms: int
    fence: int
    epoch: int


class Written(NamedTuple):
    """An entry of the log. `id` begins with its number and ends with what its writer drew."""

    id: str
    at_ms: int
    size: int
    event: str
    text: str

    @property
    def seq(self) -> int:
        return int(self.id.partition("-")[0])


class Page(NamedTuple):
    """What a log answers to a cursor: `reason` where it could not be proved, else the entries."""

    reason: str
    epoch: int
    head: int
    head_id: str
    active: str
    queued: int
    kept_frames: int
    kept_bytes: int
    entries: Sequence[Written]


class Whole(NamedTuple):
    """The stored snapshot, None where there is none, and every entry after it, in `page`.

    `page.reason` is "gone" where some of these entries are not there any more.
    """

    snapshot: bytes | None
    page: Page


class Batch(NamedTuple):
    """What an owner says in one call. None leaves what is there."""

    prev_seq: int
    prev_id: str
    active: str
    queued: int
    entries: Sequence[Written]
    record: bytes | None = None
    turns: bytes | None = None
    snap_seq: int = 0
    snap: bytes | None = None
    mail_done: str = ""


class Extra(NamedTuple):
    """What goes along with an owner's frames in one step: the session's state where it changed."""

    record: bytes | None = None
    turns: bytes | None = None
    mail_done: str = ""


NOTHING = Extra()


class KeptKey(NamedTuple):
    """What an idempotency key was first used for; `answer` once there is one, else empty."""

    new: bool
    request: str
    conv_id: str
    answer: str


class Answer(NamedTuple):
    """`refusal` None: done. `mail` is the last mail's id, empty where there is none."""

    refusal: Refusal | None
    mail: str


class Bounds(NamedTuple):
    """How much is kept of a log, of a conversation nobody uses, and of one owner's keys."""

    frames: int
    bytes: int
    age_ms: int
    ttl_seconds: int
    keys: int = 10_000
    key_seconds: int = 24 * 3600


class Keys:
    """The keys of one conversation: one hash slot, so that one script may touch them all."""

    __slots__ = ("log", "mail", "meta", "record", "snap", "turns")

    def __init__(self, conv_id: str) -> None:
        stem = f"{NAMESPACE}:{{{conv_id}}}"
        self.meta = f"{stem}:meta"
        self.log = f"{stem}:log"
        self.snap = f"{stem}:snap"
        self.record = f"{stem}:record"
        self.turns = f"{stem}:turns"
        self.mail = f"{stem}:mail"

    @property
    def all(self) -> list[str]:
        """In the order in which scripts have them."""
        return [self.meta, self.log, self.snap, self.record, self.turns, self.mail]


class _OwnerKeys:
    """What is kept of one owner. `values` and `ages` have one hash slot: scripts touch both."""

    __slots__ = ("ages", "owned", "values")

    def __init__(self, owner: str) -> None:
        self.values = f"{NAMESPACE}:keys:{owner}"
        """What each idempotency key stands for."""
        self.ages = f"{NAMESPACE}:keys-at:{{{self.values}}}"
        """Since when it does."""
        self.owned = f"{NAMESPACE}:owner:{owner}"


class RedisStore:
    """The verbs on one Redis, or on a cluster. `client` must not decode answers; it may be shared.

    What many conversations ask at once takes few connections: see `together`.
    """

    def __init__(self, client: Redis, *, bounds: Bounds) -> None:
        self.client = client
        self._bounds = bounds
        verbs = (
            "claim",
            "append",
            "renew",
            "release",
            "read",
            "fold",
            "hint",
            "due",
            "reserve",
            "answered",
            "forget",
            "kept",
            "keep",
            "swap",
            "post",
            "list",
        )
        self._scripts = {verb: client.register_script(source(verb)) for verb in verbs}
        self._writes = together(client, most=64, trips=2)
        # Fewer at once: an answer may be a page of frames.
        self._reads = together(client, most=16, trips=4)

    async def claim(
        self, conv_id: str, process: str, *, ttl_ms: int, diverged_epoch: int = 0
    ) -> Claim:
        """Makes `process` the owner, unless another's lease still runs; makes it where it is not.

        With `diverged_epoch` the log goes on in a new epoch where it is still in that one.
        """
        status, owner, remaining, fence, epoch = await self._writes.run(
            self._scripts["claim"],
            Keys(conv_id).all,
            (process, ttl_ms, diverged_epoch, self._bounds.ttl_seconds),
        )
        return Claim(
            held=status == b"HELD",
            owner=_text(owner),
            remaining_ms=int(remaining),
            fence=int(fence),
            epoch=int(epoch),
        )

    async def append(
        self, conv_id: str, process: str, claim: Claim, batch: Batch, *, ttl_ms: int, now_ms: int
    ) -> Answer:
        """Writes the batch and renews the lease, all or nothing."""
        bounds = self._bounds
        args: list[Any] = [
            process,
            claim.fence,
            claim.epoch,
            ttl_ms,
            bounds.ttl_seconds,
            batch.prev_seq,
            batch.prev_id,
            batch.active,
            batch.queued,
            bounds.frames,
            bounds.bytes,
            now_ms - bounds.age_ms,
            batch.record or b"",
            batch.turns or b"",
            batch.snap_seq,
            batch.snap or b"",
            batch.mail_done,
            len(batch.entries),
        ]
        for entry in batch.entries:
            args += entry
        status, mail = await self._writes.run(self._scripts["append"], Keys(conv_id).all, args)
        return Answer(_refusal(status), _text(mail))

    async def renew(self, conv_id: str, process: str, claim: Claim, *, ttl_ms: int) -> Answer:
        """Lengthens the lease. What is owned is used: nothing of it grows old."""
        status, mail = await self._writes.run(
            self._scripts["renew"],
            Keys(conv_id).all,
            (process, claim.fence, claim.epoch, ttl_ms, self._bounds.ttl_seconds),
        )
        return Answer(_refusal(status), _text(mail))

    async def release(self, conv_id: str, process: str, claim: Claim, *, mail_done: str) -> bool:
        """Gives the conversation up; False where mail waits after `mail_done`: it stays owned."""
        keys = Keys(conv_id)
        [status] = await self._writes.run(
            self._scripts["release"],
            (keys.meta, keys.mail),
            (process, claim.fence, claim.epoch, mail_done),
        )
        return bool(status != b"MAIL")

    async def read(
        self, conv_id: str, *, epoch: int, seq: int, id: str, limit: int, now_ms: int
    ) -> Page:
        """At most `limit` entries after a place that is proved, or why it is not."""
        keys = Keys(conv_id)
        oldest = now_ms - self._bounds.age_ms
        found = await self._reads.run(
            self._scripts["read"], (keys.meta, keys.log), (epoch, seq, id, limit, oldest)
        )
        return _page(found[:8], found[8:])

    async def fold(self, conv_id: str) -> Whole:
        """What a fold of the whole log begins with, of one moment, however old it is."""
        keys = Keys(conv_id)
        found = await self._reads.run(self._scripts["fold"], (keys.meta, keys.log, keys.snap), ())
        return Whole(found[8] or None, _page(found[:8], found[9:]))

    async def window(self, conv_id: str, *, since_seq: int = 0) -> Sequence[Written]:
        """The entries that are kept of those after a number."""
        found: Any = await self.client.xrange(Keys(conv_id).log, str(since_seq + 1), "+")
        return [_written(id, [part for pair in f.items() for part in pair]) for id, f in found]

    async def heads(self, conv_ids: Sequence[str]) -> Sequence[int]:
        """The number of the last entry of each; 0 where nothing was written."""
        keys = [Keys(conv_id).meta for conv_id in conv_ids]
        return [int(head or 0) for head in await self._reads.ask_all("HGET", keys, "head")]

    async def record(self, conv_id: str) -> bytes | None:
        return await self._get(Keys(conv_id).record)

    async def records(self, conv_ids: Sequence[str]) -> Sequence[bytes | None]:
        """As `record`, of many."""
        return await self._reads.ask_all("GET", [Keys(conv_id).record for conv_id in conv_ids])

    async def swap_record(self, conv_id: str, before: bytes, after: bytes) -> bool:
        """Changes the record where nobody owns the conversation; False where somebody does."""
        keys = Keys(conv_id)
        done = await self._writes.run(
            self._scripts["swap"], (keys.meta, keys.record), (before, after)
        )
        return bool(done)

    async def turns(self, conv_id: str) -> bytes | None:
        return await self._get(Keys(conv_id).turns)

    async def _get(self, key: str) -> bytes | None:
        found: Any = await self.client.get(key)
        return found if found is None else bytes(found)

    async def post(self, conv_id: str, command: bytes) -> str:
        """Leaves mail for whoever owns the conversation; its id."""
        id = await self._writes.run(
            self._scripts["post"],
            [Keys(conv_id).mail],
            (MAIL_MAX, self._bounds.ttl_seconds, "c", command),
        )
        return _text(id)

    async def mail(self, conv_id: str, *, after: str) -> Sequence[tuple[str, bytes]]:
        """The mail after an id, oldest first, with ids."""
        found: Any = await self.client.xrange(
            Keys(conv_id).mail, f"({after}" if after else "-", "+"
        )
        return [(_text(id), fields[b"c"]) for id, fields in found]

    async def reserve_key(self, owner: str, key: str, request: str, conv_id: str) -> KeptKey:
        """Keeps what a key is first used for; or tells what it was."""
        keys = _OwnerKeys(owner)
        new, found = await self._writes.run(
            self._scripts["reserve"],
            (keys.values, keys.ages),
            (key, f"{request} {conv_id} ", self._bounds.keys, self._bounds.key_seconds * 1000),
        )
        first_request, first_conv, answer = _text(found).split(" ", 2)
        return KeptKey(bool(new), first_request, first_conv, answer)

    async def answer_key(
        self, owner: str, key: str, request: str, conv_id: str, answer: str
    ) -> None:
        """Keeps what was answered with the key, for as long as the key is kept."""
        await self._writes.run(
            self._scripts["answered"],
            [_OwnerKeys(owner).values],
            (key, f"{request} {conv_id} {answer}"),
        )

    async def forget_key(self, owner: str, key: str) -> None:
        keys = _OwnerKeys(owner)
        await self._writes.run(self._scripts["forget"], (keys.values, keys.ages), [key])

    async def note_owner(self, owner: str, conv_id: str, at_ms: int) -> None:
        """Lists the conversation among its owner's."""
        await self._writes.run(
            self._scripts["list"],
            [_OwnerKeys(owner).owned],
            (OWNED_MAX, self._bounds.ttl_seconds, at_ms, conv_id),
        )

    async def owned(self, owner: str) -> Sequence[str]:
        """The owner's conversations, newest activity first."""
        found: Any = await self.client.zrevrange(_OwnerKeys(owner).owned, 0, -1)
        return [_text(id) for id in found]

    async def transfer(self, old_owner: str, new_owner: str) -> None:
        """Gives the list and the keys of one owner to another, who keeps its own where both are.

        Asked again after it was cut short, it goes on.
        """
        old, new = _OwnerKeys(old_owner), _OwnerKeys(new_owner)
        kept, ages = await self._reads.run(self._scripts["kept"], (old.values, old.ages), ())
        await self._writes.run(
            self._scripts["keep"],
            (new.values, new.ages),
            (self._bounds.key_seconds * 1000, len(kept) // 2, *kept, *ages),
        )
        await self.client.delete(old.values, old.ages)
        await self.client.delete(old.owned)

    async def note_leases(self, conv_ids: Sequence[str], *, ttl_ms: int) -> None:
        """Notes for every process's reaper when these leases end. A hint: `claim` decides."""
        await self._writes.run(
            self._scripts["hint"], [LEASES], (self._bounds.ttl_seconds, ttl_ms, *conv_ids)
        )

    async def forget_lease(self, conv_id: str) -> None:
        await self.client.zrem(LEASES, conv_id)

    async def due(self, *, most: int) -> Sequence[str]:
        """Conversations whose lease has ended with work left in them."""
        return [_text(id) for id in await self._reads.run(self._scripts["due"], [LEASES], [most])]


MAIL_MAX = 1000
OWNED_MAX = 1000
LEASES = f"{NAMESPACE}:leases"

_REFUSALS: dict[bytes, Refusal] = {
    b"FENCED": "fenced",
    b"LOST": "lost",
    b"DIVERGED": "diverged",
}


def source(verb: str) -> str:
    """The script of a verb."""
    return files(__package__).joinpath("lua", f"{verb}.lua").read_text()


def _refusal(status: bytes) -> Refusal | None:
    return _REFUSALS.get(status)


def _page(state: Sequence[Any], entries: Sequence[tuple[bytes, Sequence[bytes]]]) -> Page:
    reason, epoch, head, head_id, active, queued, frames, size = state
    return Page(
        reason=_text(reason),
        epoch=int(epoch),
        head=int(head),
        head_id=_text(head_id),
        active=_text(active),
        queued=int(queued),
        kept_frames=int(frames),
        kept_bytes=int(size),
        entries=[_written(id, fields) for id, fields in entries],
    )


def _written(id: bytes, fields: Sequence[bytes]) -> Written:
    _, at_ms, _, size, _, _, _, event, _, text = fields
    return Written(_text(id), int(at_ms), int(size), _text(event), _text(text))


def _text(raw: bytes | str | int) -> str:
    return raw.decode() if isinstance(raw, bytes) else str(raw)
