"""The tools every app may offer: arithmetic that cannot hurt, and the time."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_app.inference.errors import ToolError
from sessions_app.inference.shipped_tools import calc, current_time, evaluate
from sessions_app.inference.tools import ToolContext

CONTEXT = ToolContext(session_id="s", inference_id="i", call_id="c", owner="o")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7 / 2", 3.5),
        ("7 // 2", 3),
        ("-7 % 3", 2),
        ("2 ** 10", 1024),
        ("2 ** -2", 0.25),
        ("-2 ** 2", -4),
        ("+-+3", -3),
        ("1_000 * 1.5e3", 1_500_000.0),
        ("sqrt(16) + abs(-3)", 7.0),
        ("round(2.345, 2)", 2.35),
        ("round(1234, -2)", 1200),
        ("max(1, 2.5, 2) - min(4, 3)", -0.5),
        ("2 * pi", 2 * math.pi),
        ("e ** 0", 1.0),
        ("10 ** 999", 10**999),
        ("(-1) ** 10 ** 900", 1),
        ("  1\t+ 1 ", 2),
    ],
)
def test_it_computes(expression: str, value: float):
    assert evaluate(expression) == value


operands = st.integers(-99, 99).map(lambda n: f"({n})")
expressions = st.recursive(
    operands,
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map("".join).map("({})".format),
)


@given(expressions)
def test_it_computes_as_python_does(expression: str):
    assert evaluate(expression) == eval(expression)


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("9**9**9", "more than 1000 digits"),
        ("9**9**9**9**9", "more than 1000 digits"),
        ("10**1000", "more than 1000 digits"),
        ("10**999 * 10", "more than 1000 digits"),
        ("round(1, -10**9)", "round takes a whole number of digits"),
        ("round(1.5, 1.5)", "round takes a whole number of digits"),
        ("2.0**1e10", "too large for a result with a decimal point"),
        ("1e308 * 10", "too large for a result with a decimal point"),
        ("1e999", "too large for a result with a decimal point"),
        ("10**900 / 3", "too large for a result with a decimal point"),
        ("2 ** -(10**900)", "too large for a result with a decimal point"),
        ("1 / 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("5 % 0", "division by zero"),
        ("sqrt(-1)", "no real square root"),
        ("(-8) ** (1/3)", "no real power"),
        ("abs(1, 2)", "abs takes 1 arguments, got 2"),
        ("max()", "max takes at least one argument"),
        ("2 ^ 3", "BitXor is no operator here"),
        ("x + 1", "unknown name 'x'; expected one of: e, pi"),
        ("sin(1)", "unknown function 'sin'; expected one of: abs, max"),
        ("__import__('os')", "unknown function '__import__'"),
        ("(1).__class__", "is no arithmetic"),
        ("[1][0]", "is no arithmetic"),
        ("lambda: 1", "is no arithmetic"),
        ("'a' * 9", "is no arithmetic"),
        ("True", "is no arithmetic"),
        ("1j", "is no arithmetic"),
        ("max(*[1, 2])", "is no arithmetic"),
        ("round(1, ndigits=2)", "is no arithmetic"),
        ("(x := 1)", "is no arithmetic"),
        ("1 +", "no arithmetic expression: invalid syntax"),
        ("1; 2", "no arithmetic expression"),
        ("", "no arithmetic expression"),
        ("\ud800", "no arithmetic expression"),
        ("1\0", "no arithmetic expression"),
        ("1" * 1001, "1001 characters; at most 1000"),
        ("(" * 500, "no arithmetic expression: too many nested parentheses"),
        ("-" * 900 + "1", "nested deeper than 300"),
        ("1+" * 480 + "1", "nested deeper than 300"),
        ("a" + ".a" * 480, "nested too deep"),
    ],
)
def test_what_it_cannot_compute_is_a_sentence_at_once(expression: str, problem: str):
    began = time.monotonic()
    with pytest.raises(ToolError) as caught:
        evaluate(expression)
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 400
    assert time.monotonic() - began < 1


@given(st.text(alphabet="0123456789.+-*/%()e,x ^maxroundsqt", max_size=60))
def test_whatever_is_written_ends_as_a_number_or_a_sentence(expression: str):
    try:
        value = evaluate(expression)
    except ToolError:
        return
    assert isinstance(value, int | float)
    assert abs(value) < 10**1000


def test_the_tool_answers_with_the_number_as_text():
    assert calc.call({"expression": "6 * 7"}, CONTEXT) == "42"
    assert "sqrt" in calc.description


def now(**arguments: str) -> datetime:
    answer = current_time.call(arguments, CONTEXT)
    assert isinstance(answer, str)
    return datetime.fromisoformat(answer)


@pytest.mark.parametrize(
    ("arguments", "offsets"),
    [({}, {0}), ({"timezone": "Asia/Kolkata"}, {330}), ({"timezone": "Europe/Berlin"}, {60, 120})],
)
def test_the_time_is_iso_8601_with_the_zones_offset(arguments: dict[str, str], offsets: set[int]):
    moment = now(**arguments)
    assert abs(moment - datetime.now(UTC)) < timedelta(seconds=5)
    assert moment.utcoffset() in {timedelta(minutes=minutes) for minutes in offsets}


@pytest.mark.parametrize(
    "zone",
    ["Berlin", "", "../etc/passwd", "/etc/localtime", "America", "\ud800", "\0", "a" * 5000],
)
def test_an_unknown_zone_is_a_sentence(zone: str):
    with pytest.raises(ToolError, match=r"unknown time zone .* expected an IANA name") as caught:
        now(timezone=zone)
    assert len(str(caught.value)) < 400


def test_an_unknown_zone_says_which_may_be_meant():
    with pytest.raises(ToolError, match="Did you mean Europe/Berlin"):
        now(timezone="Europe/Berln")


def test_they_need_no_django():
    program = (
        "import sys; sys.modules['django'] = None\n"
        "from sessions_app.inference import shipped_tools\n"
        "print(shipped_tools.calc.name)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "calc"
