"""The page as a person uses it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.async_api import Locator, Page, expect

CONVERSATION = re.compile(r"/c/([^/]+)/$")

PROBE = Path(__file__).with_name("probe.js").read_text()


async def probe(page: Page, function: str, argument: object) -> Any:
    """Calls a function of probe.js inside the page."""
    return await page.evaluate(f"(argument) => {{{PROBE}\nreturn {function}(argument);}}", argument)


class Chat:
    """One tab."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.prompt = page.get_by_role("textbox", name="Your message")
        self.send_button = page.get_by_role("button", name="Send")
        self.stop_button = page.get_by_role("button", name="Stop the answer")
        self.error = page.locator('[data-composer] [data-slot="error"]')
        self.connection = page.locator("[data-connection]")
        self.answers = page.locator('[data-card="assistant"] [data-slot="text"]')
        self.inferences = page.locator('[data-card="inference"]')

    @property
    def conv_id(self) -> str:
        match = CONVERSATION.search(self.page.url)
        assert match, self.page.url
        return match[1]

    async def say(self, prompt: str) -> None:
        """Types and presses Enter; on the start page that begins a conversation."""
        await self.prompt.fill(prompt)
        await self.prompt.press("Enter")
        await self.page.wait_for_url(CONVERSATION)

    async def queue(self, prompt: str) -> None:
        """Sends one more prompt of this conversation, while it answers or not."""
        await self.prompt.fill(prompt)
        await self.prompt.press("Enter")
        await expect(self.prompt).to_have_value("")

    async def live(self) -> None:
        await expect(self.connection).to_have_attribute("data-state", "live")

    async def ended(self, status: str = "completed", *, count: int = 1) -> None:
        """Waits until there are `count` inferences and the last has ended like that."""
        await expect(self.inferences).to_have_count(count)
        await expect(self.inferences.last).to_have_attribute("data-status", status, timeout=30_000)

    async def entities(self) -> list[dict[str, Any]]:
        """What the server says is on the page."""
        timeline = CONVERSATION.sub(f"/api/timeline?conv_id={self.conv_id}", self.page.url)
        answer = await self.page.request.get(timeline)
        assert answer.ok, await answer.text()
        entities: list[dict[str, Any]] = (await answer.json())["entities"]
        return entities

    async def card_ids(self) -> list[str]:
        """The cards' ids, in the order of the page."""
        ids: list[str] = await self.page.locator("[data-timeline] [data-entity-id]").evaluate_all(
            "(cards) => cards.map((card) => card.dataset.entityId)"
        )
        return ids

    async def cards(self) -> str:
        """The timeline without what scripts put on top: one line for each tag and text."""
        cards: str = await probe(self.page, "normalised", "[data-timeline]")
        return cards

    async def shows_the_whole_timeline(self) -> None:
        """Every entity once, in order, and each answer's text as the server has it."""
        entities = await self.entities()
        assert await self.card_ids() == [entity["id"] for entity in entities]
        said = [e["props"]["content"] for e in entities if e["props"].get("role") == "assistant"]
        shown = await self.answers.all_text_contents()
        assert [" ".join(text.split()) for text in shown] == [" ".join(t.split()) for t in said]

    def row(self, title: str) -> Locator:
        """A row of the list of conversations."""
        return self.page.locator("[data-conversations] li").filter(has_text=title)
