"""PromptQueue: what waits for its turn in one session. FIFO and bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from dataclasses import dataclass, field

from .inference.errors import NotQueued, QueueFull
from .inference.events import QueuedPrompt, QueueUpdated
from .profiles import Profile
from .record import StoredPrompt

PREVIEW_CHARS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt on its way to an inference, with the runtime it asked for.

    `profile` becomes the session's from then on; `runtime` (its overrides applied) and `step_mode`
    are for this prompt alone. None: as the session has it when the prompt is taken up. `queued_ms`:
    since when it waits. `context` is that of whoever sent it: a prompt that waits runs in it too.
    """

    text: str
    key: str
    profile: Profile | None = None
    runtime: Profile | None = None
    step_mode: bool | None = None
    queued_ms: int | None = None
    context: Context = field(default_factory=copy_context, compare=False, repr=False)

    def stored(self) -> StoredPrompt:
        """The prompt as another process can take it up; its context stays here."""
        return StoredPrompt(
            text=self.text,
            key=self.key,
            profile=None if self.profile is None else self.profile.slug,
            runtime=self.runtime,
            step_mode=self.step_mode,
            queued_ms=self.queued_ms,
        )

    @classmethod
    def of(cls, stored: StoredPrompt, profile_of: Callable[[str], Profile]) -> Prompt:
        """The inverse of `stored`, in the context of whoever calls."""
        return cls(
            text=stored.text,
            key=stored.key,
            profile=None if stored.profile is None else profile_of(stored.profile),
            runtime=stored.runtime,
            step_mode=stored.step_mode,
            queued_ms=stored.queued_ms,
        )


class PromptQueue:
    """At most `limit` prompts. `put` refuses when full, and waits for nothing."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._prompts: deque[Prompt] = deque()

    def __len__(self) -> int:
        return len(self._prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(tuple(self._prompts))

    def put(self, prompt: Prompt, *, first: bool = False) -> int:
        """Adds a prompt, at the front with `first`; returns its position from 1."""
        if len(self._prompts) >= self._limit:
            raise QueueFull(
                f"{len(self._prompts)} prompts wait already, which is the most; "
                "wait for one to be taken up, or remove one"
            )
        if first:
            self._prompts.appendleft(prompt)
            return 1
        self._prompts.append(prompt)
        return len(self._prompts)

    def take(self) -> Prompt | None:
        """The next prompt, if one waits."""
        return self._prompts.popleft() if self._prompts else None

    def remove(self, key: str) -> Prompt:
        """Takes the prompt of that key out. Raises NotQueued."""
        for prompt in self._prompts:
            if prompt.key == key:
                self._prompts.remove(prompt)
                return prompt
        raise NotQueued("no prompt with this key waits; it may have been taken up already")

    def promote(self, key: str) -> bool:
        """Puts the prompt of that key in front; False when it was there. Raises NotQueued."""
        first = self._prompts[0] if self._prompts else None
        if first is not None and first.key == key:
            return False
        self._prompts.appendleft(self.remove(key))
        return True

    def clear(self) -> bool:
        """Empties the queue; True when something waited."""
        waited = bool(self._prompts)
        self._prompts.clear()
        return waited

    def as_event(self) -> QueueUpdated:
        return QueueUpdated(
            items=tuple(
                QueuedPrompt(idempotency_key=prompt.key, preview=_preview(prompt.text))
                for prompt in self._prompts
            )
        )


def _preview(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= PREVIEW_CHARS else line[: PREVIEW_CHARS - 1] + "…"
