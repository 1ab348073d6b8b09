"""The server's log: every logger's lines in one form, safe to read, and without secrets.

A line is for people (`console`) or one JSON object (`json`). It carries the fields of `extra`, and
what is bound in the context variables of structlog: `conv_id` and `inference_id` among them.
"""

from __future__ import annotations

import json
import logging
import sys
import textwrap
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import quote

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

LogForm: TypeAlias = Literal["console", "json"]
LOG_FORMS: tuple[LogForm, ...] = get_args(LogForm)
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

REDACTED = "[redacted]"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_NO_FIELDS = {"request", "response", "color_message", "taskName"}
"""What Django and uvicorn put into `extra` for their own formatters."""


def logging_config(*, level: str, form: str, secrets: Iterable[str]) -> dict[str, Any]:
    """What settings.LOGGING takes.

    An unknown level or form is a check's to tell; here it means INFO and `console`.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": line_formatter, "form": form, "secrets": tuple(secrets)}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": level if level in LOG_LEVELS else "INFO"},
        "loggers": {
            "django": {"handlers": [], "level": "INFO"},
            # uvicorn sets these up by its own ideas before it imports us; access_log.py has ours.
            "uvicorn": {"handlers": [], "propagate": True},
            "uvicorn.access": {"handlers": [], "propagate": False},
            # One line for each request to a model's service says nothing that we don't.
            "httpx2": {"level": "WARNING"},
            "google_genai": {"level": "WARNING"},
            "fastmcp": {"level": "WARNING"},
            "mcp": {"level": "WARNING"},
            # What operators do is noted whatever LOG_LEVEL is.
            "webchat.audit": {"level": "INFO"},
        },
    }


def line_formatter(form: str, secrets: Iterable[str] = ()) -> ProcessorFormatter:
    """A formatter for any logging handler."""
    render: list[Processor]
    if form == "json":
        render = [structlog.processors.JSONRenderer(ensure_ascii=False)]
    else:
        colors = sys.stderr.isatty()
        console = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0)
        render = [_set_traces_in, console]
    return ProcessorFormatter(
        foreign_pre_chain=[structlog.contextvars.merge_contextvars, _fields_of_the_record],
        processors=[
            _described,
            ProcessorFormatter.remove_processors_meta,
            Cleaning(secrets),
            *render,
        ],
    )


class Cleaning:
    """A processor: every text of a line without secrets, and on one line by itself.

    Traces keep their line breaks. What is no JSON value becomes its `str`.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[str] = set()
        for secret in secrets:
            quoted = (repr(secret), json.dumps(secret), json.dumps(secret, ensure_ascii=False))
            forms |= {secret, quote(secret, safe=""), *(form[1:-1] for form in quoted)}
        # The longest first: a secret may be part of another.
        self._forms = tuple(sorted(forms, key=len, reverse=True))

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
        return {
            self._text(key): self._trace(value) if key in TRACES else self._value(value)
            for key, value in event.items()
        }

    def _masked(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, REDACTED)
        return text

    def _text(self, text: str) -> str:
        return escaped(self._masked(text))

    def _trace(self, value: object) -> str:
        return "\n".join(map(escaped, self._masked(str(value)).split("\n")))

    def _value(self, value: Any) -> Any:
        match value:
            case str():
                return self._text(value)
            case None | bool() | int() | float():
                return value
            case Mapping():
                return {self._text(str(key)): self._value(inner) for key, inner in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self._value(inner) for inner in value]
        try:
            return self._text(str(value))
        except Exception:  # noqa: BLE001 - a line of the log must not fail
            return f"[an unprintable {type(value).__name__}]"


TRACES = ("exception", "stack")


def escaped(text: str) -> str:
    """`text` as one visible line: no line break, terminal command or change of direction."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _fields_of_the_record(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    for key, value in vars(record).items():
        if key not in _STANDARD and key not in _NO_FIELDS:
            event[key] = value
    # A text that its author has masked already, in the place of an exception.
    if record.exc_text and not record.exc_info:
        event["exception"] = record.exc_text
    return event


def _described(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """What every line has, in front of what this one has."""
    record: logging.LogRecord = event["_record"]
    if "stack_info" in event:
        event["stack"] = event.pop("stack_info")
    when = datetime.fromtimestamp(record.created, UTC)
    head = {
        "timestamp": when.isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": event.pop("event"),
    }
    return structlog.processors.format_exc_info(logger, name, {**head, **event, **head})


def _set_traces_in(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """So that no line of an exception's text can pass for one of the log."""
    for key in TRACES:
        if key in event:
            event[key] = textwrap.indent(event[key], "    ", lambda line: True)
    return event
