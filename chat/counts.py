"""What the streams of this process have done so far, and what they hold now. Plain numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from .log import GapReason
from .timeline import SnapshotReason

ResumeResult: TypeAlias = Literal["resumed"] | GapReason
DropReason: TypeAlias = Literal[
    "outbox_full", "offer_failed", "stalled", "unwritable", "log_failed", "gone"
]
"""A full outbox, or a bug as it was offered, gave a batch back to the log; an event was refused
because the log does not follow, or could not be made a frame; a frame was refused by the log; an
event came of a conversation that is another process's by now."""

CloseReason: TypeAlias = Literal[
    "client",
    "restarting",
    "too_big",
    "slow",
    "resync",
    "rate",
    "signed_out",
    "no_access",
    "ended",
    "bad_request",
    "too_many_sockets",
    "process_full",
    "other",
]
CLOSE_REASONS: dict[int | None, CloseReason] = {
    None: "client",
    1009: "too_big",
    1012: "restarting",
    1013: "process_full",
    4008: "slow",
    4010: "resync",
    4013: "rate",
    4501: "signed_out",
    4503: "no_access",
    4509: "ended",
    4513: "bad_request",
    4529: "too_many_sockets",
}
"""From the code a socket was closed with; None where the client went by itself."""


@dataclass(slots=True)
class StreamCounts:
    """Written by coordinators, pools and pumps, a step for each batch; read when somebody asks.

    Belongs to one event loop, so a number is enough.
    """

    frames: int = 0
    frame_bytes: int = 0
    frames_sent: int = 0
    resumes: Counter[ResumeResult] = field(default_factory=Counter)
    snapshots: Counter[SnapshotReason] = field(default_factory=Counter)
    closes: Counter[CloseReason] = field(default_factory=Counter)
    drops: Counter[DropReason] = field(default_factory=Counter)

    def closed(self, code: int | None) -> None:
        """A socket was closed with `code`, or went by itself."""
        self.closes[CLOSE_REASONS.get(code, "other")] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatistics:
    """One moment of the streams. `behind` are sockets that read the log themselves."""

    conversations: int
    sockets: int
    behind: int
    outbox_frames: int
    outbox_frames_max: int


RESUME_RESULTS: tuple[ResumeResult, ...] = ("resumed", *get_args(GapReason))
