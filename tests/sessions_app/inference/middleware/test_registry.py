"""A profile's list of middlewares is built as written, or refused with where and how to mend it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sessions_app.inference.engine import Infer, Middleware, chain
from sessions_app.inference.errors import ConfigurationError
from sessions_app.inference.events import publishing_to
from sessions_app.inference.middleware import (
    MiddlewareRegistry,
    MiddlewareSpec,
    default_registry,
)
from sessions_app.inference.turns import System, Turn, User
from sessions_app.testing import RecordingSink, ScriptedEngine

WHERE = "profile 'agent'"
MODES: dict[str, Any] = {"modes": {"plan": "Make a plan."}, "default": "plan"}


def spec(name: str, **config: Any) -> MiddlewareSpec:
    return MiddlewareSpec(name=name, config=config)


def refusal(*specs: MiddlewareSpec) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        default_registry.build(specs, WHERE)
    assert caught.value.hint
    return caught.value


def test_the_shipped_ones_are_there():
    assert sorted(default_registry.names) == [
        "agent-mode",
        "block-ordering",
        "logging",
        "structured-output",
        "system-prompt",
    ]


@pytest.mark.virtual
async def test_they_are_built_in_their_order_the_first_outermost():
    specs = (
        spec("logging", model="demo"),
        spec("system-prompt", text="be brief"),
        spec("agent-mode", **MODES),
        spec("structured-output", tags=["chart"]),
        spec("block-ordering"),
    )
    engine = ScriptedEngine()
    with publishing_to(RecordingSink()):
        middlewares = default_registry.build(specs, WHERE)
        await chain(engine.infer, middlewares)(Turn(blocks=(User(text="hi"),)))
    system = [block.text for block in engine.turns[0].blocks if isinstance(block, System)]
    assert system == ["be brief", "<currentMode>plan</currentMode>\n\nMake a plan."]


def test_no_list_gives_no_middleware():
    assert default_registry.build((), WHERE) == ()


def test_an_unknown_name_says_where_it_stands_and_what_is_known():
    error = refusal(spec("logging"), spec("sytem-prompt", text="x"))
    assert str(error) == (
        "profile 'agent', middlewares[1] ('sytem-prompt'): unknown middleware 'sytem-prompt'; "
        "expected one of: agent-mode, block-ordering, logging, structured-output, system-prompt. "
        "Did you mean 'system-prompt'?"
    )


def test_an_unknown_key_says_which_are_known():
    error = refusal(spec("system-prompt", txt="x"))
    assert str(error) == (
        "profile 'agent', middlewares[0] ('system-prompt'): unknown config key 'txt'; "
        "expected one of: text. Did you mean 'text'?"
    )
    assert error.hint == "'system-prompt' is configured with: text."


def test_a_wrong_value_says_its_key_and_what_was_got_and_expected():
    error = refusal(spec("agent-mode", modes={"plan": 1}, default="plan"))
    assert str(error) == (
        "profile 'agent', middlewares[0] ('agent-mode'): "
        "config.modes[...]: Expected `str`, got `int`"
    )


def test_a_missing_key_is_named():
    assert "config: Object missing required field `text`" in str(refusal(spec("system-prompt")))


def test_what_takes_no_configuration_says_so():
    assert refusal(spec("block-ordering", x=1)).hint == (
        "'block-ordering' is configured with: (nothing)."
    )


def test_what_a_factory_finds_wrong_says_where_too():
    error = refusal(spec("agent-mode", modes={"plan": ""}, default="plam"))
    assert str(error).startswith("profile 'agent', middlewares[0] ('agent-mode'): unknown mode")
    assert error.hint == "Name one of `modes` as `default`."
    assert "is not a tag's name" in str(refusal(spec("structured-output", tags=["a b"])))
    assert "Webchat's own" in str(refusal(spec("structured-output", tags=["chart", "log"])))


def test_two_of_one_kind_need_ids_of_their_own():
    chart = spec("structured-output", tags=["chart"])
    form = spec("structured-output", tags=["form"])
    error = refusal(spec("logging"), chart, form)
    assert str(error) == (
        "profile 'agent', middlewares[2] ('structured-output'): the id is taken by middlewares[1]"
    )
    named = msgspec.structs.replace(form, id="forms")
    assert len(default_registry.build([chart, named], WHERE)) == 2


def test_an_order_in_which_one_undoes_the_other_is_refused():
    error = refusal(spec("agent-mode", **MODES), spec("system-prompt", text="x"))
    assert "'system-prompt' is listed after it and would undo its work" in str(error)
    assert error.hint == "List 'agent-mode' after 'system-prompt'."


class ShoutConfig(msgspec.Struct, frozen=True):
    times: int = 1


@pytest.mark.virtual
async def test_an_app_registers_its_own():
    registry = MiddlewareRegistry()
    given: list[int] = []

    @registry.register("shout", ShoutConfig)
    def shout(config: ShoutConfig) -> Middleware:
        def middleware(infer: Infer) -> Infer:
            given.append(config.times)
            return infer

        return middleware

    engine = ScriptedEngine()
    assert chain(engine.infer, registry.build([spec("shout", times=3)], WHERE)) == engine.infer
    assert given == [3]
    with pytest.raises(ConfigurationError, match="two middlewares are named 'shout'"):
        registry.register("shout", ShoutConfig)


def test_a_list_is_read_from_what_settings_hold():
    given = [{"name": "system-prompt", "config": {"text": "x"}}, {"name": "logging", "id": "l"}]
    first, second = msgspec.convert(given, tuple[MiddlewareSpec, ...])
    assert (first.instance_id, second.instance_id) == ("system-prompt", "l")
    with pytest.raises(msgspec.ValidationError, match="unknown field `nam`"):
        msgspec.convert({"nam": "logging"}, MiddlewareSpec)
