"""Tagged blocks in a model's words: `<tag>…</tag>`, cut out of text however it arrives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from ..engine import Infer
from ..errors import ConfigurationError, StreamStalled
from ..events import EngineEvent, Log, ModelCallFinished, TextDelta, publish, publishing_to
from ..turns import Block, LlmText, Turn

MAX_BLOCK_CHARS = 64 * 1024
UNREADABLE_PREVIEW_CHARS = 500
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tagged:
    """What stood between `<tag>` and `</tag>`."""

    tag: str
    text: str


Piece: TypeAlias = str | Tagged
"""Visible text, or a block."""

NOT_JSON = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What decoding a block's text may raise."""


def unreadable(block: Tagged, error: Exception) -> Log:
    """What the people in the conversation are told of a block that is not what it should be."""
    return Log(
        level="warning",
        message=f"A <{block.tag}> block could not be read: {error}",
        fields={"text": block.text[:UNREADABLE_PREVIEW_CHARS]},
    )


class TagScanner:
    """Cuts text into visible text and tagged blocks: the same ones for every way to split it.

    Text that may be the beginning of a tag is held back until it is clear. A block ends at the
    first `</tag>`; one that does not end within `MAX_BLOCK_CHARS`, or at all, was visible text.
    Raises ConfigurationError for a name that is no tag.
    """

    def __init__(self, tags: Iterable[str]) -> None:
        names = tuple(tags)
        for name in names:
            if not _TAG.fullmatch(name):
                raise ConfigurationError(
                    f"tag {name!r} is not a tag's name",
                    hint="Use a letter, then up to 63 of A-Z a-z 0-9 _ -, without < and >.",
                )
        self._openings = [f"<{name}>" for name in names]
        # Without tags it matches nothing.
        self._opening = re.compile("|".join(self._openings) or r"(?!)")
        self._open: str | None = None
        self._held = ""

    def feed(self, text: str) -> list[Piece]:
        """What has become clear with the next piece of the text, in its order."""
        self._held += text
        return _joined(self._clear(final=False))

    def finish(self) -> list[Piece]:
        """What was held back; the text has ended. Afterwards the scanner is as new."""
        return _joined(self._clear(final=True))

    def _clear(self, *, final: bool) -> list[Piece]:
        out: list[Piece] = []
        while True:
            if self._open is not None:
                close = f"</{self._open}>"
                at = self._held.find(close, 0, MAX_BLOCK_CHARS + len(close))
                if at >= 0:
                    out.append(Tagged(self._open, self._held[:at]))
                    self._held = self._held[at + len(close) :]
                elif final or len(self._held) >= MAX_BLOCK_CHARS + len(close):
                    out.append(f"<{self._open}>")
                else:
                    return out
                self._open = None
            elif match := self._opening.search(self._held):
                out.append(self._held[: match.start()])
                self._open = match[0][1:-1]
                self._held = self._held[match.end() :]
            else:
                clear = len(self._held) - (0 if final else self._unclear())
                out.append(self._held[:clear])
                self._held = self._held[clear:]
                return out

    def _unclear(self) -> int:
        """How many characters at the end may be the beginning of an opening tag."""
        at = self._held.rfind("<")
        end = self._held[at:] if at >= 0 else ""
        return len(end) if any(opening.startswith(end) for opening in self._openings) else 0


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces with no empty text, and no two texts side by side."""
    out: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and out and isinstance(last := out[-1], str):
            out[-1] = last + piece
        elif piece:
            out.append(piece)
    return out


async def infer_without(
    tags: Sequence[str], infer: Infer, turn: Turn, on_block: Callable[[Tagged], None]
) -> tuple[Turn, Sequence[Tagged]]:
    """Asks `infer`, and takes the blocks of `tags` out of the stream and out of the new text.

    `on_block` is told each block of the stream as soon as it is whole. Returns the answered turn
    and the blocks of its new text. Text that was held back is published in the end, also when the
    call fails or is cancelled.
    """
    sink = _HidingSink(TagScanner(tags), on_block)
    with publishing_to(sink):
        try:
            answered = await infer(turn)
        except BaseException:
            # The call's own end goes on, whatever becomes of the rest of its text.
            with suppress(StreamStalled):
                sink.finish()
            raise
        sink.finish()
    return _without_blocks(answered, TagScanner(tags), known={block.id for block in turn.blocks})


class _HidingSink:
    """The sink of a model call, without the blocks a scanner finds."""

    def __init__(self, scanner: TagScanner, on_block: Callable[[Tagged], None]) -> None:
        # `publish` in this context reaches the sink around us.
        self._around = copy_context()
        self._scanner = scanner
        self._on_block = on_block

    def publish(self, event: EngineEvent) -> None:
        if isinstance(event, TextDelta):
            self._pass_on(self._scanner.feed(event.text))
            return
        if isinstance(event, ModelCallFinished):
            self.finish()  # no text of a call is taken after its end
        self._around.run(publish, event)

    def finish(self) -> None:
        self._pass_on(self._scanner.finish())

    def _pass_on(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            if isinstance(piece, Tagged):
                self._around.run(self._on_block, piece)
            else:
                self._around.run(publish, TextDelta(piece))


def _without_blocks(
    answered: Turn, scanner: TagScanner, *, known: set[str]
) -> tuple[Turn, Sequence[Tagged]]:
    """The turn whose new text has no tagged blocks, and those. All its new text is one stream."""
    texts: dict[str, str] = {}
    found: list[Tagged] = []
    last = None

    def keep(block_id: str, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            if isinstance(piece, Tagged):
                found.append(piece)
            else:
                texts[block_id] = texts.get(block_id, "") + piece

    for block in answered.blocks:
        if isinstance(block, LlmText) and block.id not in known:
            last = block.id
            keep(last, scanner.feed(block.text))
    if last is not None:
        keep(last, scanner.finish())
    blocks: list[Block] = []
    for block in answered.blocks:
        if not isinstance(block, LlmText) or block.id in known:
            blocks.append(block)
        elif text := texts.get(block.id):  # providers refuse an empty text
            blocks.append(msgspec.structs.replace(block, text=text))
    return msgspec.structs.replace(answered, blocks=tuple(blocks)), found
