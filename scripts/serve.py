"""Sets the checkout up and becomes its server; HOST, PORT and SERVER come from the environment."""

from __future__ import annotations

import os

from setup import ROOT, VENV_PYTHON, SetupError, prepare

SERVERS = ("daphne", "uvicorn")


def server_command(server: str, host: str, port: str) -> list[str]:
    """What Python is to run. Raises SetupError for a server or port that cannot be."""
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise SetupError(f"got PORT={port!r}; expected 1 to 65535; try: make run PORT=8000")
    if server not in SERVERS:
        raise SetupError(
            f"got SERVER={server!r}; expected daphne or uvicorn; try: make run SERVER=daphne"
        )
    return ["manage.py", "serve", "--server", server, "--host", host, "--port", port]


def main() -> None:
    """Never returns: this process becomes the server, so that signals reach it."""
    host = os.environ.get("HOST") or "127.0.0.1"
    port = os.environ.get("PORT") or "8000"
    server = os.environ.get("SERVER") or "daphne"
    try:
        command = server_command(server, host, port)
        prepare("run")
    except SetupError as error:
        raise SystemExit(f"make run: {error}") from None
    os.chdir(ROOT)
    os.execv(VENV_PYTHON, [str(VENV_PYTHON), *command])


if __name__ == "__main__":
    main()
