"""A result as the model reads it: words as they are, data as JSON, and the rest by name."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
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

from sessions_app.inference.mcp.results import text_of


def shown(*blocks: ContentBlock, structured: Any = None) -> str:
    return text_of(CallToolResult(content=list(blocks), structured_content=structured))


def text(words: str) -> TextContent:
    return TextContent(text=words)


def encoded(size: int) -> str:
    return b64encode(bytes(size)).decode()


def test_words_are_joined_line_by_line():
    assert shown(text("one"), text("two")) == "one\ntwo"


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000])
def test_what_is_no_text_is_named_with_its_size(size: int):
    data = encoded(size)
    assert shown(ImageContent(data=data, mime_type="image/png")) == f"[image/png, {size} bytes]"
    assert shown(AudioContent(data=data, mime_type="audio/wav")) == f"[audio/wav, {size} bytes]"
    resource = BlobResourceContents(uri="file:///a.pdf", mime_type="application/pdf", blob=data)
    assert shown(EmbeddedResource(resource=resource)) == (
        f"[application/pdf at file:///a.pdf, {size} bytes]"
    )


def test_a_text_that_is_embedded_is_read_and_a_link_is_named():
    resource = TextResourceContents(uri="file:///a.txt", text="inside")
    link = ResourceLink(name="a", uri="file:///b.txt")

    assert shown(EmbeddedResource(resource=resource), link) == "inside\n[a: file:///b.txt]"


def test_structured_content_is_json_below_other_words():
    assert shown(structured={"x": 1, "y": [True]}) == '{"x":1,"y":[true]}'
    assert shown(text("A point."), structured={"x": 1}) == 'A point.\n{"x":1}'


@pytest.mark.parametrize(
    ("words", "structured"),
    [
        ('{\n  "x": 1\n}', {"x": 1}),
        ("hello", {"result": "hello"}),
        ("42", {"result": 42}),
        ("[1, 2]", {"result": [1, 2]}),
        ("null", {"result": None}),
    ],
)
def test_what_is_said_twice_is_read_once(words: str, structured: Any):
    assert shown(text(words), structured=structured) == words


def test_nothing_is_said_so():
    assert shown() == "[no content]"
