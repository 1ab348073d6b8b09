"""What the model sees: a Turn is the conversation so far, a Block one piece of it.

Both are values. Blocks are msgspec structs tagged by `kind`, so a turn can be stored as JSON and
read back without a schema beside it. A new prompt derives a new turn that shares the blocks.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias
from uuid import uuid4

import msgspec

Outcome: TypeAlias = Literal["completed", "cancelled", "failed", "max_iterations", "lost"]
ToolStatus: TypeAlias = Literal["success", "error", "denied", "timeout", "cancelled", "skipped"]


class _Block(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    id: str = msgspec.field(default_factory=lambda: str(uuid4()))


class System(_Block, frozen=True, kw_only=True, tag="system"):
    text: str


class User(_Block, frozen=True, kw_only=True, tag="user"):
    text: str


class LlmText(_Block, frozen=True, kw_only=True, tag="llm_text"):
    """The model's words. `stopped` marks an answer that a person or a failure cut short."""

    text: str
    stopped: bool = False


class Reasoning(_Block, frozen=True, kw_only=True, tag="reasoning"):
    """The model's thinking. `signature` is what some providers want back to accept it again."""

    text: str
    signature: str | None = None
    provider: str | None = None


class ToolCall(_Block, frozen=True, kw_only=True, tag="tool_call"):
    """A call the model asked for. `call_id` is unique in the conversation.

    `provider_id` is what the provider called it; `arguments` the raw text where that is no JSON
    object.
    """

    call_id: str
    name: str
    arguments: dict[str, Any] | str
    provider_id: str = ""


class ToolUse(_Block, frozen=True, kw_only=True, tag="tool_use"):
    """What became of a call, as the model reads it."""

    call_id: str
    text: str
    status: ToolStatus = "success"


class Other(_Block, frozen=True, kw_only=True, tag="other"):
    """What an engine must remember and nobody else understands."""

    name: str
    props: dict[str, object]


Block: TypeAlias = System | User | LlmText | Reasoning | ToolCall | ToolUse | Other


class TurnMetadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a turn came from. `outcome` is None until its inference has ended."""

    session_id: str = ""
    inference_id: str | None = None
    fingerprint: str | None = None
    outcome: Outcome | None = None


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """An immutable transcript. Every verb returns a new turn; blocks are shared, never copied."""

    id: str = msgspec.field(default_factory=lambda: str(uuid4()))
    blocks: tuple[Block, ...] = ()
    metadata: TurnMetadata = TurnMetadata()

    def with_blocks(self, *blocks: Block) -> Turn:
        """The same turn with `blocks` at its end."""
        return msgspec.structs.replace(self, blocks=self.blocks + blocks)

    def without(self, *ids: str) -> Turn:
        """The same turn without the blocks of those ids."""
        kept = tuple(block for block in self.blocks if block.id not in ids)
        return msgspec.structs.replace(self, blocks=kept)

    def with_system(self, text: str) -> Turn:
        """The same turn whose one system block says `text`; without one for "". Idempotent."""
        rest = tuple(block for block in self.blocks if not isinstance(block, System))
        if not text:
            return msgspec.structs.replace(self, blocks=rest)
        return msgspec.structs.replace(self, blocks=(System(id="system", text=text), *rest))

    def with_metadata(self, metadata: TurnMetadata) -> Turn:
        return msgspec.structs.replace(self, metadata=metadata)

    def derive(self, *blocks: Block, metadata: TurnMetadata) -> Turn:
        """The next turn: a new id, this turn's blocks and `blocks` after them."""
        return Turn(blocks=self.blocks + blocks, metadata=metadata)


def well_formed(text: str) -> str:
    """`text` as UTF-8 can say it: surrogate pairs joined, a lone surrogate is U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def mended(turn: Turn, *, known: Turn) -> Turn:
    """The turn whose blocks that are not `known` hold only text that can be sent and stored.

    A model's answer, cut at a bad place, may hold halves of a character: no provider would take
    them back.
    """
    old = {id(block) for block in known.blocks}
    blocks = tuple(block if id(block) in old else _mended(block) for block in turn.blocks)
    return msgspec.structs.replace(turn, blocks=blocks)


def _mended(block: Block) -> Block:
    match block:
        case ToolCall():
            return msgspec.structs.replace(
                block,
                call_id=well_formed(block.call_id),
                provider_id=well_formed(block.provider_id),
                name=well_formed(block.name),
                arguments=_mended_json(block.arguments),
            )
        case Other():
            return block
        case _:
            return msgspec.structs.replace(block, text=well_formed(block.text))


def _mended_json(value: Any) -> Any:
    match value:
        case str():
            return well_formed(value)
        case dict():
            return {_mended_json(name): _mended_json(inner) for name, inner in value.items()}
        case list():
            return [_mended_json(inner) for inner in value]
        case _:
            return value
