"""A conversation as a file. Pure.

The Markdown is for people and for any viewer, so what was said in the conversation can do nothing
in it: no HTML of its own, no picture that is fetched, no link but to the web or to mail, no heading
at the level of the roles, no control character. Otherwise it stays as it was written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec
from django.utils.text import slugify
from markdown_it.token import Token

from .app_kinds import AppKinds
from .cards import Card, arrange
from .markdown import HEADING_SHIFT, is_safe_link, parse
from .templatetags.cards import duration, tokens
from .timeline import Snapshot

FILENAME_CHARS: Final = 60
UNTITLED: Final = "New conversation"
NO_KINDS: Final = AppKinds()  # an app's own template makes HTML, which has no place here


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A file to hand out."""

    text: str
    filename: str
    content_type: str


def as_markdown(title: str, profile: str, snapshot: Snapshot) -> Exported:
    """The conversation to read: who said what, tools and thinking folded."""
    parts = [f"# {_words(title or UNTITLED)}", f"Profile: {_words(profile)}"]
    parts += _cards(arrange(snapshot.entities, NO_KINDS))
    return Exported(
        text="\n\n".join(parts) + "\n",
        filename=f"{_filename(title, snapshot)}.md",
        content_type="text/markdown; charset=utf-8",
    )


def as_json(title: str, profile: str, snapshot: Snapshot) -> Exported:
    """The conversation to work with: the timeline's snapshot, with title and profile."""
    told = {"title": title, **msgspec.to_builtins(snapshot), "profile": profile}
    return Exported(
        text=json.dumps(told, indent=2, ensure_ascii=False) + "\n",
        filename=f"{_filename(title, snapshot)}.json",
        content_type="application/json",
    )


Export: TypeAlias = Callable[[str, str, Snapshot], Exported]
EXPORTS: Final[Mapping[str, Export]] = {"md": as_markdown, "json": as_json}


def _cards(cards: Iterable[Card]) -> Iterable[str]:
    for card in cards:
        yield from _WRITERS.get(card.name, _other)(card)


def _user(card: Card) -> Iterable[str]:
    return ["## You", harmless(card.props["content"])]


def _assistant(card: Card) -> Iterable[str]:
    text = harmless(card.props["content"])
    return ["## Assistant", text] if text else []


def _thinking(card: Card) -> Iterable[str]:
    ms = card.props.get("metadata", {}).get("durationMs")
    took = f" for {duration(ms)}" if ms else ""
    summary = card.props.get("summary")
    return _folded(
        f"Thought{took}{f': {summary}' if summary else ''}", [harmless(card.props["content"])]
    )


def _tool_call(card: Card) -> Iterable[str]:
    results = [result.props for result in card.cards if result.name == "tool_result"]
    took = "".join(f", {duration(ms)}" for result in results if (ms := result["durationMs"]))
    inside = ["Arguments:", _code(card.props["input"])]
    for result in results:
        inside += ["Result:", _code(result["result"])]
    return _folded(f"Tool {card.props['name']}: {card.props['status']}{took}", inside)


def _pause(card: Card) -> Iterable[str]:
    decided = card.props.get("decision")
    end = "waits" if decided is None else f"{decided} by {card.props['by']}"
    return [f"*{_words(card.props['summary'])}: {_words(end)}*"]


def _agent_mode(card: Card) -> Iterable[str]:
    change = card.props["data"]
    line = f"{card.props['title']}: {change['from']} → {change['to']}"
    return [f"*{_words(line)}*", *([_words(change["analysis"])] if change["analysis"] else [])]


def _log(card: Card) -> Iterable[str]:
    fields = [_code(card.props["fields"])] if card.props["fields"] else []
    return [f"*{_words(card.props['level'])}:* {_words(card.props['message'])}", *fields]


def _inference(card: Card) -> Iterable[str]:
    yield from _cards(card.cards)
    props = card.props
    if props["status"] != "completed":
        reason = f": {props['error']}" if props.get("error") else ""
        yield f"**{_words(_ENDS.get(props['status'], props['status']) + reason)}**"
    facts = [
        props.get("model", ""),
        tokens(props.get("usage")),
        duration(props.get("durationMs") or ""),
    ]
    yield f"*{_words(' · '.join(fact for fact in facts if fact))}*"


def _other(card: Card) -> Iterable[str]:
    return [f"**{_words(card.kind)}**", _code(card.props)]


_WRITERS: Final[Mapping[str, Callable[[Card], Iterable[str]]]] = {
    "user": _user,
    "assistant": _assistant,
    "thinking": _thinking,
    "tool_call": _tool_call,
    "debugger_pause": _pause,
    "agent_mode": _agent_mode,
    "log": _log,
    "inference": _inference,
}
_ENDS: Final = {
    "running": "Still being written",
    "cancelled": "Stopped",
    "failed": "This answer failed",
    "lost": "This answer was cut off when the server stopped",
    "max_iterations": "The limit of steps was reached",
}


def _folded(summary: str, inside: Iterable[str]) -> Iterable[str]:
    return [
        f"<details>\n<summary>{_html(_one_line(summary))}</summary>",
        *(part for part in inside if part),
        "</details>",
    ]


def _code(value: object) -> str:
    """A value in a fence that nothing in it can close."""
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    text = _without_controls(text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{'' if isinstance(value, str) else 'json'}\n{text}\n{fence}"


def _words(text: str) -> str:
    """Text on one line in which nothing is Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~&-])", r"\\\1", _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(_without_controls(text).split())


def _html(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _filename(title: str, snapshot: Snapshot) -> str:
    return slugify(title)[:FILENAME_CHARS].strip("-") or f"conversation-{snapshot.conv_id[:8]}"


# Markdown of others. The parser says what each line is; where it says nothing, the strictest rule
# counts.

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_HASHES = re.compile("#+")
_UNDERLINE = re.compile("[=-]")
_POWERS = re.compile(
    r"(?P<kept>\\[!-/:-@\[-`{-~]|<(?:https?://|mailto:)[^\s<>]*>)"
    r"|(?P<ticks>`+)|(?P<mark><|!(?=\[)|\[)"
)

# Raw HTML that begins a line ends a paragraph, also in the midst of a code span.
_OPENING = re.compile(r"(\n[ \t>]*)<")


def harmless(source: str) -> str:
    """The Markdown, with all that could do more than look like text turned into text."""
    text = _without_controls(source.replace("\r\n", "\n").replace("\r", "\n")).strip("\n")
    if not text.strip():
        return ""
    env: dict[str, Any] = {}
    found = parse(text, env)
    links = not _leads_astray(found, env)
    lines = text.split("\n")
    safe = [_without_powers(line, spans=False, links=links) for line in lines]
    in_table = False
    for token in found:
        in_table = token.type == "table_open" or (in_table and token.type != "table_close")
        if token.map is None:
            continue
        first, end = token.map
        if token.type in ("fence", "code_block"):
            safe[first:end] = lines[first:end]
        elif token.type == "inline" and not in_table:
            block = _without_powers("\n".join(lines[first:end]), spans=True, links=links)
            safe[first:end] = block.split("\n")
    for token in found:
        if token.type == "heading_open" and token.map is not None:
            _lower(safe, token)
    return _closed("\n".join(safe))


def _without_powers(text: str, *, spans: bool, links: bool) -> str:
    """Raw HTML, pictures and, unless `links`, links as text; code spans as they are if `spans`."""
    out, at = [], 0
    while (found := _POWERS.search(text, at)) is not None:
        out.append(text[at : found.start()])
        at = found.end()
        if found["mark"] == "<":
            out.append("&lt;")
        elif found["mark"] == "!" or (found["mark"] == "[" and not links):
            out.append(f"\\{found['mark']}")
        else:
            span = found["ticks"] and spans and _closing(text, at, found["ticks"])
            end = span or at
            out.append(_OPENING.sub(r"\1&lt;", text[found.start() : end]))
            at = end
    return "".join(out) + text[at:]


def _closing(text: str, start: int, ticks: str) -> int | None:
    """Where the code span ends that these backticks open; None if they open none."""
    same = re.compile(f"(?<!`){ticks}(?!`)").search(text, start)
    return None if same is None else same.end()


def _lower(lines: list[str], heading: Token) -> None:
    """Puts a heading below the roles' level; an underlined one becomes text."""
    assert heading.map is not None
    first, end = heading.map
    if heading.markup.startswith("#"):
        level = min(6, len(heading.markup) + HEADING_SHIFT)
        lines[first] = _HASHES.sub("#" * level, lines[first], count=1)
    else:
        lines[end - 1] = _UNDERLINE.sub(r"\\\g<0>", lines[end - 1], count=1)


def _leads_astray(found: Iterable[Token], env: Mapping[str, Any]) -> bool:
    """Whether a link, a picture or a definition leads to more than the web and mail."""
    defined = (str(link["href"]) for link in env.get("references", {}).values())
    return any(not is_safe_link(address) for address in (*defined, *_addresses(found)))


def _addresses(found: Iterable[Token]) -> Iterator[str]:
    for token in found:
        if token.type in ("link_open", "image"):
            yield str(token.attrGet("href" if token.type == "link_open" else "src") or "")
        yield from _addresses(token.children or ())


def _closed(text: str) -> str:
    """The text with a fence closed that would swallow what comes after it."""
    last = parse(f"{text}\n\nx", {})[-1]
    return f"{text}\n{last.markup}" if last.type == "fence" else text


def _without_controls(text: str) -> str:
    return _CONTROLS.sub("\ufffd", text)
