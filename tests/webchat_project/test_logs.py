"""The log's form: one line each, safe to look at, with its fields, and without secrets."""

from __future__ import annotations

import json
import logging
from logging.config import DictConfigurator

import pytest
from structlog.contextvars import bound_contextvars

from tests.logs import written
from webchat_project.logs import LOG_FORMS, REDACTED, logging_config

log = logging.getLogger("tests.of.the.log")

EVIL = "one\r\ntwo\x1b[31mred\x1b[0m\x07 \u202etxt.exe\u2066 \u2028end\x00\x9b"
SECRET = "sk-canary-0123456789"


def raw_controls(text: str) -> list[str]:
    return [c for c in text if not c.isprintable() and c != "\n"]


@pytest.mark.parametrize("form", LOG_FORMS)
def test_no_control_character_of_a_message_or_a_field_is_written(form: str):
    with written(form) as output:
        log.warning("it said %s", EVIL, extra={"said": EVIL, "deep": {EVIL: [EVIL, {"x": EVIL}]}})
    [line] = output.lines
    assert line.isprintable()
    for shown in ("r\\", "\\x1b[31mred", "\\u202e"):
        assert shown in line


@pytest.mark.parametrize("form", LOG_FORMS)
def test_a_trace_is_readable_yet_no_line_of_it_passes_for_one_of_the_log(form: str):
    try:
        raise ValueError(f"{EVIL}\n2026-01-01T00:00:00+00:00 [info     ] all is well [root]")
    except ValueError:
        with written(form) as output:
            log.exception("it failed")
    [entry] = output.lines
    assert raw_controls(entry) == []
    first, *rest = entry.split("\n")
    if form == "json":
        assert rest == []
        trace = json.loads(first)["exception"]
        assert raw_controls(trace) == []
    else:
        assert all(line.startswith("    ") for line in rest)
        trace = "\n".join(rest)
    assert "Traceback (most recent call last):\n" in trace
    assert 'raise ValueError(f"{EVIL}' in trace
    assert len(trace.splitlines()) >= 5


def test_a_json_line_has_what_every_line_has_its_fields_and_what_is_bound():
    with written() as output, bound_contextvars(conv_id="c-1", inference_id="i-1"):
        log.info("hello %s", "é", extra={"answer": 42, "other": None, "kind": ValueError("x")})
    [line] = output.json
    assert list(line)[:4] == ["timestamp", "level", "logger", "event"]
    assert line.pop("timestamp").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "tests.of.the.log",
        "event": "hello é",
        "conv_id": "c-1",
        "inference_id": "i-1",
        "answer": 42,
        "other": None,
        "kind": "x",
    }


def test_a_console_line_has_the_same():
    with written("console") as output, bound_contextvars(conv_id="c-1"):
        log.error("hello %s", "you", extra={"answer": 42, "sentence": "with blanks"})
    [line] = output.lines
    assert "[error" in line
    assert "hello you [tests.of.the.log]" in line
    assert "answer=42 conv_id=c-1 sentence='with blanks'" in line


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("form", LOG_FORMS)
def test_what_cannot_be_printed_costs_no_line(form: str):
    with written(form) as output:
        log.info("hello", extra={"it": Unprintable(), "request": Unprintable()})
    assert "[an unprintable Unprintable]" in output.text
    assert "request" not in output.text


@pytest.mark.parametrize("form", LOG_FORMS)
@pytest.mark.parametrize(
    "secret", [SECRET, "with blanks & ümlaut", "quo'te\"back\\slash", "line\nbreak-secret"]
)
def test_a_secret_is_in_no_line_however_it_got_there(form: str, secret: str):
    with written(form, [secret]) as output:
        log.info("sent %s to https://%s", secret, repr(secret), extra={secret: {"header": secret}})
        log.info("as JSON %s", json.dumps({"key": secret}, ensure_ascii=False))
        try:
            raise ValueError(f"the service refused {secret}, that is {secret!r}")
        except ValueError:
            log.exception("failed")
    assert output.text.count(REDACTED) >= 6
    for form_of_it in (secret, repr(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        assert form_of_it not in output.text


def test_a_trace_that_its_author_has_masked_takes_the_place_of_the_exceptions():
    record = log.makeRecord(log.name, logging.ERROR, __file__, 1, "raised", (), None)
    record.exc_text = "Traceback\n  masked"
    with written() as output:
        log.handle(record)
    assert output.json[0]["exception"] == "Traceback\n  masked"


@pytest.mark.parametrize("level", ["DEBUG", "ERROR", "nonsense"])
@pytest.mark.parametrize("form", [*LOG_FORMS, "nonsense"])
def test_whatever_the_environment_says_the_log_can_be_set_up(level: str, form: str):
    config = logging_config(level=level, form=form, secrets=[])
    assert config["root"]["level"] == (level if level != "nonsense" else "INFO")
    formatter = DictConfigurator(config).configure_formatter(config["formatters"]["line"])
    assert formatter.format(logging.makeLogRecord({"msg": "hello"}))
