"""A function becomes a tool: its hints the schema, its docstring the description."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import pytest
from jsonschema import Draft202012Validator

from sessions_app.inference.errors import ConfigurationError
from sessions_app.inference.events import ToolProgress, publishing_to
from sessions_app.inference.tools import (
    MASK,
    NO_TOOLS,
    Missing,
    Tool,
    ToolContext,
    ToolRegistry,
    allows,
    offered,
    offering,
    tool,
)
from sessions_app.testing import RecordingSink

if TYPE_CHECKING:
    from decimal import Decimal

CONTEXT = ToolContext(session_id="s", inference_id="i", call_id="c", owner="o")
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}


@dataclass
class Place:
    city: str
    country: str = "DE"


class Trip(msgspec.Struct):
    to: Place
    via: list[Place] = []


def named(name: str, **options: Any) -> Tool:
    options.setdefault("parameters", NOTHING)
    return Tool(name=name, description="", call=lambda arguments, context: None, **options)


def test_hints_become_the_schema_and_the_docstring_the_description():
    @tool
    async def search(query: str, limit: int = 10, exact: bool | None = None) -> str:
        """Search the
        catalogue.

        Not told to the model.
        """
        return ""

    assert search.name == "search"
    assert search.description == "Search the catalogue."
    assert search.parameters == {
        "type": "object",
        "properties": {
            "query": {"type": "string"},
            "limit": {"type": "integer", "default": 10},
            "exact": {"anyOf": [{"type": "boolean"}, {"type": "null"}], "default": None},
        },
        "required": ["query"],
        "additionalProperties": False,
    }


def test_a_function_without_parameters_takes_an_empty_object():
    @tool
    def ping() -> str:
        return "pong"

    assert ping.description == ""
    assert ping.parameters["properties"] == {}
    assert ping.call({}, CONTEXT) == "pong"


def test_nested_types_are_in_the_schema_and_reach_the_function_as_themselves():
    @tool
    def book(trip: Trip, on: date, kind: Literal["rail", "bus"] = "rail") -> object:
        return trip, on, kind

    Draft202012Validator.check_schema(book.parameters)
    arguments = {"trip": {"to": {"city": "Ulm"}, "via": []}, "on": "2026-05-01"}
    Draft202012Validator(book.parameters).validate(arguments)
    assert book.call(arguments, CONTEXT) == (Trip(to=Place("Ulm")), date(2026, 5, 1), "rail")
    assert set(book.parameters["$defs"]) == {"Trip", "Place"}


def test_a_struct_may_have_the_name_that_arguments_are_given():
    class go_arguments(msgspec.Struct):  # noqa: N801 - the name is the point
        x: int

    def go(given: object) -> object:
        return given

    go.__annotations__["given"] = go_arguments
    made = tool(go)
    assert list(made.parameters["properties"]) == ["given"]
    assert made.call({"given": {"x": 1}}, CONTEXT) == go_arguments(1)


def test_a_parameter_may_be_described_and_bounded():
    @tool
    def dice(sides: Annotated[int, msgspec.Meta(ge=2, description="how many")]) -> int:
        return sides

    schema = dice.parameters["properties"]["sides"]
    assert schema == {"type": "integer", "minimum": 2, "description": "how many"}


def test_the_context_is_handed_in_and_is_no_argument_of_the_model():
    @tool
    def who(context: ToolContext, greeting: str = "hi") -> str:
        return f"{greeting} {context.owner}"

    assert list(who.parameters["properties"]) == ["greeting"]
    assert who.call({}, CONTEXT) == "hi o"


def test_sync_and_async_functions_are_told_apart():
    @tool
    def sync() -> None: ...

    @tool
    async def asynchronous() -> None: ...

    assert (sync.is_async, asynchronous.is_async) == (False, True)


def test_options_are_the_fields_of_a_tool():
    @tool(name="lookup", timeout=2, permission="app.look", secrets=frozenset({"key"}))
    async def f(key: str) -> None:
        """Looks up."""

    assert (f.name, f.timeout, f.permission) == ("lookup", 2, "app.look")
    assert f.description == "Looks up."


def test_for_json_schema_and_so_for_us_3_0_is_an_integer():
    @tool
    def times(n: int) -> object:
        return n

    assert times.call({"n": 3.0}, CONTEXT) == 3
    with pytest.raises(msgspec.ValidationError, match="Expected `int`"):
        times.call({"n": "three"}, CONTEXT)


def refusal(function: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        tool(function)
    assert caught.value.hint
    return caught.value


def test_a_parameter_without_a_type_is_refused():
    def f(x=1): ...

    assert str(refusal(f)) == "parameter 'x' of tool 'f' has no type"


def test_parameters_that_cannot_be_given_by_name_are_refused():
    def stars(*args: int): ...
    def more(**options: int): ...
    def positional(x: int, /): ...

    assert "parameter 'args' of tool 'stars' cannot be given by name" in str(refusal(stars))
    assert "parameter 'options'" in str(refusal(more))
    assert "parameter 'x'" in str(refusal(positional))


def test_a_type_that_json_does_not_know_is_refused():
    class Opaque: ...

    def f(x: object): ...

    f.__annotations__["x"] = Opaque
    assert "the arguments of tool 'f' have no JSON Schema" in str(refusal(f))


def test_an_annotation_that_cannot_be_evaluated_is_refused():
    def f(x: Decimal): ...

    error = refusal(f)
    assert "name 'Decimal' is not defined" in str(error)
    assert "TYPE_CHECKING" in error.hint


def test_a_list_as_a_default_is_refused():
    def f(x: list[int] = [1]): ...  # noqa: B006 - what an app's author may write

    assert "non-empty mutable" in str(refusal(f))


@pytest.mark.parametrize("name", ["", "a b", "a" * 65, "ä", "a.b"])
def test_a_name_that_providers_do_not_take_is_refused(name: str):
    with pytest.raises(ConfigurationError, match="is not one that providers take"):
        named(name)


def test_a_misspelt_secret_is_refused_rather_than_shown():
    schema = {"type": "object", "properties": {"password": {}}}
    with pytest.raises(ConfigurationError, match="unknown secret argument 'pasword'"):
        named("login", parameters=schema, secrets=frozenset({"pasword"}))


def test_secret_arguments_are_masked_and_the_others_shown():
    schema = {"type": "object", "properties": {"password": {}, "user": {}}}
    login = named("login", parameters=schema, secrets=frozenset({"password"}))
    assert login.masked({"user": "anna", "password": {"a": 1}}) == {
        "user": "anna",
        "password": MASK,
    }


def test_an_approval_may_depend_on_the_arguments():
    assert named("a", requires_approval=True).needs_approval({})
    assert not named("b").needs_approval({})
    big = named("c", requires_approval=lambda arguments: arguments["amount"] > 100)
    assert big.needs_approval({"amount": 101})
    assert not big.needs_approval({"amount": 100})


def test_a_predicate_that_raises_means_that_a_person_is_asked():
    assert named("a", requires_approval=lambda arguments: arguments["no"]).needs_approval({})


def test_a_registry_knows_its_tools_in_their_order():
    b, a = named("b"), named("a")
    registry = ToolRegistry([b, a])
    assert registry.names == ("b", "a")
    assert list(registry) == [b, a]
    assert len(registry) == 2
    assert registry.get("a") is a
    assert registry.get("c") is None


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(ConfigurationError, match="two tools are named 'a'"):
        ToolRegistry([named("a"), named("a")])


def test_a_registry_can_be_reduced_to_an_allow_list():
    registry = ToolRegistry([named("a"), named("b"), named("c")])
    assert registry.only(["c", "a"]).names == ("c", "a")
    assert len(registry) == 3
    assert not registry.only([])


def test_an_entry_of_an_allow_list_may_have_all_that_begins_so():
    allowed = ["calc", "files_*"]
    for name in ("calc", "files_read", "files_*"):
        assert allows(allowed, name)
    for name in ("calculate", "files", "file_read", "*"):
        assert not allows(allowed, name)


def test_tools_that_are_missing_say_why_and_keep_their_secrets():
    missing = Missing(beginning="x_", why="the server is away", secrets=frozenset({"token"}))
    registry = ToolRegistry([named("calc")], missing=[missing]).with_approval()

    assert registry.unknown("x_read") == "x_read cannot be called now: the server is away"
    assert registry.unknown("clac").startswith("unknown tool 'clac'; expected one of: calc.")
    assert registry.shown("x_read", {"path": "a", "token": "b"}) == {"path": "a", "token": MASK}
    assert registry.shown("x_read", '{"token": ') == MASK
    # A name that nobody has may stand for any tool.
    made_up = registry.shown("y_read", {"path": "a", "token": "b"})
    assert made_up == {"path": "a", "token": MASK}


def test_all_tools_may_be_made_to_ask():
    registry = ToolRegistry([named("a"), named("b", requires_approval=True)]).with_approval()
    assert [tool.needs_approval({}) for tool in registry] == [True, True]


async def test_a_registry_is_a_source_that_does_not_change():
    registry = ToolRegistry([named("a")])
    assert await registry.current() is registry


def test_an_allow_list_with_an_unknown_name_says_what_is_known():
    with pytest.raises(ConfigurationError) as caught:
        ToolRegistry([named("search"), named("calc")]).only(["serch"])
    assert str(caught.value) == (
        "unknown tool 'serch'; expected one of: calc, search. Did you mean 'search'?"
    )


def test_an_engine_is_offered_tools_only_within_the_block():
    a = named("a")
    with offering([a], "required"):
        assert offered().tools == (a,)
        assert offered().choice == "required"
        with offering([a], "none"):
            assert offered().tools == ()
        assert offered().tools == (a,)
    assert offered() is NO_TOOLS


def test_the_idempotency_key_is_the_same_for_every_attempt():
    assert CONTEXT.idempotency_key == "i:c"


def test_progress_is_an_event_of_the_call():
    sink = RecordingSink()
    with publishing_to(sink):
        CONTEXT.progress(0.5, "half")
    assert sink.events == [ToolProgress(call_id="c", progress=0.5, note="half")]
