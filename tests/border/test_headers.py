"""What every answer tells a browser about itself: the policies of pages and of JSON."""

from __future__ import annotations

import re

import pytest

from tests.client import Visitor

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "font-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "object-src": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "webchat-entities",
}
PAGES = ["/", "/c/{conv}/", "/c/absent/", "/nothing", "/accounts/login/", "/accounts/logout/"]


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_has_the_strict_policy(anna: Visitor, conv: str, path: str):
    await anna.chat("fail at once", conv)
    page = await anna.http.get(path.format(conv=conv))

    directives = [
        each.split(" ", 1) for each in page.headers["content-security-policy"].split("; ")
    ]
    assert dict(directives) == POLICY
    assert len(directives) == len(POLICY)


@pytest.mark.parametrize("path", [*PAGES, "/api/conversations", "/api/nothing", "/healthz"])
async def test_every_answer_is_safe_from_sniffing_framing_and_leaking_addresses(
    anna: Visitor, conv: str, path: str
):
    answer = await anna.http.get(path.format(conv=conv))

    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["x-frame-options"] == "DENY"


async def test_a_page_has_no_inline_script_or_style_and_is_kept_by_no_cache(
    anna: Visitor, conv: str
):
    hostile = "<script>alert(1)</script> <b onclick=x style=y>[a](javascript:b)</b>"
    await anna.hear(hostile, conv)
    for path in ("/", f"/c/{conv}/"):
        page = await anna.http.get(path)
        assert page.headers["cache-control"] == "no-store"
        markup = re.sub(r"&lt;.*?&gt;", "", page.text)
        scripts = re.findall(r"<script[^>]*>", markup)
        assert [tag for tag in scripts if 'type="module" src="/static/' not in tag] == []
        assert re.findall(r"<style|<[^>]+\s(?:style|on\w+)\s*=|href=.javascript:", markup) == []


async def test_the_csrf_refusal_of_a_form_is_a_page_with_the_policy(anna: Visitor):
    page = await anna.http.post("/", data={"prompt": "hello"})

    assert page.status_code == 403
    assert page.headers["content-type"].startswith("text/html")
    assert "trusted-types webchat-entities" in page.headers["content-security-policy"]
