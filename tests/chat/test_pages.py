"""chat/pages.py: what the pages say and where their forms lead, without a browser."""

from __future__ import annotations

import re
import secrets
from html.parser import HTMLParser

import httpx
import pytest

from tests.client import Visitor, visitor
from tests.live import LiveServer, live_server

CONVERSATION = re.compile(r"/c/[0-9a-f-]{36}/")


class Page(HTMLParser):
    """A page's elements, and the text of those that matter here."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def first(self, attribute: str) -> dict[str, str | None]:
        return next(attrs for _, attrs in self.elements if attribute in attrs)

    def buttons(self, name: str) -> list[str]:
        """The values of the buttons of that name, without those of blank cards."""
        named = [a["value"] for t, a in self.elements if t == "button" and a.get("name") == name]
        return [value for value in named if value and not value.endswith(":")]

    def field(self, name: str) -> str:
        found = (attrs for _, attrs in self.elements if attrs.get("name") == name)
        return next(found)["value"] or ""


async def post(who: Visitor, path: str, **fields: str) -> httpx.Response:
    """Sends the page's own form, filled in."""
    token = Page(await who.http.get(path)).field("csrfmiddlewaretoken")
    return await who.http.post(path, data={"csrfmiddlewaretoken": token, **fields})


async def started(who: Visitor, prompt: str) -> str:
    """The path of a new conversation."""
    answer = await post(who, "/", prompt=prompt)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def ended(who: Visitor, path: str) -> None:
    async with who.socket(path.split("/")[2], cursor="0.0") as socket:
        for frame in await socket.until("timeline.snapshot"):
            if frame["type"] == "timeline.snapshot" and not frame["data"]["running"]:
                return
        await socket.until("inference.finished")


async def stopped(who: Visitor, path: str) -> None:
    """Stops what hangs, and waits for the end of what comes after it."""
    conv_id = path.split("/")[2]
    async with who.socket(conv_id, cursor="0.0") as socket:
        await socket.until("timeline.snapshot")
        while (await who.get("/api/conversations"))[0]["running"]:
            await who.post("/api/chat/cancel", {"conv_id": conv_id})
            await socket.until("inference.finished")


async def test_a_first_visit_sets_both_cookies_and_is_stored_nowhere(server: LiveServer):
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        answer = await http.get("/")
        assert answer.status_code == 200
        assert {"csrftoken", "sessionid"} <= set(answer.cookies)
        assert "no-store" in answer.headers["cache-control"]


async def test_the_policy_lets_nothing_in_from_elsewhere_and_nothing_inline(anna: Visitor):
    path = await started(anna, "what is this")
    for url in ("/", path, "/accounts/login/", "/c/never-was/"):
        answer = await anna.http.get(url)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert "unsafe" not in policy
        for tag, attributes in Page(answer).elements:
            assert tag != "style"
            assert tag != "script" or attributes["src"]
            assert not {name for name in attributes if name == "style" or name.startswith("on")}


async def test_the_first_prompt_leads_to_its_conversation(anna: Visitor):
    path = await started(anna, "what is <this>")
    assert CONVERSATION.fullmatch(path)
    page = await anna.http.get(path)
    assert "what is &lt;this&gt;" in page.text
    assert "what is <this>" not in page.text
    assert path in (await anna.http.get("/")).text


async def test_the_page_s_cursor_is_the_snapshot_s(anna: Visitor):
    path = await started(anna, "what is this")
    await ended(anna, path)
    shown = Page(await anna.http.get(path)).first("data-cursor")
    snapshot = await anna.get("/api/timeline", conv_id=path.split("/")[2])
    assert shown["data-cursor"] == snapshot["cursor"]
    assert shown["data-running"] == "false"
    ids = [entity["id"] for entity in snapshot["entities"]]
    cards = Page(await anna.http.get(path)).elements
    assert [a["data-entity-id"] for _, a in cards if a.get("data-entity-id")] == ids


async def test_a_finished_answer_is_there_as_html(anna: Visitor):
    path = await started(anna, "markdown")
    await ended(anna, path)
    page = (await anna.http.get(path)).text
    assert "<table>" in page
    assert 'class="language-python"' in page


async def test_a_prompt_leads_back_to_the_same_address(anna: Visitor):
    path = await started(anna, "what is this")
    await ended(anna, path)
    answer = await post(anna, path, prompt="and now?")
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    assert "and now?" in (await anna.http.get(path)).text


async def test_a_refusal_is_shown_once_and_the_words_come_back(anna: Visitor):
    path = await started(anna, "what is this")
    await ended(anna, path)
    answer = await post(anna, path, prompt="and <now>?", idempotency_key="no key")
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    page = (await anna.http.get(path)).text
    assert re.search(r'role="alert"[^>]*><p>[^<]+</p>', page)
    assert ">\nand &lt;now&gt;?</textarea>" in page
    page = (await anna.http.get(path)).text
    assert 'data-slot="error"></div>' in page
    assert ">\n</textarea>" in page


async def test_a_prompt_sent_meanwhile_is_shown_waiting(anna: Visitor):
    path = await started(anna, "hang")
    answer = await post(anna, path, prompt="and <now>?")
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    page = (await anna.http.get(path)).text
    assert ">and &lt;now&gt;?</span>" in page
    assert ">\n</textarea>" in page
    assert len(Page(await anna.http.get(path)).buttons("remove")) == 1


async def test_words_too_long_for_a_cookie_do_not_push_the_error_out(anna: Visitor):
    answer = await post(anna, "/", prompt=secrets.token_urlsafe(60_000))
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    page = (await anna.http.get("/")).text
    assert re.search(r'role="alert"[^>]*><p>[^<]+</p>', page)
    assert ">\n</textarea>" in page


async def test_stop_is_a_button_of_the_form(anna: Visitor):
    path = await started(anna, "hang")
    answer = await post(anna, path, prompt="", stop="1")
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    await ended(anna, path)
    page = (await anna.http.get(path)).text
    assert 'data-slot="error"></div>' in page
    assert 'data-status="cancelled"' in page
    answer = await post(anna, path, prompt="", stop="1")
    assert answer.status_code == 303
    assert 'data-slot="error"></div>' in (await anna.http.get(path)).text


async def test_waiting_prompts_are_run_now_and_removed_by_buttons(anna: Visitor):
    path = await started(anna, "hang")
    for prompt in ("hello", "hang", "never"):
        await post(anna, path, prompt=prompt)
    _, second, third = Page(await anna.http.get(path)).buttons("remove")
    assert (await post(anna, path, remove=third)).status_code == 303
    assert (await post(anna, path, run=second)).status_code == 303
    await stopped(anna, path)
    entities = (await anna.get("/api/timeline", conv_id=path.split("/")[2]))["entities"]
    said = [e["props"]["content"] for e in entities if e["props"].get("role") == "user"]
    assert said == ["hang", "hang", "hello"]
    await post(anna, path, remove=third)
    assert "no prompt with this key waits" in (await anna.http.get(path)).text


async def test_step_mode_is_a_button_that_shows_how_it_is(anna: Visitor):
    path = await started(anna, "hello")
    for wanted, next_ in (("on", "off"), ("off", "on")):
        assert Page(await anna.http.get(path)).buttons("step") == [wanted]
        assert (await post(anna, path, step=wanted)).status_code == 303
        assert Page(await anna.http.get(path)).buttons("step") == [next_]


async def test_a_failed_answer_is_tried_again_once_however_often_the_form_is_sent(anna: Visitor):
    path = await started(anna, "fail at once")
    await ended(anna, path)
    page = Page(await anna.http.get(path))
    [inference] = page.buttons("again")
    form = {
        "csrfmiddlewaretoken": page.field("csrfmiddlewaretoken"),
        "idempotency_key": page.field("idempotency_key"),
        "again": inference,
    }
    for _ in range(2):
        answer = await anna.http.post(path, data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, path)
    await ended(anna, path)
    page = Page(await anna.http.get(path))
    assert len(page.buttons("again")) == 2
    await post(anna, path, again="never-was")
    assert "no inference" in (await anna.http.get(path)).text


@pytest.mark.parametrize(
    ("decision", "words"),
    [("continue", "Continued"), ("skip", "Skipped"), ("abort", "Aborted")],
)
async def test_a_pause_is_decided_by_buttons(anna: Visitor, decision: str, words: str):
    answer = await post(anna, "/", prompt="approve", profile="agent")
    path = answer.headers["location"]
    while not (values := Page(await anna.http.get(path)).buttons("decision")):
        pass
    pause = values[0].split(":")[1]
    assert values == [f"{name}:{pause}" for name in ("continue", "skip", "abort")]
    fields = {"decision": f"{decision}:{pause}", f"message:{pause}": "Not today."}
    assert (await post(anna, path, **fields)).status_code == 303
    await ended(anna, path)
    page = (await anna.http.get(path)).text
    assert re.search(rf'data-when="{decision}">{words}', page)
    assert ("Not today." in page) is (decision == "skip")
    await post(anna, path, **fields)
    assert "this pause ended already" in (await anna.http.get(path)).text
    await post(anna, path, decision="perhaps:x")
    assert "expected one of: continue" in (await anna.http.get(path)).text


async def test_what_was_written_at_a_pause_comes_back_once_with_the_refusal(anna: Visitor):
    answer = await post(anna, "/", prompt="approve", profile="agent")
    path = answer.headers["location"]
    while not (values := Page(await anna.http.get(path)).buttons("decision")):
        pass
    pause = values[0].split(":")[1]
    fields = (a.get("name") or "" for _, a in Page(await anna.http.get(path)).elements)
    edit = next(name for name in fields if name.startswith(f"edit:{pause}:"))
    written = {edit: '{"text": "half a <thou', f"message:{pause}": "Not today."}
    await post(anna, path, decision=f"continue:{pause}", **written)
    refused = await anna.http.get(path)
    assert "are not JSON" in refused.text
    assert "half a &lt;thou</textarea>" in refused.text
    assert "Not today.</textarea>" in refused.text
    shown = Page(refused).first("data-shown")["data-shown"]
    assert shown == '{\n  "text": "A note from the demo agent."\n}', "scripts compare with it"
    page = (await anna.http.get(path)).text
    assert "half a" not in page
    assert "A note from the demo agent.&quot;\n}</textarea>" in page
    await post(anna, path, decision=f"abort:{pause}")
    await ended(anna, path)


async def test_the_conversation_is_handed_out_as_a_file(anna: Visitor, bert: Visitor):
    path = await started(anna, "hello <b>you</b>")
    await ended(anna, path)
    markdown = await anna.http.get(f"{path}export.md")
    assert markdown.headers["content-type"] == "text/markdown; charset=utf-8"
    assert markdown.headers["content-disposition"] == 'attachment; filename="hello-byoub.md"'
    assert markdown.headers["x-content-type-options"] == "nosniff"
    assert "no-store" in markdown.headers["cache-control"]
    assert "hello &lt;b>you&lt;/b>" in markdown.text
    told = (await anna.http.get(f"{path}export.json")).json()
    timeline = await anna.get("/api/timeline", conv_id=path.split("/")[2])
    assert told["entities"] == timeline["entities"]
    assert (told["title"], told["profile"]) == ("hello <b>you</b>", "default")
    for url in (f"{path}export.html", "/c/never-was/export.md"):
        assert (await anna.http.get(url)).status_code == 404
    assert (await bert.http.get(f"{path}export.md")).status_code == 404


async def test_a_form_s_line_ends_are_those_that_were_typed(anna: Visitor):
    answer = await post(anna, "/", prompt="one\r\n\r\ntwo\rthree")
    conv_id = answer.headers["location"].split("/")[2]
    [asked, *_] = (await anna.get("/api/timeline", conv_id=conv_id))["entities"]
    assert asked["props"]["content"] == "one\n\ntwo\rthree"


async def test_the_chosen_profile_goes_with_the_form(anna: Visitor):
    answer = await post(anna, "/", prompt="what is this", profile="agent")
    conv_id = answer.headers["location"].split("/")[2]
    rows = {row["conv_id"]: row for row in await anna.get("/api/conversations")}
    assert rows[conv_id]["profile"] == "agent"


async def test_an_unknown_profile_is_an_error_on_the_start_page(anna: Visitor):
    answer = await post(anna, "/", prompt="what is this", profile="nobody")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "nobody" in (await anna.http.get("/")).text


async def test_absent_and_forbidden_are_the_same_page(anna: Visitor, bert: Visitor):
    path = await started(anna, "what is this")
    absent, forbidden = await bert.http.get("/c/never-was/"), await bert.http.get(path)
    assert absent.status_code == forbidden.status_code == 404
    token = re.compile(r'name="csrfmiddlewaretoken" value="\w+"')
    assert token.sub("", absent.text) == token.sub("", forbidden.text)
    headers = {"X-CSRFToken": bert.http.cookies["csrftoken"]}
    for url in ("/c/never-was/", path):
        answer = await bert.http.post(url, data={"prompt": "mine now"}, headers=headers)
        assert answer.status_code == 404
    assert "mine now" not in (await anna.http.get(path)).text


async def test_a_form_without_its_token_is_refused_in_our_words(anna: Visitor):
    answer = await anna.http.post("/", data={"prompt": "what is this"})
    assert answer.status_code == 403
    assert "That form had expired" in answer.text


async def test_other_methods_are_refused(anna: Visitor):
    headers = {"X-CSRFToken": anna.http.cookies["csrftoken"]}
    assert (await anna.http.delete("/", headers=headers)).status_code == 405


async def test_where_signing_in_is_required_the_pages_lead_there():
    async with (
        live_server(env={"WEBCHAT_LOGIN_REQUIRED": "1"}) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as http,
    ):
        for path in ("/", "/c/never-was/"):
            answer = await http.get(path)
            assert answer.status_code == 302
            assert answer.headers["location"] == f"/accounts/login/?next={path}"
        login = await http.get("/accounts/login/?next=/")
        assert login.status_code == 200
        assert Page(login).field("next") == "/"


async def test_two_visitors_have_two_lists(server: LiveServer):
    async with visitor(server.url) as one, visitor(server.url) as other:
        path = await started(one, "what is this")
        assert path in (await one.http.get("/")).text
        assert path not in (await other.http.get("/")).text
