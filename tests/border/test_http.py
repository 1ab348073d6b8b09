"""Every HTTP call that exists, and every way to get it wrong: PROTOCOL §5."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.client import Visitor, stranger
from tests.live import LiveServer

JSON = {"Content-Type": "application/json"}
KIB = 1024


def token(visitor: Visitor) -> dict[str, str]:
    return {"X-CSRFToken": visitor.http.cookies["csrftoken"]}


def assert_error(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    assert set(told) == {"error", "code"}
    assert told["code"] == code
    assert len(told["error"]) > 10
    assert "\n" not in told["error"]


async def started(visitor: Visitor, conv: str) -> dict[str, Any]:
    """The `data` of the conversation's last inference.started."""
    async with visitor.socket(conv) as socket:
        await socket.until("timeline.snapshot")
    async with visitor.socket(conv, cursor=f"{socket.epoch}.0") as resumed:
        hello = await resumed.frame()
        frames = [await resumed.frame() for _ in range(hello["data"]["missed"])]
    data: dict[str, Any] = [f for f in frames if f["type"] == "inference.started"][-1]["data"]
    return data


# --- what goes well


async def test_the_profiles_are_told_in_configured_order(anna: Visitor):
    told = await anna.get("/api/chat/profiles")

    assert [(each["slug"], each["model"], each["default"]) for each in told] == [
        ("default", "demo", True),
        ("agent", "demo", False),
    ]
    for each in told:
        assert {"slug", "default_prompt", "model", "tools", "default"} <= set(each)
        assert {"calc", "current_time"} <= set(each["tools"])
        assert len(each["default_prompt"]) > 20


@pytest.mark.parametrize("name", ["slug", "profile"])
async def test_the_profile_is_kept_in_a_cookie_scripts_cannot_read(anna: Visitor, name: str):
    before = await anna.get("/api/chat/profile")
    answer = await anna.post("/api/chat/profile", {name: "agent"})
    after = await anna.get("/api/chat/profile")

    assert before == {"slug": "default"}
    assert (answer.status_code, answer.json()) == (200, {"slug": "agent"})
    assert after == {"slug": "agent"}
    value, *attributes = answer.headers["set-cookie"].split("; ")
    assert value == "chat_profile=agent"
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(attributes)
    assert "Secure" not in attributes


async def test_a_profile_cookie_that_names_nothing_counts_for_nothing(anna: Visitor, conv: str):
    anna.http.cookies.set("chat_profile", "gone", domain="127.0.0.1", path="/")

    assert await anna.get("/api/chat/profile") == {"slug": "default"}
    await anna.chat("fail at once", conv)
    async with anna.socket(conv) as socket:
        assert (await socket.frame())["data"]["runtimeKey"] == "default"


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        ({"slug": "nobody"}, "profile_not_found", 404),
        ({"slug": ""}, "bad_request", 400),
        ({}, "bad_request", 400),
        ({"slug": 7}, "bad_request", 400),
    ],
)
async def test_a_profile_that_cannot_be_set_is_refused(
    anna: Visitor, body: object, code: str, status: int
):
    answer = await anna.post("/api/chat/profile", body)

    assert_error(answer, status, code)
    assert "set-cookie" not in answer.headers


async def test_the_profile_of_a_prompt_is_the_paths_the_querys_the_conversations_the_cookies(
    anna: Visitor, conv: str
):
    async def runs_on(path: str, conv_id: str) -> str:
        answer = await anna.post(path, {"prompt": "fail at once", "conv_id": conv_id})
        assert answer.status_code == 200, answer.text
        profile: str = (await started(anna, conv_id))["profile"]
        return profile

    assert await runs_on("/chat", f"{conv}.a") == "default"
    await anna.post("/api/chat/profile", {"slug": "agent"})
    assert await runs_on("/chat", f"{conv}.b") == "agent", "the cookie before the default"
    assert await runs_on("/chat", f"{conv}.a") == "default", "its own before the cookie"
    assert await runs_on("/chat?profile=agent", f"{conv}.a") == "agent", "the query before its own"
    assert await runs_on("/chat/default?profile=agent", f"{conv}.a") == "default", "the path first"
    assert await runs_on("/chat", f"{conv}.a") == "default", "and it stays the conversation's own"


async def test_the_profile_of_a_socket_is_the_querys_the_conversations_the_cookies(
    anna: Visitor, conv: str
):
    async def told(conv_id: str, **query: str) -> str:
        async with anna.socket(conv_id, **query) as socket:
            key: str = (await socket.frame())["data"]["runtimeKey"]
            return key

    assert await told(f"{conv}.a") == "default"
    await anna.post("/api/chat/profile", {"slug": "agent"})
    assert await told(f"{conv}.b") == "agent"
    assert await told(f"{conv}.a") == "default"
    assert await told(f"{conv}.a", profile="agent") == "agent"


async def test_a_change_of_profile_is_told_once_and_keeps_the_history(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        await anna.chat("fail at once", conv)
        first = await socket.until("inference.finished")
        await anna.post("/chat/agent", {"prompt": "history", "conv_id": conv})
        second = await socket.until("inference.finished")
        await anna.post("/chat/agent", {"prompt": "fail at once", "conv_id": conv})
        third = await socket.until("inference.finished")

    [updated] = [f for f in [*first, *second, *third] if f["type"] == "session.updated"]
    assert updated == second[0]
    assert updated["id"] == conv
    assert set(updated["data"]) == {"profile", "fingerprint", "stepMode"}
    assert (updated["data"]["profile"], updated["data"]["stepMode"]) == ("agent", False)
    assert len(updated["data"]["fingerprint"]) >= 8
    assert "1. fail at once" in second[-2]["data"]["text"]


@pytest.mark.parametrize(
    ("headers", "body_key", "expected"),
    [
        ({"Idempotency-Key": "one", "X-Idempotency-Key": "two"}, "three", "one"),
        ({"X-Idempotency-Key": "two"}, "three", "two"),
        ({}, "three", "three"),
    ],
)
async def test_an_idempotency_key_is_taken_echoed_and_in_the_frames(
    anna: Visitor, conv: str, headers: dict[str, str], body_key: str, expected: str
):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        body = {"prompt": "fail at once", "conv_id": conv, "idempotency_key": body_key}
        answer = await anna.post("/chat", body, **headers)
        message, begun, _ = await socket.until("inference.finished")

    assert answer.json()["idempotency_key"] == expected
    assert message["data"]["idempotencyKey"] == expected
    assert begun["data"]["idempotencyKey"] == expected


async def test_text_is_another_name_for_the_prompt(anna: Visitor, conv: str):
    answer = await anna.post("/chat", {"text": "fail at once", "conv_id": conv})
    snapshot = await anna.get("/api/timeline", conv_id=conv)

    assert answer.status_code == 200
    assert snapshot["entities"][0]["props"]["content"] == "fail at once"


async def test_without_a_conversation_a_new_one_is_made(anna: Visitor):
    first, second = [
        (await anna.post("/chat", {"prompt": "fail at once"})).json() for _ in range(2)
    ]
    mine = await anna.get("/api/conversations")

    assert first["conv_id"] != second["conv_id"]
    assert {each["conv_id"] for each in mine} == {first["conv_id"], second["conv_id"]}


async def test_the_conversations_are_the_callers_own_newest_activity_first(
    anna: Visitor, bert: Visitor, conv: str
):
    ids = [f"{conv}.{number}" for number in range(3)]
    for conv_id in ids:
        await anna.hear("fail at once", conv_id)
        await asyncio.sleep(0.002)  # activity is told in milliseconds: have them differ
    await bert.hear("fail at once", f"{conv}.b")
    await anna.hear("long 1", ids[0])
    told = await anna.get("/api/conversations")

    assert [each["conv_id"] for each in told] == [ids[0], ids[2], ids[1]]
    assert [each["head_seq"] > 3 for each in told] == [True, False, False]
    for each in told:
        activity = each.pop("last_activity_ms")
        assert activity > 1_700_000_000_000
        assert each == {
            "conv_id": each["conv_id"],
            "title": "fail at once",
            "profile": "default",
            "running": False,
            "paused": False,
            "queue_depth": 0,
            "head_seq": each["head_seq"],
        }


async def test_a_conversation_that_waits_for_a_decision_is_told_as_paused(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        await anna.post("/chat/agent", {"prompt": "approve", "conv_id": conv})
        pause = (await socket.until("debugger.pause"))[-1]
        [waiting] = await anna.get("/api/conversations")
        assert (waiting["running"], waiting["paused"]) == (True, True)
        decision = {"conv_id": conv, "pause_id": pause["id"], "decision": "abort"}
        await anna.post("/api/debug/continue", decision)
        [decided] = await anna.get("/api/conversations")
        assert decided["paused"] is False


async def test_a_running_conversation_is_told_as_running(anna: Visitor, conv: str):
    await anna.chat("hang", conv)
    [running] = await anna.get("/api/conversations")
    async with anna.socket(conv) as socket:
        await anna.post("/api/chat/cancel", {"conv_id": conv})
        await socket.until("timeline.snapshot")
        if socket.seq == 2:
            await socket.until("inference.finished")
    [ended] = await anna.get("/api/conversations")

    assert (running["running"], ended["running"]) == (True, False)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_the_probes_answer_without_a_cookie(anna: Visitor, path: str):
    async with stranger(anna.url) as nobody:
        answer = await nobody.get(path)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "prompt", ["x", "x" * 64 * KIB, "🦊" * 16 * KIB, "\x00\x01", "a\r\nb\u2028"], ids=len
)
async def test_a_prompt_up_to_64_kib_is_taken_as_it_is(anna: Visitor, conv: str, prompt: str):
    await anna.chat(prompt, conv)
    snapshot = await anna.get("/api/timeline", conv_id=conv)
    await anna.post("/api/chat/cancel", {"conv_id": conv})

    assert snapshot["entities"][0]["props"]["content"] == prompt


# --- what does not


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"null", b"[]", b'"prompt"', b"17", b"\xff", b'{"prompt": 5}', b"prompt=x"),
        *(b'{"prompt": ["x"]}', b'{"prompt": "x", "conv_id": 7}', b'{"prompt": "x"} x'),
        *(b'{"prompt": "x", "overrides": []}', b'{"prompt": "x", "policy": 1}'),
        *(b'{"prompt": "x", "policy": "never"}', b'{"prompt": "x", "idempotency_key": 1}'),
        b"[" * 100_000,
    ],
    ids=lambda content: repr(content)[2:40],
)
async def test_a_body_that_is_not_what_the_call_takes_is_a_bad_request(
    anna: Visitor, content: bytes
):
    answer = await anna.http.post("/chat", content=content, headers={**JSON, **token(anna)})

    assert_error(answer, 400, "bad_request")


async def test_a_lone_surrogate_in_a_prompt_is_no_failure_of_the_server(anna: Visitor, conv: str):
    content = rb'{"prompt": "fail at once \ud83d", "conv_id": "%s"}' % conv.encode()
    answer = await anna.http.post("/chat", content=content, headers={**JSON, **token(anna)})

    if answer.status_code != 200:
        assert_error(answer, 400, "bad_request")


@pytest.mark.parametrize("body", [{}, {"prompt": ""}, {"prompt": " \n\t"}, {"prompt": None}])
async def test_a_prompt_without_a_word_is_missing(anna: Visitor, body: dict[str, object]):
    assert_error(await anna.post("/chat", body), 400, "missing_prompt")
    assert await anna.get("/api/conversations") == []


@pytest.mark.parametrize("conv_id", ["", "-a", "a" * 129, "a/b", "a b", "é", "a\n", "\x00"])
async def test_what_is_no_conversations_id_is_a_bad_request(anna: Visitor, conv_id: str):
    answer = await anna.post("/chat", {"prompt": "fail at once", "conv_id": conv_id})

    assert_error(answer, 400, "bad_request")


@pytest.mark.parametrize("key", ["x" * 201, "a b", "ü", "a\n"])
async def test_what_is_no_idempotency_key_is_a_bad_request(anna: Visitor, key: str):
    answer = await anna.post("/chat", {"prompt": "fail at once", "idempotency_key": key})

    assert_error(answer, 400, "bad_request")


async def test_overrides_are_not_allowed(anna: Visitor):
    body = {"prompt": "fail at once", "overrides": {"system_prompt": "Obey."}}

    assert_error(await anna.post("/chat", body), 403, "overrides_not_allowed")


@pytest.mark.parametrize("path", ["/chat/agnet", "/chat?profile=agnet"])
async def test_a_prompt_for_an_unknown_profile_starts_and_makes_nothing(anna: Visitor, path: str):
    answer = await anna.post(path, {"prompt": "fail at once"})

    assert_error(answer, 404, "profile_not_found")
    assert "agent, default" in answer.json()["error"]
    assert await anna.get("/api/conversations") == []


CALLS = [
    ("POST", "/chat"),
    ("POST", "/chat/agent"),
    ("POST", "/api/chat/cancel"),
    ("POST", "/api/chat/profile"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_a_call_without_the_csrf_token_is_refused(anna: Visitor, method: str, path: str):
    body = {"prompt": "fail at once", "slug": "agent", "conv_id": "x"}
    for headers in ({}, {"X-CSRFToken": "x" * 32}, {**token(anna), "Origin": "http://evil.test"}):
        answer = await anna.http.request(method, path, json=body, headers=headers)
        assert_error(answer, 403, "forbidden")
    assert await anna.get("/api/conversations") == []


async def test_a_call_without_any_cookie_is_refused(anna: Visitor):
    async with stranger(anna.url) as nobody:
        answer = await nobody.post("/chat", json={"prompt": "fail at once"}, headers=token(anna))

    assert_error(answer, 403, "forbidden")


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_a_body_that_is_not_json_is_an_unsupported_media_type(
    anna: Visitor, method: str, path: str
):
    part = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx\r\n--b--\r\n'
    for kind, content in (
        ("text/plain", b'{"prompt":"x"}'),
        ("", b'{"prompt":"x"}'),
        ("application/x-www-form-urlencoded", b"prompt=x"),
        ("multipart/form-data; boundary=b", part),
    ):
        headers = {"Content-Type": kind, **token(anna)}
        answer = await anna.http.request(method, path, content=content, headers=headers)
        assert_error(answer, 415, "unsupported_media_type")


async def test_a_charset_beside_json_is_no_matter(anna: Visitor, conv: str):
    headers = {"Content-Type": "application/json; charset=utf-8", **token(anna)}
    content = b'{"prompt": "fail at once", "conv_id": "%s"}' % conv.encode()

    assert (await anna.http.post("/chat", content=content, headers=headers)).status_code == 200


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing", "/chat/", "/chat/a/b"])
async def test_an_unknown_address_of_the_api_is_not_found_in_json(anna: Visitor, path: str):
    assert_error(await anna.http.get(path), 404, "not_found")


async def test_an_unknown_page_is_not_found_as_a_page(anna: Visitor):
    answer = await anna.http.get("/nothing/here")

    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        *(("GET", path, {"POST"}) for path in ("/chat", "/chat/agent", "/api/chat/cancel")),
        *(("POST", path, {"GET"}) for path in ("/api/chat/profiles", "/api/timeline")),
        ("POST", "/api/conversations", {"GET"}),
        *(("DELETE", path, {"GET", "POST"}) for path in ("/api/chat/profile",)),
        *(("PUT", path, {"POST"}) for path in ("/chat",)),
    ],
)
async def test_another_method_is_not_allowed_and_told_which_is(
    anna: Visitor, method: str, path: str, allow: set[str]
):
    answer = await anna.http.request(method, path, headers=token(anna))

    assert_error(answer, 405, "method_not_allowed")
    assert {each.strip() for each in answer.headers["allow"].split(",")} == allow


@pytest.mark.parametrize("prompt", ["x" * (64 * KIB + 1), "🦊" * (16 * KIB) + "x"], ids=len)
async def test_a_prompt_over_64_kib_is_too_long(anna: Visitor, prompt: str):
    assert_error(await anna.post("/chat", {"prompt": prompt}), 413, "prompt_too_long")
    assert await anna.get("/api/conversations") == []


@pytest.mark.parametrize("path", ["/chat", "/api/chat/cancel", "/"])
async def test_a_body_over_256_kib_is_too_long_when_declared(anna: Visitor, path: str):
    headers = {**JSON, **token(anna)}
    answer = await anna.http.post(path, content=b" " * (256 * KIB + 1), headers=headers)

    assert_error(answer, 413, "prompt_too_long")


async def test_a_body_over_256_kib_is_too_long_when_counted(anna: Visitor):
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(16):
            yield b" " * (16 * KIB)
        yield b" "

    headers = {**JSON, **token(anna)}
    answer = await anna.http.post("/chat", content=chunks(), headers=headers)

    assert "content-length" not in answer.request.headers
    assert_error(answer, 413, "prompt_too_long")


@pytest.mark.parametrize("declared", [True, False])
async def test_a_client_that_sends_its_whole_body_before_it_reads_gets_the_answer(
    server: LiveServer, declared: bool
):
    """As a browser does. A server that hangs up on it is a lost connection, and no 413."""
    size = 8 * KIB * KIB
    length = f"Content-Length: {size}" if declared else "Transfer-Encoding: chunked"
    head = f"POST /chat HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{length}\r\n\r\n"
    body = b" " * size if declared else b"%x\r\n%b\r\n0\r\n\r\n" % (size, b" " * size)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(head.encode() + body)
        await writer.drain()
        status = await reader.readline()
    finally:
        writer.transport.abort()

    assert b" 413 " in status


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_goes_on_and_on_is_cut_off(server: LiveServer, declared: bool):
    length = f"Content-Length: {1 << 40}" if declared else "Transfer-Encoding: chunked"
    head = f"POST /chat HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{length}\r\n\r\n"
    unit = b" " * (KIB * KIB)
    sent = 0
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(head.encode())
        with suppress(ConnectionError):
            while sent < 64 and not reader.at_eof():
                writer.write(unit if declared else b"%x\r\n%b\r\n" % (len(unit), unit))
                await writer.drain()
                sent += 1
    finally:
        writer.transport.abort()

    assert sent < 64


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_of_256_kib_is_read(anna: Visitor, conv: str, declared: bool):
    body = b'{"prompt": "fail at once", "conv_id": "%s"}' % conv.encode()
    content = body.ljust(256 * KIB)

    async def chunks() -> AsyncIterator[bytes]:
        yield content

    answer = await anna.http.post(
        "/chat", content=content if declared else chunks(), headers={**JSON, **token(anna)}
    )
    assert answer.status_code == 200


async def test_the_server_takes_the_next_request_after_a_body_that_was_too_long(anna: Visitor):
    headers = {**JSON, **token(anna)}
    await anna.http.post("/chat", content=b" " * (512 * KIB), headers=headers)

    assert (await anna.http.get("/healthz")).status_code == 200


async def test_no_answer_of_the_api_is_kept_by_a_cache(anna: Visitor, conv: str):
    await anna.chat("fail at once", conv)
    for path in (
        *("/api/conversations", "/api/chat/profiles", "/api/chat/profile", "/api/nothing"),
        f"/api/timeline?conv_id={conv}",
    ):
        assert (await anna.http.get(path)).headers["cache-control"] == "no-store", path
