"""The app's kind of event, and its fold."""

from __future__ import annotations

from chat.app_kinds import Props

KIND = "thinking-mode"


def added_up(before: Props, told: Props) -> Props:
    """The level as it was told last; the words of all model calls, and how many those were."""
    if "words" not in told:
        return {**before, **told}
    words = before.get("words", 0) + told["words"]
    return {**before, "words": words, "calls": before.get("calls", 0) + 1}
