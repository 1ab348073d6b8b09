"""axe, the checker of accessibility, run inside a page."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

FOUND = {"resultTypes": ["violations"]}
TRANSITIONS_ENDED = """() => Promise.allSettled(
  document.getAnimations().filter((each) => each instanceof CSSTransition).map((t) => t.finished)
)"""


async def nothing_wrong(page: Page, state: str, *, but: tuple[str, ...] = ()) -> None:
    """Runs axe on the page as it stands, in light and in dark, with all rules but some."""
    options = {**FOUND, "rules": {rule: {"enabled": False} for rule in but}}
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        await page.evaluate(TRANSITIONS_ENDED)
        results = await Axe().run(page, options=options)
        found = [_told(violation) for violation in results.response["violations"]]
        assert found == [], f"{state}, {theme}:\n" + "\n".join(found)


def _told(violation: dict[str, Any]) -> str:
    places = [f"  {node['target']} {node['html'][:200]}" for node in violation["nodes"][:4]]
    summary = violation["nodes"][0]["failureSummary"]
    return "\n".join([f"{violation['id']}: {violation['help']}", *places, f"  {summary}"])
