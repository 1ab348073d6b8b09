"""Static files under the real servers: hashed, cached for ever, and asked for again cheaply.

Proves webchat_project/static.py.
"""

from __future__ import annotations

import re
from urllib.parse import urljoin

import httpx
import pytest

from tests.client import Visitor
from tests.live import LiveServer

HASHED = re.compile(r"/static/[\w./-]+\.[0-9a-f]{12}\.\w+$")


async def linked(visitor: Visitor) -> list[str]:
    """The addresses of static files on the front page."""
    page = (await visitor.http.get("/")).text
    return re.findall(r'(?:src|href)="(/static/[^"]+)"', page)


async def main_module(visitor: Visitor) -> str:
    [module] = [url for url in await linked(visitor) if url.endswith(".js")]
    return module


async def test_every_file_a_page_links_has_a_hashed_name_and_is_kept_for_ever(anna: Visitor):
    urls = await linked(anna)

    assert len(urls) > 5
    for url in urls:
        assert HASHED.search(url), url
        answer = await anna.http.get(url)
        assert answer.status_code == 200, url
        assert "immutable" in answer.headers["cache-control"]
        assert "max-age=315360000" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in answer.headers


async def test_every_import_of_every_module_is_rewritten_and_leads_somewhere(anna: Visitor):
    waiting, seen = [await main_module(anna)], set()
    while waiting:
        url = waiting.pop()
        if url in seen:
            continue
        seen.add(url)
        answer = await anna.http.get(url)
        assert answer.status_code == 200, url
        assert answer.headers["content-type"].split(";")[0] == "text/javascript"
        specifiers = re.findall(
            r"""(?:^|[;}\s])(?:import|export)\s*(?:[\w*{}\s,$]+from\s*)?["']([^"']+)["']""",
            answer.text,
        )
        specifiers += re.findall(r"""import\(\s*["']([^"']+)["']\s*\)""", answer.text)
        for specifier in specifiers:
            if specifier.startswith((".", "/")):
                imported = urljoin(url, specifier)
                assert HASHED.search(imported), (url, specifier)
                waiting.append(imported)

    assert len(seen) > 10


async def test_a_file_asked_for_again_is_not_sent_again(anna: Visitor):
    url = await main_module(anna)
    first = await anna.http.get(url)
    for headers in (
        {"If-Modified-Since": first.headers["last-modified"]},
        {"If-None-Match": first.headers["etag"]},
    ):
        again = await anna.http.get(url, headers=headers)
        assert again.status_code == 304, headers
        assert again.content == b""
    changed = {"If-Modified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"}
    assert (await anna.http.get(url, headers=changed)).status_code == 200


async def test_head_tells_what_get_would_send(anna: Visitor):
    url = await main_module(anna)
    got = await anna.http.get(url, headers={"Accept-Encoding": "identity"})
    head = await anna.http.head(url, headers={"Accept-Encoding": "identity"})

    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == str(len(got.content)) == got.headers["content-length"]
    assert head.headers["content-type"] == got.headers["content-type"]


async def test_a_part_of_a_file_can_be_asked_for(anna: Visitor):
    url = await main_module(anna)
    whole = await anna.http.get(url, headers={"Accept-Encoding": "identity"})
    part = await anna.http.get(url, headers={"Accept-Encoding": "identity", "Range": "bytes=5-14"})

    assert part.status_code == 206
    assert part.content == whole.content[5:15]


async def test_a_large_file_arrives_whole_and_packed_when_the_browser_can(anna: Visitor):
    sizes = {}
    for encoding in ("identity", "gzip"):
        page = await anna.http.get(await main_module(anna), headers={"Accept-Encoding": encoding})
        sizes[encoding] = int(page.headers["content-length"])
        assert page.headers["vary"] == "Accept-Encoding"
    assert sizes["gzip"] < sizes["identity"]


@pytest.mark.parametrize(
    "path",
    [
        *("/static/chat/js/nothing.js", "/static/", "/static/chat/", "/static/chat/js/"),
        *("/static/../webchat_project/settings.py", "/static/%2e%2e/secret_key"),
        "/static/chat/js/main.000000000000.js",
    ],
)
async def test_a_file_that_is_not_there_is_not_found(anna: Visitor, path: str):
    answer = await anna.http.get(httpx.URL(anna.url).copy_with(raw_path=path.encode()))

    assert answer.status_code == 404
    assert b"SECRET" not in answer.content


async def test_another_method_is_not_allowed(anna: Visitor):
    answer = await anna.http.post(await main_module(anna))

    assert answer.status_code in (403, 405)


async def test_the_server_warns_of_nothing_while_it_serves_them(anna: Visitor, server: LiveServer):
    for url in await linked(anna):
        await anna.http.get(url)

    assert "Warning" not in server.log
    assert "Traceback" not in server.log
