"""A result as the model and the people read it. Importing this imports the library."""

from __future__ import annotations

import json
from typing import Any

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from ..tool_text import as_text

NOTHING = "[no content]"


def text_of(result: CallToolResult) -> str:
    """The blocks of a result, one below the other. What is no text is named, and left out.

    Structured content is added as JSON, unless a block says the same, as servers do for clients
    that know none.
    """
    parts = [_shown(block) for block in result.content]
    structured = result.structured_content
    if structured is not None and not any(_says(part, structured) for part in parts):
        parts.append(as_text(structured))
    return "\n".join(parts) or NOTHING


def _shown(block: ContentBlock) -> str:
    match block:
        case TextContent(text=text):
            return text
        case EmbeddedResource(resource=TextResourceContents(text=text)):
            return text
        case EmbeddedResource(resource=BlobResourceContents() as resource):
            kind = resource.mime_type or "binary data"
            return f"[{kind} at {resource.uri}, {_bytes(resource.blob)} bytes]"
        case ResourceLink():
            return f"[{block.title or block.name}: {block.uri}]"
        case ImageContent() | AudioContent():
            return f"[{block.mime_type}, {_bytes(block.data)} bytes]"
        case _:
            return f"[{block.type}]"


def _bytes(base64: str) -> int:
    return len(base64.rstrip("=")) * 3 // 4


def _says(part: str, structured: Any) -> bool:
    """Whether the text is the structured content, or the one value that was wrapped for it."""
    values = [structured]
    if isinstance(structured, dict) and structured.keys() == {"result"}:
        values.append(structured["result"])
    if part in values:
        return True
    try:
        return json.loads(part) in values
    except ValueError:
        return False
