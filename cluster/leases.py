"""Leases: the conversations that this process owns, and the task that keeps them.

A lease is counted from before its request was sent, on this process's own clock: a process that
was stopped for longer knows, when it wakes, that it owns nothing any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from .store import Batch, Claim, RedisStore, Refusal
from .tasks import end

logger = logging.getLogger(__name__)

LEASE_SECONDS = 9.0
RETRY_SECONDS = 0.05
RETRY_SECONDS_MOST = 0.5


REASONS: Mapping[Refusal, str] = {
    "fenced": "another process has taken over",
    "lost": "Redis has lost the conversation's data",
    "diverged": "Redis has gone back behind what was written",
    "expired": "Redis was not reached before the lease ran out",
}


class LeaseLost(Exception):
    """The process owns the conversation no more; nothing was written."""


@dataclass(eq=False)
class Lease:
    """One conversation, owned. `until` is on the loop's clock."""

    conv_id: str
    claim: Claim
    until: float
    mail: str = ""
    lost: Refusal | None = None
    _timer: asyncio.TimerHandle | None = field(default=None, repr=False)


class Leases:
    """Claims, renews and gives up. Belongs to one event loop.

    `on_lost` is told, in one step with it, of each lease that ended without being given up;
    `on_mail` of a conversation in which mail waits.
    """

    def __init__(
        self,
        store: RedisStore,
        process: str,
        *,
        on_lost: Callable[[Lease], None],
        on_mail: Callable[[str], None],
        seconds: float = LEASE_SECONDS,
    ) -> None:
        self.process = process
        self._store = store
        self._seconds = seconds
        self._ttl_ms = round(seconds * 1000)
        self._on_lost = on_lost
        self._on_mail = on_mail
        self._held: dict[str, Lease] = {}
        self._diverged: dict[str, int] = {}
        self._keeper: asyncio.Task[None] | None = None
        self.losses: Counter[Refusal] = Counter()

    def get(self, conv_id: str) -> Lease | None:
        """The lease that this process has, if it has one."""
        return self._held.get(conv_id)

    def __len__(self) -> int:
        return len(self._held)

    @property
    def held(self) -> tuple[str, ...]:
        return tuple(self._held)

    async def claim(self, conv_id: str) -> Lease | Claim:
        """The lease; or, where another process owns the conversation, what that was told."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        claim = await self._store.claim(
            conv_id,
            self.process,
            ttl_ms=self._ttl_ms,
            diverged_epoch=self._diverged.get(conv_id, 0),
        )
        if claim.held:
            return claim
        self._diverged.pop(conv_id, None)
        lease = self._held.get(conv_id)
        if lease is not None and lease.claim.fence == claim.fence:
            self._lengthen(lease, began)
            return lease
        if lease is not None:
            self._lose(lease, "fenced")
        # Before anything may run in it: who takes over must know where to look.
        await self._store.note_leases([conv_id], ttl_ms=self._ttl_ms)
        lease = self._held.get(conv_id)
        if lease is not None and lease.claim.fence == claim.fence:
            return lease  # claimed twice at once
        lease = self._held[conv_id] = Lease(conv_id, claim, began + self._seconds)
        self._arm(lease)
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="lease-keeper")
        return lease

    async def append(self, lease: Lease, batch: Batch, *, now_ms: int) -> None:
        """Writes for the lease's conversation. Raises LeaseLost.

        A store that cannot be reached is asked again until the lease has run out.
        """
        loop = asyncio.get_running_loop()
        pause = RETRY_SECONDS
        while lease.lost is None:
            began = loop.time()
            try:
                async with asyncio.timeout_at(lease.until):
                    answer = await self._store.append(
                        lease.conv_id,
                        self.process,
                        lease.claim,
                        batch,
                        ttl_ms=self._ttl_ms,
                        now_ms=now_ms,
                    )
            except (RedisError, OSError, TimeoutError) as error:
                logger.debug("the log of %s cannot be reached: %s", lease.conv_id, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, RETRY_SECONDS_MOST)
                continue
            if answer.refusal is not None:
                self._lose(lease, answer.refusal)
                break
            self._lengthen(lease, began)
            self._heed(lease, answer.mail)
            return
        raise LeaseLost(f"{lease.conv_id} is not this process's any more")

    async def release(self, lease: Lease, *, mail_done: str) -> bool:
        """Gives the conversation up. False: mail waits, and it is owned as before."""
        if lease.lost is not None:
            return True
        if not await self._store.release(
            lease.conv_id, self.process, lease.claim, mail_done=mail_done
        ):
            return False
        self._drop(lease)
        return True

    def roll_back(self, conv_id: str) -> None:
        """The log was found behind what this process wrote to it: nobody goes on in that epoch."""
        lease = self._held.get(conv_id)
        if lease is not None:
            self._lose(lease, "diverged")

    def abandon(self, lease: Lease, why: Refusal) -> None:
        """Gives up what cannot be told to the store."""
        self._lose(lease, why)

    def abandon_all(self, why: Refusal) -> None:
        for lease in tuple(self._held.values()):
            self._lose(lease, why)

    async def aclose(self) -> None:
        if self._keeper is not None:
            await end(self._keeper)
        for lease in tuple(self._held.values()):
            self._drop(lease)

    def _heed(self, lease: Lease, mail: str) -> None:
        if mail and mail != lease.mail:
            lease.mail = mail
            self._on_mail(lease.conv_id)

    def _lengthen(self, lease: Lease, began: float) -> None:
        lease.until = began + self._seconds

    def _arm(self, lease: Lease) -> None:
        loop = asyncio.get_running_loop()
        lease._timer = loop.call_at(lease.until, self._expire, lease)

    def _expire(self, lease: Lease) -> None:
        if asyncio.get_running_loop().time() < lease.until:
            self._arm(lease)
        elif lease.lost is None:
            self._lose(lease, "expired")

    def _lose(self, lease: Lease, why: Refusal) -> None:
        if lease.lost is not None:
            return
        lease.lost = why
        if why == "diverged":
            self._diverged[lease.conv_id] = lease.claim.epoch
        self._drop(lease)
        self.losses[why] += 1
        logger.warning("what runs in %s ends here: %s", lease.conv_id, REASONS[why])
        self._on_lost(lease)

    def _drop(self, lease: Lease) -> None:
        if lease._timer is not None:
            lease._timer.cancel()
        if self._held.get(lease.conv_id) is lease:
            del self._held[lease.conv_id]
        lease.lost = lease.lost or "fenced"

    async def _keep(self) -> None:
        """Renews every lease three times in its life, busy with frames or not."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            # Counted from when it began: one answer that does not come delays no other lease.
            due = max(due + self._seconds / 3, loop.time())
            await asyncio.sleep(due - loop.time())
            leases = tuple(self._held.values())
            if leases:
                await asyncio.gather(self._note(), *map(self._renew, leases))

    async def _note(self) -> None:
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(self._seconds / 3):
                await self._store.note_leases(self.held, ttl_ms=self._ttl_ms)

    async def _renew(self, lease: Lease) -> None:
        """By itself: of a cluster, one node may be away and the others there."""
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._seconds / 3):
                answer = await self._store.renew(
                    lease.conv_id, self.process, lease.claim, ttl_ms=self._ttl_ms
                )
        except (RedisError, OSError, TimeoutError) as error:
            logger.debug("the lease of %s could not be renewed: %s", lease.conv_id, error)
            return
        if lease.lost is not None:
            return
        if answer.refusal is not None:
            self._lose(lease, answer.refusal)
        else:
            self._lengthen(lease, began)
            self._heed(lease, answer.mail)
