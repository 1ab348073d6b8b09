"""chat/export.py: a file that says what was said, and in which that can do nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from chat.export import as_json, as_markdown, harmless
from chat.timeline import Entity, Snapshot
from tests.browser.corpus import HONEST, HOSTILE

VIEWER = MarkdownIt("js-default", {"html": True})
"""Shows what it is given: raw HTML, pictures, and every link."""
VIEWER.validateLink = lambda url: True  # type: ignore[method-assign] # the careless kind

MARKS = ["```", "~~~", "    ", "> ", "- ", "1. ", "\n\n", "<b", "](javascript:x)", "| a |\n|---|\n"]
ADDRESSES = [
    "[x]: javascript:x\n",
    "![x](https://a.test/p)",
    "![a [b](javascript:x)](https://a.test)",
]
PIECES = st.sampled_from(
    [*HOSTILE, *HONEST, *MARKS, *ADDRESSES, *"`<>![]()#-=*|~\\\n \t"],
)


def told(entities: list[Entity], **fields: object) -> Snapshot:
    return Snapshot(
        conv_id="conv-1234567890",
        epoch=1,
        version=9,
        cursor="1.9",
        server_time_ms=0,
        running=False,
        queue_depth=0,
        entities=entities,
        **fields,  # type: ignore[arg-type] # named by the tests
    )


def entity(id: str, kind: str, seq: int, **props: object) -> Entity:
    return Entity(
        id=id,
        kind=kind,
        created_at_ms=0,
        updated_at_ms=0,
        created_seq=seq,
        updated_seq=99,
        props=props,
    )


def flat(tokens: list[Token]) -> list[Token]:
    return [inner for token in tokens for inner in [token, *flat(token.children or [])]]


def powers(markdown: str) -> list[str]:
    """What a careless viewer would do with the text beyond showing it."""
    found = []
    for token in flat(VIEWER.parse(markdown)):
        if token.type in ("html_inline", "html_block", "image"):
            found.append(f"{token.type}: {token.content}")
        if token.type == "link_open" and not str(token.attrGet("href")).lower().startswith(
            ("https:", "http:", "mailto:")
        ):
            found.append(f"link: {token.attrGet('href')}")
        if token.type == "heading_open" and token.tag in ("h1", "h2"):
            found.append(token.tag)
    return found


IN_A_SPAN = ["`a\n<script>b</script>`", "`| a |\n|---|\n<script>b</script>`"]


@pytest.mark.parametrize("source", [*HOSTILE, *IN_A_SPAN])
def test_a_hostile_text_has_no_power_in_any_viewer(source: str):
    assert powers(harmless(source)) == []


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join), st.lists(PIECES, max_size=6).map("".join))
def test_no_text_has_power_or_reaches_into_the_next(one: str, other: str):
    together = f"{harmless(one)}\n\nbetween\n\n{harmless(other)}\n\nafter"
    assert powers(together) == []
    paragraphs = [
        token.content
        for token in VIEWER.parse(together)
        if token.type == "inline" and token.level == 1
    ]
    assert "between" in paragraphs
    assert paragraphs[-1] == "after"


@pytest.mark.parametrize("source", [text for text in HONEST if "<" not in text and "!" not in text])
def test_an_honest_text_looks_as_it_was_meant(source: str):
    def shown(markdown: str) -> list[tuple[str, str]]:
        tokens = flat(VIEWER.parse(markdown))
        return [(t.type, t.content.strip()) for t in tokens if not t.type.startswith("heading")]

    if "===" not in source:
        assert shown(harmless(source)) == shown(source.replace("\r\n", "\n"))


def test_code_stays_as_it_was_written():
    source = "Use `<div>`, ``a ` <b>`` and:\n\n```html\n<script>x</script>\n![p](q)\n```"
    assert harmless(source) == source


CONVERSATION = [
    entity("u", "message", 1, role="user", content="what is <this>?"),
    entity(
        "i",
        "inference",
        2,
        status="failed",
        error="the line was cut",
        model="demo",
        durationMs=1250,
        usage={"inputTokens": 1200, "outputTokens": 34, "cachedTokens": 0},
    ),
    entity("t", "message", 3, role="thinking", content="Let me see", metadata={"durationMs": 40}),
    entity("c", "tool_call", 4, name="calc</summary>", input={"sum": "```"}, status="success"),
    entity("c:result", "tool_result", 5, result="<b>42</b>", status="success", durationMs=12),
    entity("p", "debugger_pause", 6, summary="About to run *x*", decision="skip", by="anna"),
    entity("m", "agent_mode", 7, title="Mode", data={"from": "plan", "to": "act", "analysis": ""}),
    entity("l", "log", 8, level="info", message="a [line]", fields={"n": 1}),
    entity("w", "weather", 8, celsius=21),
    entity("a", "message", 8, role="assistant", content="# Title\n\nIt is **this**.", status="x"),
]


def test_the_markdown_says_who_said_what_and_folds_the_rest():
    exported = as_markdown("What is *this*?", "agent", told(CONVERSATION))
    assert exported.filename == "what-is-this.md"
    assert exported.content_type == "text/markdown; charset=utf-8"
    assert exported.text == EXPECTED


EXPECTED = """\
# What is \\*this\\*?

Profile: agent

## You

what is &lt;this>?

<details>
<summary>Thought for 40 ms</summary>

Let me see

</details>

<details>
<summary>Tool calc&lt;/summary&gt;: success, 12 ms</summary>

Arguments:

````json
{
  "sum": "```"
}
````

Result:

```
<b>42</b>
```

</details>

*About to run \\*x\\*: skip by anna*

*Mode: plan → act*

*info:* a \\[line\\]

```json
{
  "n": 1
}
```

**weather**

```json
{
  "celsius": 21
}
```

## Assistant

### Title

It is **this**.

**This answer failed: the line was cut**

*demo · 1,200 tokens in, 34 out · 1.3 s*
"""


def test_the_json_is_the_snapshot_with_title_and_profile():
    snapshot = told(CONVERSATION, profile="older")
    exported = as_json("", "agent", snapshot)
    assert exported.filename == "conversation-conv-123.json"
    read = json.loads(exported.text)
    assert (read["title"], read["profile"]) == ("", "agent")
    assert [held["id"] for held in read["entities"]] == [held.id for held in CONVERSATION]
    assert read["cursor"] == snapshot.cursor


@pytest.mark.parametrize("title", ["../../etc/passwd", 'a"; x=".exe', "\u202egpj.exe", "🙂", ""])
def test_a_title_cannot_name_another_file(title: str):
    name = as_markdown(title, "agent", told([])).filename
    assert name.removesuffix(".md").replace("-", "").replace("_", "").isalnum()
