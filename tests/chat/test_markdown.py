"""chat/markdown.py: finished answers, readable without scripts and harmless with them."""

from __future__ import annotations

import time
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest

from chat.markdown import LINK_REL, LINK_SCHEMES, PART_BLOCKS, picture_words, render
from tests.browser.corpus import FAR, HONEST, HOSTILE

TAGS = {
    *("a", "blockquote", "br", "code", "del", "div", "em", "hr", "p", "pre", "strong"),
    *("h3", "h4", "h5", "h6", "li", "ol", "ul"),
    *("table", "tbody", "td", "th", "thead", "tr"),
}
ATTRIBUTES = {
    "a": {"href", "rel", "target"},
    "code": {"class"},
    "div": {"class"},
    "ol": {"start"},
    "td": {"align"},
    "th": {"align"},
}


class Inspector(HTMLParser):
    """Reads HTML as a browser does and keeps what it found."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("source", [*HOSTILE, *HONEST])
def test_only_the_listed_elements_and_attributes_come_out(source):
    for tag, attributes in Inspector(render(source)).elements:
        assert tag in TAGS
        assert set(attributes) <= ATTRIBUTES.get(tag, set()), (tag, attributes)


@pytest.mark.parametrize("source", [*HOSTILE, *HONEST])
def test_every_link_goes_to_the_web_or_to_mail_and_takes_nothing_along(source):
    for tag, attributes in Inspector(render(source)).elements:
        if tag == "a":
            assert urlsplit(attributes["href"] or "").scheme in LINK_SCHEMES
            assert attributes["rel"] == LINK_REL
            assert attributes["target"] == "_blank"


@pytest.mark.parametrize("source", [each for each in HOSTILE if each.startswith("<")])
def test_raw_html_stays_text(source):
    assert source.split()[0].split("=")[0].rstrip("'>") in Inspector(render(source)).text


def test_a_picture_becomes_words_with_the_host_it_would_have_come_from():
    assert "Image: a cat (pictures.test)" in render("![a cat](https://pictures.test/c.png)")
    assert picture_words("", f"{FAR}/x.png") == "Image (attacker.test)"
    assert picture_words("x", "https://good.test@Evil.test:81/") == "Image: x (evil.test)"
    assert picture_words("x", "data:image/png;base64,AAAA") == "Image: x"


def test_a_refused_link_leaves_its_words():
    assert render("see [the *docs*](javascript:alert) now") == (
        "<p>see the <em>docs</em> now</p>\n"
    )


def test_headings_begin_below_the_page_s_own():
    assert render("# a\n\n#### b") == "<h3>a</h3>\n<h6>b</h6>\n"


def test_a_code_block_names_its_language_by_a_class_and_nothing_else():
    assert 'class="language-c++"' in render("```c++ onload=x\ny\n```")
    assert "class=" not in render('```"><b>\ny\n```').replace('class="code-block"', "")


def test_a_table_keeps_its_alignment_without_styles():
    html = render("|a|b|\n|-|-:|\n|1|2|")
    assert '<td align="right">2</td>' in html
    assert "style" not in html


@pytest.mark.parametrize(
    "source",
    [
        "> " * 20_000,
        "[" * 20_000,
        "![" * 10_000 + "](" * 10_000,
        "*a " * 20_000,
        "`" * 20_000 + "a",
        "- " * 5_000,
        "|" * 20_000 + "\n" + "|-" * 20_000,
        "<" * 20_000,
        "~~a" * 10_000,
        "a\\\n" * 10_000,
    ],
    ids=lambda source: source[:6].strip(),
)
def test_no_text_takes_long(source):
    started = time.process_time()
    render(source)
    assert time.process_time() - started < 5


def test_the_blocks_of_a_long_answer_stand_in_parts():
    blocks = [f"<p>{number}</p>\n" for number in range(PART_BLOCKS * 2 + 1)]
    parts = [
        "".join(blocks[start : start + PART_BLOCKS]) for start in range(0, len(blocks), PART_BLOCKS)
    ]
    source = "\n\n".join(str(number) for number in range(len(blocks)))
    assert render(source) == parts[0] + "".join(
        f'<div class="prose-part">{part}</div>\n' for part in parts[1:]
    )
