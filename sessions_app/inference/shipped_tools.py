"""Tools that every app may offer: arithmetic, and the time."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Annotated, Any, TypeAlias
from zoneinfo import ZoneInfo, available_timezones

from msgspec import Meta

from .errors import ToolError, unknown
from .tools import tool

MAX_CHARS = 1000
MAX_DEPTH = 300
MAX_DIGITS = 1000
_TOO_LARGE = 10**MAX_DIGITS
_MAX_BITS = _TOO_LARGE.bit_length()

Number: TypeAlias = int | float


@tool
def calc(
    expression: Annotated[str, Meta(description="for example (2 + 3) * sqrt(16) / 7 ** 2")],
) -> str:
    """Compute an arithmetic expression. Knows + - * / // % ** and parentheses, the functions
    abs, max, min, round and sqrt, and the constants e and pi.
    """
    return str(evaluate(expression))


def evaluate(expression: str) -> Number:
    """The value of an arithmetic expression. Nothing else is ever executed, and no result grows
    beyond MAX_DIGITS digits. Raises ToolError with what was wrong.
    """
    if len(expression) > MAX_CHARS:
        raise ToolError(f"the expression has {len(expression)} characters; at most {MAX_CHARS}")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        said = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        raise ToolError(f"this is no arithmetic expression: {said}") from None
    try:
        return _value(tree.body, MAX_DEPTH)
    except ZeroDivisionError:
        raise ToolError("division by zero") from None
    except RecursionError:
        raise ToolError("the expression is nested too deep") from None
    except OverflowError:
        raise ToolError("a number is too large for a result with a decimal point") from None


def _value(node: ast.expr, depth: int) -> Number:
    if depth == 0:
        raise ToolError(f"the expression is nested deeper than {MAX_DEPTH}")
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _bounded(value)
        case ast.Name(id=name):
            if name not in _CONSTANTS:
                raise ToolError(unknown("name", name[:80], _CONSTANTS))
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign, operand=operand):
            value = _value(operand, depth - 1)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=op, right=right):
            return _binary(op, _value(left, depth - 1), _value(right, depth - 1))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            if name not in _FUNCTIONS:
                raise ToolError(unknown("function", name[:80], _FUNCTIONS))
            return _bounded(_FUNCTIONS[name]([_value(arg, depth - 1) for arg in args]))
        case _:
            raise ToolError(
                f"{_shown(node)} is no arithmetic; expected numbers, + - * / // % ** ( ), "
                f"{', '.join(_CONSTANTS)}, and the functions {', '.join(_FUNCTIONS)}"
            )


def _binary(op: ast.operator, left: Number, right: Number) -> Number:
    compute = _OPERATORS.get(type(op))
    if compute is None:
        raise ToolError(
            f"{type(op).__name__} is no operator here; expected + - * / // % or ** (power)"
        )
    return _bounded(compute(left, right))


def _power(base: Number, exponent: Number) -> Number:
    whole = isinstance(base, int) and isinstance(exponent, int)
    # Asked before it is computed: 9**9**9 has 369 million digits.
    if whole and (int(abs(base)).bit_length() - 1) * exponent > _MAX_BITS:
        raise _too_many_digits()
    result = base**exponent
    if isinstance(result, complex):
        raise ToolError("a negative number has no real power with such an exponent")
    return result


def _sqrt(numbers: Sequence[Number]) -> Number:
    (number,) = _arguments("sqrt", numbers, 1)
    if number < 0:
        raise ToolError("a negative number has no real square root")
    return math.sqrt(number)


def _round(numbers: Sequence[Number]) -> Number:
    number, *digits = _arguments("round", numbers, 1, 2)
    if not digits:
        return round(number)
    places = digits[0]
    if not isinstance(places, int) or abs(places) > MAX_DIGITS:
        raise ToolError(f"round takes a whole number of digits, -{MAX_DIGITS} to {MAX_DIGITS}")
    return round(number, places)


def _arguments(name: str, numbers: Sequence[Number], *counts: int) -> Sequence[Number]:
    if counts and len(numbers) not in counts:
        expected = " or ".join(map(str, counts))
        raise ToolError(f"{name} takes {expected} arguments, got {len(numbers)}")
    if not numbers:
        raise ToolError(f"{name} takes at least one argument, got none")
    return numbers


def _bounded(value: Number) -> Number:
    if isinstance(value, int):
        if abs(value) >= _TOO_LARGE:
            raise _too_many_digits()
    elif not math.isfinite(value):
        raise OverflowError
    return value


def _too_many_digits() -> ToolError:
    return ToolError(f"a result has more than {MAX_DIGITS} digits")


def _shown(node: ast.expr) -> str:
    text = ast.unparse(node)
    return repr(text if len(text) <= 80 else f"{text[:80]}…")


_CONSTANTS: Mapping[str, float] = {"e": math.e, "pi": math.pi}
_FUNCTIONS: Mapping[str, Callable[[Sequence[Number]], Number]] = {
    "abs": lambda numbers: abs(_arguments("abs", numbers, 1)[0]),
    "max": lambda numbers: max(_arguments("max", numbers)),
    "min": lambda numbers: min(_arguments("min", numbers)),
    "round": _round,
    "sqrt": _sqrt,
}
_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}


@tool
def current_time(
    timezone: Annotated[str, Meta(description="an IANA name, for example Europe/Berlin")] = "UTC",
) -> str:
    """Tell the current date and time, in ISO 8601, in UTC or in another time zone."""
    if timezone == "UTC":
        return _iso(datetime.now(UTC))
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        near = get_close_matches(timezone[:80], available_timezones(), n=3)
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ToolError(
            f"unknown time zone {timezone[:80]!r}; expected an IANA name such as Europe/Berlin."
            + meant
        ) from None
    return _iso(datetime.now(zone))


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
