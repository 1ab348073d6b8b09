"""Autobahn|Testsuite against the servers as `manage.py serve` runs them: `make autobahn`.

The suite speaks Python 2.7 alone, so this is for machines that have one. It sends some 300 correct
and broken conversations to an application that says back what it hears, on the same listening
socket, protocol classes and options as the product's, but for the bound on a client's message. It
ends with 1 where a case fails that is not among the known ones.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / os.environ.get("WEBCHAT_STATE_DIR", ".webchat") / "autobahn"
SUITE = "autobahntestsuite==25.10.1"
SERVERS = ("daphne", "uvicorn")
CASES = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")
"""All but those of very large messages (9), which we refuse, and of compression, which is off."""
FINE = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED")
KNOWN: Mapping[str, frozenset[str]] = {
    "daphne": frozenset({"1.1.1", "1.2.1", "6.1.1", "6.1.2"}),  # it sends no empty message
    "uvicorn": frozenset({"7.1.5"}),  # 1002 for a close between two parts of a message
}
"""Cases in which a server fails, none of which we meet: docs/promises.md says why."""
MAX_MESSAGE = 1024 * 1024
START_SECONDS = 30


async def say_back(scope: Any, receive: Any, send: Any) -> None:
    """The application under test."""
    if scope["type"] != "websocket":
        return
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


def serve(kind: str, port: int) -> None:
    """Runs the application until the process is ended."""
    import daphne.server  # noqa: F401 - chooses Twisted's reactor, as in a Django that has it installed

    from chat.serving.listener import listen
    from chat.serving.servers import SERVERS

    SERVERS[kind](say_back, listen("127.0.0.1", port), MAX_MESSAGE, 0, lambda stop: None)


@contextmanager
def served(kind: str) -> Iterator[int]:
    """The port of a server that answers; it is ended with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = (sys.executable, "-m", "scripts.autobahn", "--serve", kind, "--port", str(port))
    log = HOME / f"{kind}.log"  # it is broken off in mid-answer by many of the cases
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as process,
    ):
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    if time.monotonic() > deadline or process.poll() is not None:
                        raise SystemExit(f"make autobahn: {kind} did not start") from None
                    time.sleep(0.1)
            yield port
        finally:
            process.kill()


def python2() -> str:
    """The path of a Python 2.7. Exits where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    names = ("python2.7", *map(str, sorted(pyenv.glob("versions/2.7*/bin/python2.7"))))
    for name in names:
        path = shutil.which(name)
        # A name on PATH may be a shim for a version that is not there.
        if (
            path
            and not subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode
        ):
            return path
    raise SystemExit(
        "make autobahn: no python2.7 on PATH or of pyenv, which Autobahn|Testsuite is written for; "
        "install one (pyenv install 2.7.18), or leave it: no other target needs it"
    )


def failures(python: str, kind: str) -> Sequence[str]:
    """The numbers of the cases that the server does not pass."""
    reports = HOME / "reports"
    with served(kind) as port:
        spec = HOME / f"{kind}.json"
        spec.write_text(
            json.dumps(
                {
                    "outdir": str(reports),
                    "servers": [{"agent": kind, "url": f"ws://127.0.0.1:{port}"}],
                    "cases": CASES,
                    "exclude-cases": [],
                    "exclude-agent-cases": {},
                }
            )
        )
        # A site of its own: one of its packages is spread over several by a .pth file.
        site = f"import site; site.addsitedir({str(HOME / 'packages')!r}); "
        run = f"{site}from autobahntestsuite.wstest import run; run()"
        subprocess.run(
            [python, "-c", run, "--mode", "fuzzingclient", "--spec", str(spec)],
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            check=True,
            stdout=subprocess.DEVNULL,
        )
    told = json.loads((reports / "index.json").read_text())[kind]
    assert told, "the suite ran no case"
    failed = [case for case, end in told.items() if end["behavior"] not in FINE]
    closed = [case for case, end in told.items() if end["behaviorClose"] not in FINE]
    print(f"{kind}: {len(told)} cases, {len(failed)} failed, {len(closed)} closed otherwise")
    return sorted({*failed, *closed})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.autobahn", description=__doc__)
    parser.add_argument("--server", choices=SERVERS, action="append")
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve, asked.port)
        return 0
    python, packages = python2(), HOME / "packages"
    if not packages.is_dir():
        draft = HOME / "packages.new"
        shutil.rmtree(draft, ignore_errors=True)
        pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
        subprocess.run([*pip, "--target", str(draft), SUITE], check=True)
        draft.rename(packages)
    ended = 0
    for kind in asked.server or SERVERS:
        for case in failures(python, kind):
            known = case in KNOWN[kind]
            print(f"{kind}: case {case} {'fails, as is known' if known else 'FAILS'}")
            ended = ended if known else 1
    print(f"what each case came to: {HOME / 'reports' / 'index.html'}")
    return ended


if __name__ == "__main__":
    sys.exit(main())
