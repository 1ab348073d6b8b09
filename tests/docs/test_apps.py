"""The app of docs/apps.md: its tool tells of its kind, its fold and its template show it."""

from __future__ import annotations

import json
import re

import pytest
from django.apps import apps
from django.template import Context, Template

from chat.app_kinds import AppKinds
from chat.frames import encode_body
from chat.timeline import Timeline
from sessions_app.inference.tools import Tool
from sessions_app.testing import RecordingSink, run_tool
from tests.chat.wire import frames_of
from tests.docs.examples import ROOT, examples, importing

PAGE = ROOT / "docs" / "apps.md"


async def test_the_app_of_the_page_does_what_the_page_says(monkeypatch: pytest.MonkeyPatch):
    kinds, sink, timeline = AppKinds(), RecordingSink(), Timeline()
    monkeypatch.setattr("chat.app_kinds.default_kinds", kinds)
    with importing() as imported:
        tools, config = (imported(example) for example in examples(PAGE))
        config.MoodConfig("mood", apps.get_app_config("chat").module).ready()
        cheer = tools.cheer
        assert isinstance(cheer, Tool)
        for level in (3, 1, 2):
            assert (await run_tool(cheer, {"level": level}, sink=sink)).text == "done"

    told = [event for event in sink.events if type(event).__name__ == "AppEvent"]
    frames = frames_of(told, kinds)
    assert [json.loads(encode_body(frame))["data"] for frame in frames] == [
        {"props": {"level": 3, "lowest": 3}},
        {"props": {"level": 1, "lowest": 1}},
        {"props": {"level": 2}},
    ]
    for seq, frame in enumerate(frames, 1):
        timeline.fold(frame, seq=seq, at_ms=0)
    [mood] = timeline.entities()
    assert (mood.kind, mood.id) == ("mood", "mood:call_1")
    assert mood.props == {"level": 2, "lowest": 1}

    [html] = re.findall(r"^```html\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    drawn = Template(html).render(Context({"props": mood.props}))
    assert re.sub(r"<[^>]+>", "", drawn).strip() == "Mood: 2, at worst 1"
