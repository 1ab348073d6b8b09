"""Makes a checkout ready: `scripts/python scripts/setup.py check|run|test`.

Runs on any Python 3.11 with its standard library alone, and installs what is locked into `.venv`.
Everything made lives in `.venv` and `.webchat`; what is already there and current is left alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
STATE = ROOT / os.environ.get("WEBCHAT_STATE_DIR", ".webchat")
LOCK = ROOT / ".webchat" / "setup.lock"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SYSTEM_PROGRAMS = ("/usr/local/sbin", "/usr/sbin")
"""Where servers are, which not every account has on its PATH."""


class SetupError(Exception):
    """Something is missing that this script cannot make; the message says what, and what to do."""


def prepare(goal: str) -> None:
    """Make what `goal` (check, run or test) needs. Raises SetupError.

    Any number of processes may call this at once for one checkout: they take turns.
    """
    with one_at_a_time():
        install("requirements.txt", *([] if goal == "run" else ["requirements-dev.txt"]))
        if goal == "test":
            find_program("chromium", *BROWSERS)
            find_program("nginx-light", "nginx")
        if goal == "run":
            manage("migrate --verbosity=0", "operator --skip-checks")
        if goal != "check":
            collect_static()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the checkout's set-up lock; it ends with the process, however that ends."""
    for folder in (LOCK.parent, STATE):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this checkout")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install(*locks: str) -> None:
    """Have a virtual environment that holds exactly what these lock files name.

    A changed lock, another Python, a moved checkout or a half-made environment: it is made anew.
    """
    stamp = VENV / "installed.json"
    wanted = {
        "python": platform.python_version(),
        "path": str(VENV),
        **{lock: hashlib.sha256((ROOT / lock).read_bytes()).hexdigest() for lock in locks},
    }
    found = json.loads(stamp.read_text()) if stamp.exists() and VENV_PYTHON.exists() else {}
    if not found or any(found.get(key, value) != value for key, value in wanted.items()):
        found = {}
        make_environment()
    missing = [lock for lock in locks if lock not in found]
    if missing:
        # No stamp while packages are moving: a run that dies here is followed by a fresh start.
        stamp.unlink(missing_ok=True)
        for lock in missing:
            install_lock(lock)
        write(stamp, json.dumps(found | wanted))


def make_environment() -> None:
    """Make an empty virtual environment, in the place of any that is there."""
    if importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        apt_install(f"python{version}-venv", f"{sys.executable} has no ensurepip")
    say(f"making .venv with Python {platform.python_version()}")
    run(sys.executable, "-m", "venv", "--clear", VENV)


def install_lock(lock: str) -> None:
    """Install a lock file, hashes checked: with uv, ten times as fast, or else with pip."""
    say(f"installing {lock}")
    pip = (VENV_PYTHON, "-m", "pip", "--quiet", "--disable-pip-version-check")
    hashed = ("install", "--require-hashes", "-r")
    try:
        run(*pip, *hashed, ROOT / "requirements-tools.txt")
        uv = (VENV_PYTHON, "-m", "uv", "--quiet", "pip")
        run(*uv, *hashed, ROOT / lock, env=uv_environment())
    except SetupError:
        say(f"uv could not install {lock}; trying pip")
        run(*pip, *hashed, ROOT / lock)


def uv_environment() -> dict[str, str]:
    """This environment, with the index and certificates of pip's configuration told to uv too."""
    listing = subprocess.run(
        [VENV_PYTHON, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    told = {"VIRTUAL_ENV": str(VENV)}
    for option, variable in (("index-url", "UV_DEFAULT_INDEX"), ("cert", "SSL_CERT_FILE")):
        for value in re.findall(rf"^\S+\.{option}='(.*)'$", listing, re.MULTILINE):
            told[variable] = value
    return told | os.environ


def collect_static() -> None:
    """Gather the static files, unless those gathered are current: a running server reads them."""
    chosen = {name: os.environ.get(name) for name in ("DEBUG", "DJANGO_SETTINGS_MODULE")}
    digest = hashlib.sha256(json.dumps(chosen).encode())
    apps = [*ROOT.glob("[!.]*/static/**/*"), *ROOT.glob("examples/*/static/**/*")]
    sources = [*apps, *ROOT.glob("webchat_project/*.py"), *ROOT.glob("examples/*.py")]
    for path in (ROOT / "requirements.txt", *sorted(sources)):
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(ROOT)} {content}\n".encode())
    stamp = STATE / "static.sha256"
    current = stamp.exists() and stamp.read_text() == digest.hexdigest()
    if not (current and (STATE / "static").is_dir()):
        manage("collectstatic --noinput --verbosity=0 --skip-checks")
        write(stamp, digest.hexdigest())


def find_program(package: str, *names: str) -> str:
    """The path of a program of one of these names; where there is none, Debian's is installed."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_PROGRAMS))

    def found() -> str | None:
        return next(filter(None, (shutil.which(name, path=path) for name in names)), None)

    if found() is None:
        apt_install(package, f"the tests need one of {', '.join(names)}, and none is there")
    program = found()
    if program is None:
        raise SetupError(f"the package {package} brought none of {', '.join(names)}; install one")
    return program


def apt_install(package: str, reason: str) -> None:
    """Install a system package, where that is possible and allowed."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SetupError(f"{reason}; install it (Debian: sudo apt-get install {package})")
    say(f"{reason}: installing {package}")
    apt = ("apt-get", "--quiet=2", "-o", "DPkg::Lock::Timeout=300")
    command = (*apt, "install", "--yes", "--no-install-recommends", package)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(*command, env=env)
    except SetupError:  # A fresh machine has no package lists, an old one stale lists.
        run(*apt, "update", env=env)
        run(*command, env=env)


def manage(*commands: str) -> None:
    """Run Django's commands, one after the other; what they print is shown."""
    run(VENV_PYTHON, "-m", "scripts.manage_all", *commands)


def run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run a command to its end; SetupError names it if it fails, below its own error output."""
    ended = subprocess.run(command, cwd=ROOT, env=env, check=False, stdin=subprocess.DEVNULL)
    if ended.returncode:
        raise SetupError(f"exit code {ended.returncode} from: {' '.join(map(str, command))}")


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(text)
    draft.replace(path)


def say(message: str) -> None:
    """Tell the person at the terminal what takes the time."""
    print(f"set-up: {message}", file=sys.stderr, flush=True)


def main() -> None:
    """Prepare for the goal on the command line."""
    goals = ("check", "run", "test")
    if len(sys.argv) != 2 or sys.argv[1] not in goals:
        raise SystemExit(f"got {sys.argv[1:]!r}; expected one of: {', '.join(goals)}")
    try:
        prepare(sys.argv[1])
    except SetupError as error:
        raise SystemExit(f"set-up: {error}") from None


if __name__ == "__main__":
    main()
