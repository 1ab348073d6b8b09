"""Sets the checkout up and becomes its server; HOST, PORT and SERVER come from the environment."""

from __future__ import annotations

import os

from setup import ROOT, VENV_PYTHON, SetupError, prepare

APPLICATION = "webchat_project.asgi:application"
MAX_MESSAGE = "65536"  # bytes in one websocket message, as docs/protocol.md promises


def server_command(server: str, host: str, port: str) -> list[str]:
    """The server's module and arguments. Raises SetupError for a server or port that cannot be."""
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise SetupError(f"got PORT={port!r}; expected 1 to 65535; try: make run PORT=8000")
    match server:
        case "daphne":
            return [
                *("daphne", "-b", host, "-p", port, "--no-server-name"),
                *("--websocket_connect_timeout", "10"),
                *("--websocket-max-message-size", MAX_MESSAGE),
                *("--websocket-max-frame-size", MAX_MESSAGE),
                APPLICATION,
            ]
        case "uvicorn":
            return [
                *("uvicorn", "--host", host, "--port", port, "--no-server-header"),
                *("--no-proxy-headers", "--timeout-graceful-shutdown", "15"),
                *("--ws", "websockets-sansio", "--ws-max-size", MAX_MESSAGE),
                *("--ws-per-message-deflate", "false"),
                APPLICATION,
            ]
        case _:
            raise SetupError(
                f"got SERVER={server!r}; expected daphne or uvicorn; try: make run SERVER=daphne"
            )


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
    print(f"Webchat on {server}: http://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)
    os.chdir(ROOT)
    os.execv(VENV_PYTHON, [str(VENV_PYTHON), "-m", *command])


if __name__ == "__main__":
    main()
