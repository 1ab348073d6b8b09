"""Several tabs of one conversation, lost connections, and the one fold they all see."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chat.wire import Page
from tests.client import Frame, Visitor, text_of

QUICK = "long 30"


async def timeline(visitor: Visitor, conv: str, **query: str) -> dict[str, Any]:
    answer: dict[str, Any] = await visitor.get("/api/timeline", conv_id=conv, **query)
    return answer


async def test_two_tabs_are_sent_the_same_frames(anna: Visitor, conv: str):
    async with anna.socket(conv) as one, anna.socket(conv) as two:
        for tab in (one, two):
            await tab.until("timeline.snapshot")
        await anna.chat("hello", conv)
        seen = [await tab.until("inference.finished") for tab in (one, two)]

    assert seen[0] == seen[1]
    assert text_of(seen[0]).startswith("Hello! I am Webchat's")


async def test_a_tab_that_lost_its_line_in_mid_answer_misses_and_repeats_nothing(
    anna: Visitor, conv: str
):
    async with anna.socket(conv) as stayed:
        await stayed.until("timeline.snapshot")
        async with anna.socket(conv) as lost:
            await lost.until("timeline.snapshot")
            await anna.chat("hello", conv)
            seen = await lost.until("llm.thinking.delta")
            lost.drop()
        everything = await stayed.until("llm.start")
        async with anna.socket(conv, cursor=lost.cursor) as back:
            hello = await back.frame()
            seen += await back.until("inference.finished")
        everything += await stayed.until("inference.finished")

    assert hello["data"]["resumed"] is True
    assert hello["data"]["missed"] > 0
    assert seen == everything
    assert seen[-1]["data"]["status"] == "completed"


async def test_a_tab_that_is_torn_again_and_again_still_sees_every_frame_once(
    anna: Visitor, conv: str
):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        cursor = socket.cursor
    await anna.chat("hello", conv)
    seen: list[Frame] = []
    while not seen or seen[-1]["type"] != "inference.finished":
        async with anna.socket(conv, cursor=cursor) as socket:
            await socket.frame()
            for _ in range(3):
                seen.append(await socket.frame())
                if seen[-1]["type"] == "inference.finished":
                    break
            cursor = socket.cursor
            socket.drop()

    assert seen == await all_frames(anna, conv, socket.epoch)


async def test_closing_every_tab_changes_nothing(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        answer = await anna.chat("hello", conv)
        await socket.until("llm.delta")
        socket.drop()

    async with anna.socket(conv) as later:
        hello = await later.frame()
        await later.until("inference.finished")
    frames = await all_frames(anna, conv, later.epoch)
    assert hello["data"]["inferenceId"] == answer["inference_id"]
    assert frames[-1]["data"]["status"] == "completed"
    assert text_of(frames).endswith("see what I know.\n")


@pytest.mark.parametrize("prompt", ["hello", "fail"])
async def test_a_snapshot_and_the_frames_after_it_are_the_timeline_wherever_one_joins(
    anna: Visitor, conv: str, prompt: str
):
    async with anna.socket(conv) as socket:
        [_, first] = await socket.until("timeline.snapshot")
        snapshots = [first["data"]]
        await anna.chat(prompt, conv)
        frames: list[Frame] = []
        while not frames or frames[-1]["type"] != "inference.finished":
            frames.append(await socket.frame())
            if len(frames) % 4 == 0:
                snapshots.append(await timeline(anna, conv))
    last = await timeline(anna, conv)

    assert len({snapshot["version"] for snapshot in snapshots}) > 2
    assert last["version"] == len(frames)
    assert last["running"] is False
    for snapshot in snapshots:
        from_the_start, from_here = Page(), Page()
        for frame in frames[: snapshot["version"]]:
            from_the_start.take(frame)
        from_the_start.assert_shows(snapshot)
        from_here.replace(snapshot)
        for frame in frames[snapshot["version"] :]:
            from_here.take(frame)
        from_here.assert_shows(last)


async def test_the_page_the_call_and_the_socket_serve_the_same_fold(anna: Visitor, conv: str):
    await anna.hear(QUICK, conv)
    called = await timeline(anna, conv)
    async with anna.socket(conv) as socket:
        [_, snapshot] = await socket.until("timeline.snapshot")
    page = (await anna.http.get(f"/c/{conv}/")).text

    sent = snapshot["data"]
    assert sent.pop("reason") == "first"
    assert sent.pop("serverTimeMs") >= called.pop("serverTimeMs")
    assert sent == called
    assert f'data-conv-id="{conv}"' in page
    assert f'data-cursor="{called["cursor"]}"' in page
    assert [entity["id"] for entity in called["entities"] if entity["id"] not in page] == []


async def test_since_version_gives_only_what_changed_after_it(anna: Visitor, conv: str):
    await anna.hear(QUICK, conv)
    whole = await timeline(anna, conv)

    for since in range(whole["version"] + 2):
        part = await timeline(anna, conv, since_version=str(since))
        changed = [entity for entity in whole["entities"] if entity["updatedSeq"] > since]
        assert part["entities"] == changed
        assert part["version"] == whole["version"]
        assert part["cursor"] == whole["cursor"]


@pytest.mark.parametrize("since", ["-1", "x", "1.5", "", "12345678901234567", "٣"])
async def test_a_since_version_that_is_none_is_a_bad_request(anna: Visitor, conv: str, since: str):
    await anna.chat("fail at once", conv)
    answer = await anna.http.get("/api/timeline", params={"conv_id": conv, "since_version": since})

    assert answer.status_code == 400
    assert answer.json()["code"] == "bad_request"


async def all_frames(visitor: Visitor, conv: str, epoch: int) -> list[Frame]:
    """The log from its first frame to the end of the first inference."""
    async with visitor.socket(conv, cursor=f"{epoch}.0") as socket:
        await socket.frame()
        return await socket.until("inference.finished")
