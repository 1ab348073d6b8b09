"""Who may see what: visitors, accounts, the operator. PROTOCOL §5, promise 9."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.border.conftest import PASSWORD
from tests.client import Visitor, stranger, visitor
from tests.live import LiveServer, live_server

Accounts = Callable[[], str]


def sets(answer: httpx.Response) -> set[str]:
    """The names of the cookies that an answer sets to something."""
    values = (cookie.split(";")[0] for cookie in answer.headers.get_list("set-cookie"))
    return {value.split("=")[0] for value in values if value.split("=")[1] not in ("", '""')}


async def sign_out(visitor: Visitor) -> None:
    token = {"csrfmiddlewaretoken": visitor.http.cookies["csrftoken"]}
    answer = await visitor.http.post("/accounts/logout/", data=token)
    assert answer.status_code == 302, answer.text


@pytest.mark.parametrize("path", ["/", "/c/absent/", "/accounts/login/"])
async def test_every_page_sets_both_cookies_on_the_first_visit(server: LiveServer, path: str):
    async with stranger(server.url) as nobody:
        first = await nobody.get(path)

    assert {"sessionid", "csrftoken"} <= sets(first)
    cookies = {cookie.split("=")[0]: cookie for cookie in first.headers.get_list("set-cookie")}
    assert "HttpOnly" in cookies["sessionid"]
    assert "SameSite=Lax" in cookies["sessionid"]
    assert "SameSite=Lax" in cookies["csrftoken"]
    assert "HttpOnly" not in cookies["csrftoken"], "scripts send it back"


async def test_the_session_is_kept_on_the_next_visit(anna: Visitor):
    again = await anna.http.get("/")

    assert "sessionid" not in sets(again)


async def test_a_visitors_identity_is_in_no_answer(anna: Visitor, conv: str):
    await anna.hear("fail at once", conv)
    texts = [
        (await anna.http.get(path)).text
        for path in ("/", f"/c/{conv}/", "/api/conversations", f"/api/timeline?conv_id={conv}")
    ]

    assert not [text for text in texts if "visitor:" in text or '"owner"' in text]


async def test_anothers_conversation_is_as_if_it_were_absent(
    anna: Visitor, bert: Visitor, conv: str
):
    await anna.chat("hang", conv)

    async def answers(conv_id: str) -> list[tuple[int, str]]:
        token = {"csrfmiddlewaretoken": bert.http.cookies["csrftoken"]}
        got = [
            await bert.http.get("/api/timeline", params={"conv_id": conv_id}),
            await bert.http.get(f"/api/timeline?conv_id={conv_id}&since_version=x"),
            await bert.post("/api/chat/cancel", {"conv_id": conv_id}),
            await bert.post("/api/chat/cancel", {"conv_id": conv_id, "inference_id": "x"}),
            await bert.http.get(f"/c/{conv_id}/"),
            await bert.http.post(f"/c/{conv_id}/", data={"prompt": "fail at once", **token}),
            await bert.http.post(f"/c/{conv_id}/", data={"stop": "1", **token}),
        ]
        return [(answer.status_code, answer.text) for answer in got]

    forbidden, absent = await answers(conv), await answers(f"{conv}.absent")
    snapshot = await anna.get("/api/timeline", conv_id=conv)
    await anna.post("/api/chat/cancel", {"conv_id": conv})

    assert forbidden == absent
    assert {status for status, _ in forbidden} == {404}
    assert await bert.get("/api/conversations") == []
    assert (snapshot["version"], snapshot["running"]) == (2, True)


async def test_a_prompt_into_anothers_conversation_is_not_found(
    anna: Visitor, bert: Visitor, conv: str
):
    await anna.chat("fail at once", conv)
    before = await anna.get("/api/timeline", conv_id=conv)
    answer = await bert.post("/chat", {"prompt": "fail at once", "conv_id": conv})
    after = await anna.get("/api/timeline", conv_id=conv)

    assert (answer.status_code, answer.json()["code"]) == (404, "conversation_not_found")
    assert after["version"] == before["version"]


async def test_a_socket_to_anothers_conversation_is_refused(
    anna: Visitor, bert: Visitor, conv: str
):
    await anna.chat("fail at once", conv)

    assert await bert.refused(conv) == 403
    assert await bert.refused(conv, cursor="x") == 403
    assert await bert.refused(conv, profile="nobody") == 403


async def test_a_socket_without_an_identity_is_refused(anna: Visitor, conv: str):
    anna.http.cookies.clear()

    assert await anna.refused(conv) == 403
    anna.http.cookies.set("sessionid", "x" * 32, domain="127.0.0.1", path="/")
    assert await anna.refused(conv) == 403


async def test_an_address_that_is_no_websocket_is_refused_and_no_failure(
    anna: Visitor, server: LiveServer
):
    url = anna.socket_url(conv_id="x").replace("/ws?", "/ws/elsewhere?")
    with pytest.raises(Exception, match=r"HTTP (403|404)"):
        async with anna.connected(url):
            pass
    assert "Traceback" not in server.log


async def test_the_operator_sees_every_conversation_and_lists_their_own(
    anna: Visitor, root: Visitor, conv: str
):
    frames = await anna.hear("fail at once", conv)
    async with root.socket(conv) as socket:
        [hello, _] = await socket.until("timeline.snapshot")

    assert hello["data"]["headSeq"] == len(frames)
    assert (await root.get("/api/timeline", conv_id=conv))["version"] == len(frames)
    assert (await root.http.get(f"/c/{conv}/")).status_code == 200
    assert conv not in [each["conv_id"] for each in await root.get("/api/conversations")]


async def test_an_account_without_the_permission_sees_its_own_alone(
    anna: Visitor, bert: Visitor, accounts: Accounts, conv: str
):
    await anna.chat("fail at once", conv)
    await bert.sign_in(accounts(), PASSWORD)

    assert await bert.refused(conv) == 403
    assert (await bert.http.get("/api/timeline", params={"conv_id": conv})).status_code == 404


async def test_signing_in_brings_the_visitors_conversations_and_signing_out_leaves_them(
    anna: Visitor, bert: Visitor, accounts: Accounts, conv: str
):
    name = accounts()
    ids = [f"{conv}.{number}" for number in range(2)]
    for conv_id in ids:
        await anna.hear("fail at once", conv_id)
    async with anna.socket(ids[0]) as one, anna.socket(ids[0]) as two, anna.socket(ids[1]) as three:
        for tab in (one, two, three):
            await tab.until("timeline.snapshot")
        await anna.sign_in(name, PASSWORD)
        codes = [await tab.closed() for tab in (one, two, three)]
    async with anna.socket(ids[0], cursor=one.cursor) as back:
        hello = await back.frame()
    listed = {each["conv_id"] for each in await anna.get("/api/conversations")}
    await bert.sign_in(name, PASSWORD)
    elsewhere = {each["conv_id"] for each in await bert.get("/api/conversations")}

    assert codes == [4010, 4010, 4010]
    assert (hello["data"]["resumed"], hello["data"]["missed"]) == (True, 0)
    assert listed == elsewhere == set(ids)

    await sign_out(anna)
    await anna.http.get("/")
    assert await anna.get("/api/conversations") == []
    assert await anna.refused(ids[0]) == 403
    assert (await anna.http.get(f"/c/{ids[0]}/")).status_code == 404


async def test_a_running_inference_goes_on_when_its_visitor_signs_in(
    anna: Visitor, accounts: Accounts, conv: str
):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        started = await anna.chat("slow 30", conv)
        await socket.until("llm.delta")
        await anna.sign_in(accounts(), PASSWORD)
        assert await socket.closed() == 4010
    async with anna.socket(conv, cursor=socket.cursor) as back:
        hello = await back.frame()
        await anna.post("/api/chat/cancel", {"conv_id": conv})
        await back.until("inference.finished")

    assert hello["data"]["resumed"] is True
    assert hello["data"]["inferenceId"] == started["inference_id"]


async def test_signing_in_does_not_touch_the_sockets_of_others(
    anna: Visitor, bert: Visitor, accounts: Accounts, conv: str
):
    async with bert.socket(f"{conv}.b") as theirs, anna.socket(conv) as own:
        for tab in (theirs, own):
            await tab.until("timeline.snapshot")
        await anna.sign_in(accounts(), PASSWORD)
        assert await own.closed() == 4010
        await theirs.send("ping")
        assert (await theirs.frame())["type"] == "ws.pong"


async def test_the_log_in_page_says_what_was_wrong_and_signs_nobody_in(
    anna: Visitor, accounts: Accounts
):
    await anna.http.get("/accounts/login/")
    token = {"csrfmiddlewaretoken": anna.http.cookies["csrftoken"]}
    wrong = {"username": accounts(), "password": "wrong", **token}
    answer = await anna.http.post("/accounts/login/", data=wrong)

    assert answer.status_code == 200
    assert 'role="alert"' in answer.text
    assert "Log out" not in (await anna.http.get("/")).text


async def test_where_signing_in_is_required_nobody_else_enters(conv: str):
    async with live_server("daphne", env={"WEBCHAT_LOGIN_REQUIRED": "1"}) as server:
        server.manage("shell", "-v0", "-c", _ONE_ACCOUNT)
        async with stranger(server.url) as http:
            somebody = Visitor(server.url, http)
            for path in ("/", "/c/x/"):
                answer = await http.get(path)
                assert answer.status_code == 302
                assert answer.headers["location"] == f"/accounts/login/?next={path}"
            assert (await http.get("/accounts/login/")).status_code == 200
            answer = await somebody.post("/chat", {"prompt": "hello", "conv_id": conv})
            assert (answer.status_code, answer.json()["code"]) == (403, "login_required")
            assert await somebody.refused(conv) == 403
            assert await somebody.get("/api/conversations") == []
            absent = await http.get("/api/timeline", params={"conv_id": conv})
            assert absent.status_code == 404

            await somebody.sign_in("somebody", PASSWORD)
            assert (await http.get("/")).status_code == 200
            frames = await somebody.hear("fail at once", conv)
            assert frames[-1]["type"] == "inference.finished"

            await sign_out(somebody)
            assert await somebody.refused(conv) == 403
            assert (await http.get("/")).status_code == 302


_ONE_ACCOUNT = f"""
from django.contrib.auth.models import User
User.objects.create_user("somebody", password={PASSWORD!r})
"""


async def test_the_first_prompt_of_a_page_without_scripts_makes_a_conversation(server: LiveServer):
    async with visitor(server.url) as somebody:
        token = {"csrfmiddlewaretoken": somebody.http.cookies["csrftoken"]}
        sent = {"prompt": "fail at once", "idempotency_key": "k1", **token}
        answer = await somebody.http.post("/", data=sent)
        [mine] = await somebody.get("/api/conversations")
        page = await somebody.http.get(answer.headers["location"])

    assert answer.headers["location"] == f"/c/{mine['conv_id']}/"
    assert answer.status_code == 303, "PROTOCOL §5: 303 to the conversation"
    assert "fail at once" in page.text
