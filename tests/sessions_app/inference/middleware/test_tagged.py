"""A tagged block is found however the text that holds it was cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_app.inference.errors import ConfigurationError
from sessions_app.inference.middleware import tagged
from sessions_app.inference.middleware.tagged import Piece, Tagged, TagScanner

TAGS = ("chart", "c")
fragments = ("<", ">", "/", "c", "chart", "<chart>", "</chart>", "<c>", "</c>", '{"x": 1}', " ")
texts = st.lists(st.sampled_from(fragments), max_size=20).map("".join)


@st.composite
def cut_texts(draw: st.DrawFn) -> list[str]:
    """A text, in pieces; some are empty."""
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def scanned(*pieces: str) -> list[Piece]:
    """All that comes out, with the texts between two blocks joined."""
    scanner = TagScanner(TAGS)
    out: list[Piece] = []
    for found in (*map(scanner.feed, pieces), scanner.finish()):
        for piece in found:
            assert piece
            if isinstance(piece, str) and out and isinstance(last := out[-1], str):
                out[-1] = last + piece
            else:
                out.append(piece)
    return out


def by_regex(text: str) -> list[Piece]:
    """The same by other means: a block is the leftmost tag that is closed, up to its first end."""
    out: list[Piece] = []
    end = 0
    for match in re.finditer(r"<(chart|c)>(.*?)</\1>", text, re.DOTALL):
        out += [text[end : match.start()], Tagged(match[1], match[2])]
        end = match.end()
    return [piece for piece in (*out, text[end:]) if piece]


@given(cut_texts())
def test_any_cut_of_a_text_gives_the_same_text_and_the_same_blocks(pieces: list[str]):
    assert scanned(*pieces) == by_regex("".join(pieces))


@given(texts)
def test_character_by_character_it_is_the_same(text: str):
    assert scanned(*text) == by_regex(text)


def test_what_may_become_a_tag_is_held_back_and_nothing_else_is():
    scanner = TagScanner(TAGS)
    assert scanner.feed("see <cha") == ["see "]
    assert scanner.feed("rm> and <") == ["<charm> and "]
    assert scanner.feed("b>bold</b>") == ["<b>bold</b>"]


def test_a_block_comes_out_as_soon_as_it_is_closed():
    scanner = TagScanner(TAGS)
    assert scanner.feed("see <chart>{") == ["see "]
    assert scanner.feed("}</chart") == []
    assert scanner.feed("> done") == [Tagged("chart", "{}"), " done"]


def test_a_tag_that_is_never_closed_was_text():
    assert scanned("a <chart>{", "x <c>1</c>") == ["a <chart>{x ", Tagged("c", "1")]


def test_after_the_end_it_is_as_new():
    scanner = TagScanner(TAGS)
    scanner.feed("<chart>half")
    assert scanner.finish() == ["<chart>half"]
    assert scanner.feed("</chart> whole") == ["</chart> whole"]


@given(st.integers(0, 30), st.integers(1, 7))
def test_a_block_that_is_too_long_was_text_however_it_was_cut(length: int, step: int):
    text = f"a<c>{'x' * length}</c>b"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tagged, "MAX_BLOCK_CHARS", 10)
        found = scanned(*(text[at : at + step] for at in range(0, len(text), step)))
    assert found == (["a", Tagged("c", "x" * length), "b"] if length <= 10 else [text])


def test_a_tag_that_is_never_closed_is_not_waited_for_forever():
    scanner = TagScanner(TAGS)
    text = "<chart>" + "x" * tagged.MAX_BLOCK_CHARS
    assert scanner.feed(text) == []
    assert scanner.feed("xxxxxxxxxx") == [text + "xxxxxxxxxx"]


def test_without_tags_everything_is_text():
    scanner = TagScanner([])
    assert scanner.feed("<chart>1</chart> <") == ["<chart>1</chart> <"]


@pytest.mark.parametrize("name", ["", "a b", "<a>", "1a", "a" * 65])
def test_a_name_that_is_no_tag_is_refused(name: str):
    with pytest.raises(ConfigurationError, match="is not a tag's name"):
        TagScanner([name])
