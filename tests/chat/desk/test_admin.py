"""Admin → Live sessions: who sees what, and what becomes of each action for whoever asks for it."""

from __future__ import annotations

import html
import json
import logging
import re

import pytest
from channels.layers import get_channel_layer
from django.contrib.admin.models import LogEntry
from django.test import AsyncClient

from chat.control import control_group
from chat.desk.acts import ACTS
from sessions_app.inference.errors import InferenceFailed
from sessions_app.testing import Gate, IgnoreCancel
from tests.chat.desk.conftest import OWNER, SAID, Floor, People
from tests.chat.people import Person

LIST = "/admin/sessions_app/livesession/"
PAGE = f"{LIST}conv/"


async def get(who: Person, path: str, **headers: str) -> str:
    answer = await who.client.get(path, headers=headers)
    assert answer.status_code == 200, answer
    return answer.content.decode()


def rows(page: str) -> list[str]:
    """The ids in the list, in its order."""
    return re.findall(r'<tr data-key="([^"]+)"', page)


def words(page: str) -> str:
    """What a person reads."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def name_of(who: Person) -> str:
    assert who.user is not None
    return who.user.username


def audited(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    lines = [r.getMessage() for r in caplog.records if r.name == "webchat.audit"]
    return [json.loads(line.removeprefix("audit ")) for line in lines]


async def test_the_list_shows_every_way_to_be_stuck(floor: Floor, person: People):
    await floor.idle("done")
    floor.engine.play(InferenceFailed("The model is away."))
    await floor.ask("failed")
    await floor.until("failed", "idle")
    await floor.paused("paused")
    await floor.running("busy")
    await floor.ask("busy")
    floor.engine.play(IgnoreCancel(gate := Gate("never")))
    await floor.ask("deaf")
    await gate.reached()
    await floor.hub.sessions.cancel("deaf")
    operator = await person(staff=True, grants="view")
    page = await get(operator, LIST)
    gate.open()

    assert rows(page) == [
        "paused",
        "deaf",
        "busy",
        *sorted(["done", "failed"], key=rows(page).index),
    ]
    told = {
        row: words(page.split(f'<tr data-key="{row}"')[1].split("</tr>")[0]) for row in rows(page)
    }
    assert re.search(r"Paused until \d\d:\d\d:\d\d, 4 min \d+ s left", told["paused"])
    assert "Stopping asked to 0 s ago" in told["deaf"]
    assert "Answering for 0 s" in told["busy"]
    assert "queued 1" in told["busy"]
    assert "1 The model is away." in told["failed"]
    assert "Idle for" in told["done"]
    assert SAID not in page


async def test_the_list_is_searched_filtered_and_sorted(floor: Floor, person: People):
    anna = await person("anna")
    await floor.idle("first", anna.owner)
    await floor.idle("second")
    await floor.running("third")
    operator = await person(staff=True, grants="view")

    assert rows(await get(operator, f"{LIST}?q=anna")) == ["first"]
    assert rows(await get(operator, f"{LIST}?q=SECO")) == ["second"]
    assert rows(await get(operator, f"{LIST}?q={OWNER[:20]}&o=conversation")) == ["second", "third"]
    assert rows(await get(operator, f"{LIST}?state=running")) == ["third"]
    assert rows(await get(operator, f"{LIST}?profile=agent")) == []
    assert rows(await get(operator, f"{LIST}?o=-conversation")) == ["third", "second", "first"]
    assert rows(await get(operator, f"{LIST}?q=nobody")) == []


async def test_a_page_gets_its_live_part_alone(floor: Floor, person: People):
    await floor.idle("conv")
    operator = await person(staff=True, superuser=True)
    part = await get(operator, LIST, X_Live_Part="1")
    detail = await get(operator, PAGE, X_Live_Part="1")
    again = await get(operator, f"{PAGE}?turns=1", X_Live_Part="1")

    assert rows(part) == ["conv"]
    assert '<nav id="changelist-filter"' in part
    assert '<section data-live="turns"' in detail
    assert '<section data-live="turns"' not in again, "there are no more turns than it has"
    assert not re.search(r"<html|<h1|data-frames", part + detail + again)
    gone = await operator.client.get(f"{LIST}never/", headers={"X-Live-Part": "1"})
    assert gone.status_code == 404


async def test_one_session_is_shown_with_its_words_for_who_may_read(floor: Floor, person: People):
    await floor.idle("conv")
    pause_id = await floor.paused("conv")
    await floor.ask("conv", key="k2")
    operator = await person(staff=True, grants="view transcript step")
    page = await get(operator, PAGE)

    assert (await floor.inspect("conv")).session.fingerprint in page
    assert f'name="pause_id" value="{pause_id}"' in page
    assert 'name="arguments:call-1"' in page
    for part in ("queue", "turns", "pauses"):
        assert SAID in page.split(f'data-live="{part}"')[1].split("</section>")[0], part
    assert f'data-cursor="{floor.hub.streams.info("conv").cursor}"' in page
    assert "PromptTaken" in page
    assert "chat.message" in page
    chosen = await get(operator, f"{PAGE}?type=chat.message")
    assert set(re.findall(r'<li data-type="([^"]+)"', chosen)) == {"chat.message"}


async def test_one_session_is_shown_without_its_words_for_who_may_not(floor: Floor, person: People):
    await floor.idle("conv")
    await floor.paused("conv")
    await floor.ask("conv", key="k2")
    operator = await person(staff=True, grants="view step cancel")
    page = await get(operator, PAGE)

    assert SAID not in page
    assert "data-frames" not in page
    assert "About to run demo_send_note" in page
    assert "k2" in page
    assert "needs the permission to read transcripts" in page


async def test_who_may_not_act_is_offered_nothing(floor: Floor, person: People):
    await floor.paused("conv")
    operator = await person(staff=True, grants="view transcript")

    page, listed = await get(operator, PAGE), await get(operator, LIST)
    assert 'name="decision"' not in page
    assert 'name="action"' not in page + listed
    assert "action-select" not in listed


async def test_an_unloaded_session_has_a_page_and_stays_unloaded(floor: Floor, person: People):
    await floor.idle("conv")
    await floor.hub.sessions.evict("conv")
    operator = await person(staff=True, superuser=True)
    page = await get(operator, PAGE)

    assert "Unloaded" in page
    assert 'data-follow="false"' in page
    assert (await floor.inspect("conv")).session.state.kind == "unloaded"


async def test_an_id_that_is_none_leads_back_to_the_list(floor: Floor, person: People):
    operator = await person(staff=True, grants="view")
    for answer in (
        await operator.client.get(f"{LIST}never/"),
        await operator.client.post(f"{LIST}never/", {"decision": "abort", "pause_id": "x"}),
    ):
        assert (answer.status_code, answer["Location"]) == (302, LIST)


async def test_the_index_lists_it_for_who_may_view(floor: Floor, person: People):
    with_it = await person(staff=True, grants="view")
    without = await person(staff=True, grants="transcript step cancel")

    assert f'href="{LIST}"' in await get(with_it, "/admin/")
    assert LIST not in await get(without, "/admin/")


async def prepared(floor: Floor, slug: str, owner: str) -> None:
    """`conv` in a state that the action changes."""
    if slug == "evict":
        await floor.idle("conv", owner)
        return
    await floor.running("conv", owner)
    await floor.ask("conv", owner)
    if slug == "step-off":
        await floor.hub.sessions.set_step_mode("conv", True, by="test")


async def happened(floor: Floor, slug: str) -> bool:
    """Whether the action was carried out on `conv`."""
    session = (await floor.inspect("conv")).session
    match slug:
        case "cancel":
            return session.state.kind in ("stopping", "ending") or session.queue_depth == 0
        case "cancel-all":
            return session.queue_depth == 0
        case "step-on" | "step-off":
            return session.step_mode is (slug == "step-on")
        case "evict":
            return session.state.kind == "unloaded"
        case _:
            raise AssertionError(slug)


NEEDS = {
    "cancel": "cancel",
    "cancel-all": "cancel",
    "step-on": "step",
    "step-off": "step",
    "drop": "cancel",
    "evict": "cancel",
}

WHO = [
    "anonymous",
    "other",
    "owner",
    "staff without permission",
    "staff with view only",
    "staff with all but it",
    "staff with it",
    "superuser",
]


async def come(who: str, person: People, needs: str) -> Person:
    """Somebody of that kind."""
    all_but = " ".join({"transcript", "cancel", "step"} - {needs})
    match who:
        case "anonymous":
            return Person()
        case "other" | "owner":
            return await person()
        case "staff without permission":
            return await person(staff=True)
        case "staff with view only":
            return await person(staff=True, grants="view")
        case "staff with all but it":
            return await person(staff=True, grants=f"view {all_but}")
        case "staff with it":
            return await person(staff=True, grants=f"view {needs}")
        case _:
            return await person(staff=True, superuser=True)


def test_the_matrix_has_every_action():
    assert set(NEEDS) == set(ACTS)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("slug", sorted(set(ACTS) - {"drop"}))
async def test_an_action_is_done_by_who_may_and_by_nobody_else(
    floor: Floor, person: People, caplog: pytest.LogCaptureFixture, slug: str, who: str
):
    caplog.set_level(logging.INFO, "webchat.audit")
    somebody = await come(who, person, NEEDS[slug])
    await prepared(floor, slug, somebody.owner if who == "owner" else OWNER)
    allowed = who in ("staff with it", "superuser")
    fields = {"action": slug, "_selected_action": "conv"}
    for path in (LIST, PAGE):
        assert (await somebody.client.get(path, fields)).status_code in (200, 302, 403)
        asked = await somebody.client.post(path, fields)
        assert asked.status_code == (200 if allowed else 403 if who.startswith("staff") else 302)
        assert ("confirmed" in asked.content.decode()) is allowed
        assert not await happened(floor, slug), "asking is not yet doing"
    attempts = audited(caplog)
    done = await somebody.client.post(PAGE, {**fields, "confirmed": "yes"})

    assert await happened(floor, slug) is allowed
    if allowed:
        assert (done.status_code, done["Location"]) == (302, PAGE)
        assert attempts == []
        assert audited(caplog) == [
            {
                "actor": name_of(somebody),
                "actor_id": somebody.owner,
                "action": slug,
                "conversation": "conv",
                "outcome": "done",
            }
        ]
    elif who.startswith("staff with "):
        assert {each["outcome"] for each in audited(caplog)} == {"forbidden"}
    else:
        assert audited(caplog) == []


@pytest.mark.parametrize(
    ("decision", "who"),
    [(decision, "staff with it") for decision in ("continue", "skip", "edit")]
    + [("abort", who) for who in WHO],
)
async def test_a_pause_is_decided_by_who_may_and_by_nobody_else(
    floor: Floor, person: People, caplog: pytest.LogCaptureFixture, decision: str, who: str
):
    caplog.set_level(logging.INFO, "webchat.audit")
    somebody = await come(who, person, "step")
    pause_id = await floor.paused("conv", somebody.owner if who == "owner" else OWNER)
    fields = {
        "pause_id": pause_id,
        "decision": decision,
        "arguments:call-1": '{"text": "better"}',
        "message": "not today",
    }
    allowed = who in ("staff with it", "superuser")
    asked = await somebody.client.post(PAGE, fields)
    assert ("confirmed" in asked.content.decode()) is allowed
    assert (await floor.inspect("conv")).pauses, "asking is not yet deciding"
    done = await somebody.client.post(PAGE, {**fields, "confirmed": "yes"})

    if not allowed:
        assert done.status_code == (403 if who.startswith("staff") else 302)
        assert (await floor.inspect("conv")).session.state.kind == "paused"
        return
    assert (done.status_code, done["Location"]) == (302, PAGE)
    await floor.until("conv", "idle")
    frames = [json.loads(each.text) for each in await floor.hub.streams.window("conv")]
    told = {frame["event"]["type"]: frame["event"]["data"] for frame in frames}
    assert told["debugger.resumed"]["decision"] == decision
    assert told["debugger.resumed"]["by"] == name_of(somebody)
    expected = {"continue": "success", "edit": "success", "skip": "skipped", "abort": "cancelled"}
    assert told["tool.done"]["status"] == expected[decision]
    assert [each["action"] for each in audited(caplog)] == [f"decide:{decision}"]


async def test_edited_arguments_that_do_not_fit_are_asked_for_again(floor: Floor, person: People):
    pause_id = await floor.paused("conv")
    operator = await person(staff=True, superuser=True)
    fields = {"pause_id": pause_id, "decision": "edit", "confirmed": "yes"}
    for typed, problem in (("{", "no JSON object"), ('{"txt": 1}', "invalid arguments")):
        answer = await operator.client.post(PAGE, {**fields, "arguments:call-1": typed})
        page = html.unescape(answer.content.decode())
        assert answer.status_code == 422
        assert problem in page
        assert typed in page, "what was typed is still there"
    assert (await floor.inspect("conv")).session.state.kind == "paused"


async def test_a_pause_that_has_ended_is_said_to_have(floor: Floor, person: People):
    pause_id = await floor.paused("conv")
    operator = await person(staff=True, superuser=True)
    await floor.hub.sessions.decide("conv", pause_id, "continue", by="anna")
    await floor.until("conv", "idle")
    fields = {"pause_id": pause_id, "decision": "abort"}
    asked = await operator.client.post(PAGE, fields)
    assert (asked.status_code, asked["Location"]) == (302, PAGE)
    assert "has ended already" in await get(operator, PAGE)
    await operator.client.post(PAGE, {**fields, "confirmed": "yes"})
    assert "anna" in await get(operator, PAGE)


async def test_several_sessions_are_acted_on_at_once_and_told_apart(
    floor: Floor, person: People, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "webchat.audit")
    for conv_id in ("one", "two"):
        await floor.running(conv_id)
    await floor.idle("three")
    operator = await person(staff=True, grants="view cancel")
    chosen = {"action": "cancel", "_selected_action": ["one", "two", "three", "never"]}
    asked = await operator.client.post(f"{LIST}?o=conversation", chosen)
    assert "3 sessions" in asked.content.decode()
    done = await operator.client.post(f"{LIST}?o=conversation", {**chosen, "confirmed": "yes"})

    assert done["Location"] == f"{LIST}?o=conversation"
    told = words(await get(operator, LIST))
    assert "The inference was asked to end: 2 sessions" in told
    assert "No such inference is active in this conversation: three" in told
    assert "There is no such conversation any more: never" in told
    outcomes = {each["conversation"]: each["outcome"] for each in audited(caplog)}
    assert outcomes == {
        "one": "done",
        "two": "done",
        "three": "no_active_inference",
        "never": "conversation_not_found",
    }


@pytest.mark.parametrize("fields", [{}, {"action": "cancel"}, {"action": "no-such-thing"}])
async def test_nothing_chosen_is_nothing_done(floor: Floor, person: People, fields: dict[str, str]):
    operator = await person(staff=True, superuser=True)
    answer = await operator.client.post(LIST, fields)
    assert (answer.status_code, answer["Location"]) == (302, LIST)
    assert "Nothing was done" in await get(operator, LIST)


@pytest.mark.parametrize("who", WHO)
async def test_sockets_are_dropped_by_who_may(floor: Floor, person: People, who: str):
    somebody = await come(who, person, "cancel")
    await floor.idle("conv", somebody.owner if who == "owner" else OWNER)
    layer = get_channel_layer()
    assert layer is not None
    await layer.group_add(control_group("conv"), "a-socket")
    await somebody.client.post(PAGE, {"action": "drop", "confirmed": "yes"})

    await layer.send("a-socket", {"type": "nothing"})
    message = await layer.receive("a-socket")
    dropped = message == {"type": "control.close", "code": 4010}
    assert dropped is (who in ("staff with it", "superuser"))


@pytest.mark.parametrize("path", [LIST, PAGE])
async def test_an_action_needs_the_token_of_its_form(floor: Floor, person: People, path: str):
    operator = await person(staff=True, superuser=True)
    await floor.running("conv")
    strict = AsyncClient(enforce_csrf_checks=True)
    strict.cookies = operator.client.cookies
    fields = {"action": "cancel", "_selected_action": "conv", "confirmed": "yes"}
    answer = await strict.post(path, fields)

    assert answer.status_code == 403
    assert (await floor.inspect("conv")).session.state.kind == "running"


async def test_nothing_of_it_is_kept_in_the_database(floor: Floor, person: People):
    await floor.running("conv")
    operator = await person(staff=True, superuser=True)
    await operator.client.post(PAGE, {"action": "cancel", "confirmed": "yes"})

    assert await LogEntry.objects.acount() == 0


async def test_a_name_cannot_begin_a_line_of_its_own_in_the_log(
    floor: Floor, person: People, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "webchat.audit")
    await floor.running("conv")
    operator = await person("eve\n\x1b[31m\x7f\u2028", staff=True, superuser=True)
    await operator.client.post(PAGE, {"action": "cancel", "confirmed": "yes"})

    [line] = [r.getMessage() for r in caplog.records if r.name == "webchat.audit"]
    assert line.isprintable()
    assert audited(caplog)[0]["actor"] == "eve\n\x1b[31m\x7f\u2028"
