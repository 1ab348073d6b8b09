"""Markdown → HTML that is safe to show. Pure.

Model output is hostile: raw HTML stays text, pictures become words (nothing is fetched), links go
to the web or to mail only. `nh3` is a second fence behind the parser. The browser renders the same
Markdown to the same elements (static/chat/js/markdown.js); a browser test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

LINK_SCHEMES: Final = frozenset({"http", "https", "mailto"})
LINK_REL: Final = "noopener noreferrer nofollow ugc"
HEADING_SHIFT: Final = 2
"""The page's title is h1 and a message is h2, so an answer's first level is h3."""

PART_BLOCKS: Final = 32
"""So many blocks stand in an answer as they are, and of the others so many each in a part of it."""

_TAGS: Final = frozenset(
    [
        "a",
        "blockquote",
        "br",
        "code",
        "del",
        "div",
        "em",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "li",
        "ol",
        "p",
        "pre",
        "strong",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
        "ul",
    ]
)
_ATTRIBUTES: Final = {
    "a": {"href", "rel", "target"},
    "code": {"class"},
    "div": {"class"},
    "ol": {"start"},
    "td": {"align"},
    "th": {"align"},
}
_CLASSES: Final = re.compile(r"code-block|table-block|prose-part|language-[\w+#.-]{1,40}", re.ASCII)
_LANGUAGE: Final = re.compile(r"[\w+#.-]{1,40}", re.ASCII)
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_HOST: Final = re.compile(r"https?://(?:[^/?#@]*@)?([^/?#@:]+)", re.IGNORECASE)


def render(source: str) -> SafeString:
    """The answer as HTML. Any text is fine; what is no Markdown comes out as text."""
    fenced = nh3.clean(
        _rendered(source),
        tags=set(_TAGS),
        attributes=_ATTRIBUTES,
        attribute_filter=_attribute,
        url_schemes=set(LINK_SCHEMES),
        link_rel=None,
    )
    return mark_safe(fenced)  # noqa: S308 - the line above is the sanitizer


def parse(source: str, env: EnvType) -> list[Token]:
    """The tokens that `render` makes elements of; `env` receives the definitions of links."""
    return _markdown.parse(source, env)


def _rendered(source: str) -> str:
    env: EnvType = {}
    html: list[str] = [
        _markdown.renderer.render(tokens, _markdown.options, env)
        for tokens in _parts(parse(source, env))
    ]
    return html[0] + "".join(f'<div class="prose-part">{part}</div>\n' for part in html[1:])


def _parts(tokens: list[Token]) -> list[list[Token]]:
    """Cut after each `PART_BLOCKS` blocks: a browser can leave out a part that is out of sight."""
    parts: list[list[Token]] = [[]]
    blocks = 0
    for token in tokens:
        if token.level == 0 and token.nesting >= 0:
            if blocks and blocks % PART_BLOCKS == 0:
                parts.append([])
            blocks += 1
        parts[-1].append(token)
    return parts


def is_safe_link(href: str) -> bool:
    """Whether a link leads to the web or to mail."""
    scheme = _SCHEME.match(href)
    return scheme is not None and scheme[1].lower() in LINK_SCHEMES


class _Renderer(RendererHTML):
    """The elements the browser's renderer makes, one method for each token that needs its own."""

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        language = _LANGUAGE.match(tokens[idx].info.strip())
        attribute = f' class="language-{_escape(language[0])}"' if language else ""
        return _code_block(attribute, tokens[idx].content)

    def code_block(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        return _code_block("", tokens[idx].content)

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        alt = self.renderInlineAsText(tokens[idx].children or [], options, env)
        return _escape(picture_words(alt, str(tokens[idx].attrGet("src") or "")))

    def table_open(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        return '<div class="table-block"><table>'

    def table_close(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        return "</table></div>"


def picture_words(alt: str, url: str) -> str:
    """What stands in a picture's place: what it shows and where it would have come from."""
    host = _HOST.match(url)
    words = f"Image: {alt}" if alt else "Image"
    return f"{words} ({host[1].lower()})" if host else words


class _Markdown(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: N802 - the library's name
        """Every destination parses as a link, so that `_rewrite` alone judges it."""
        return True


def _build() -> _Markdown:
    options = {"html": False, "linkify": False, "typographer": False}
    markdown = _Markdown("js-default", options, renderer_cls=_Renderer)
    markdown.core.ruler.push("rewrite", _rewrite)
    return markdown


def _rewrite(state: StateCore) -> None:
    for token in state.tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + HEADING_SHIFT)}"
        elif token.type in ("th_open", "td_open") and (style := token.attrGet("style")):
            token.attrs = {"align": str(style).removeprefix("text-align:")}
        elif token.type == "inline":
            _rewrite_inline(token.children or [])


def _rewrite_inline(children: list[Token]) -> None:
    hide = False
    for token in children:
        if token.type == "link_open":
            href = str(token.attrGet("href") or "")
            hide = not is_safe_link(href)
            token.hidden = hide
            token.attrs = {"href": href, "target": "_blank", "rel": LINK_REL}
        elif token.type == "link_close":
            token.hidden = hide
        elif token.type in ("s_open", "s_close"):
            token.tag = "del"


def _code_block(attribute: str, content: str) -> str:
    code = _escape(content if content.endswith("\n") or not content else f"{content}\n")
    return f'<div class="code-block"><pre><code{attribute}>{code}</code></pre></div>\n'


def _escape(text: str) -> str:
    return (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    )


def _attribute(tag: str, name: str, value: str) -> str | None:
    if name == "class" and not _CLASSES.fullmatch(value):
        return None
    return value


_markdown = _build()
