"""Hears what the server's log says, in the form it would be written in."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from webchat_project.logs import line_formatter


class LogOutput(logging.Handler):
    """What was written, a string for each line of the log."""

    def __init__(self, form: str, secrets: Iterable[str]) -> None:
        super().__init__()
        self.setFormatter(line_formatter(form, secrets))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@contextmanager
def written(form: str = "json", secrets: Iterable[str] = ()) -> Iterator[LogOutput]:
    """The log within the block, as the settings have its levels."""
    output = LogOutput(form, secrets)
    root = logging.getLogger()
    root.addHandler(output)
    try:
        yield output
    finally:
        root.removeHandler(output)
