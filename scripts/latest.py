"""Runs the tests on the newest Python of this machine, with the newest Django.

`make test-latest`. All else is as it is locked, so that what fails is theirs or ours with them.
What is made lives in `.webchat/latest`; the checkout's own `.venv` stays as it is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from setup import ROOT, STATE, VENV_PYTHON, SetupError, prepare, run, say, uv_environment

LATEST = STATE / "latest"
PYTHON = LATEST / "bin" / "python"
UV = (VENV_PYTHON, "-m", "uv")
LOCKS = ("requirements.txt", "requirements-dev.txt")
QUIET = ("-W", "ignore:unclosed database:ResourceWarning")
"""From 3.13 on: a test's threads take their connection to SQLite with them when they end."""
ASKED = (
    "import sys; print(sys.implementation.name, sys.version_info.releaselevel,"
    " *sys.version_info[:3])"
)


def newest_python() -> tuple[str, Path]:
    """Version and path of the newest released CPython here. Raises SetupError where ours is it."""
    version, path = max(released(), default=(sys.version_info[:3], Path(sys.executable)))
    if version[:2] <= sys.version_info[:2]:
        raise SetupError(
            f"no Python newer than {sys.version_info.major}.{sys.version_info.minor} is here, on "
            "which `make test` runs; install one (.venv/bin/uv python install, or your system's)"
        )
    return ".".join(map(str, version)), path


def released() -> Iterator[tuple[tuple[int, ...], Path]]:
    """Every released CPython on PATH, of pyenv and of uv. A name may be a shim: each is asked."""
    managed = subprocess.run(
        [*UV, "python", "dir"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders = [
        *map(Path, os.environ.get("PATH", os.defpath).split(os.pathsep)),
        *pyenv.glob("versions/*/bin"),
        *Path(managed).glob("*/bin"),
    ]
    for path in {path for folder in folders for path in folder.glob("python3.*")}:
        if re.fullmatch(r"python3\.\d+", path.name):
            asked = subprocess.run(
                [path, "-c", ASKED], cwd=ROOT, capture_output=True, text=True, check=False
            )
            if asked.returncode == 0 and asked.stdout.startswith("cpython final "):
                yield tuple(map(int, asked.stdout.split()[2:])), path


def install(python: Path) -> None:
    """Makes the environment anew: what is locked, then the newest Django this Python can have."""
    environment = uv_environment()
    run(*UV, "--quiet", "venv", "--clear", "--python", python, LATEST, env=environment)
    into = (*UV, "--quiet", "pip", "install", "--python", PYTHON)
    locks = [argument for lock in LOCKS for argument in ("-r", str(ROOT / lock))]
    run(*into, "--require-hashes", *locks, env=environment)
    run(*into, "--upgrade", "django", env=environment)


def main() -> None:
    """Prepares all of it and becomes pytest, with the arguments of the command line."""
    try:
        prepare("test")
        version, python = newest_python()
        say(f"making .webchat/latest with Python {version} and the newest Django")
        install(python)
    except SetupError as error:
        raise SystemExit(f"make test-latest: {error}") from None
    os.chdir(ROOT)
    os.execv(PYTHON, [str(PYTHON), "-m", "pytest", "-m", "not slow", *QUIET, *sys.argv[1:]])


if __name__ == "__main__":
    main()
