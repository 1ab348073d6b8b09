"""Daphne and uvicorn, each run on a listening socket of ours until it is told to stop."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

CONNECT_SECONDS = 60
"""For the application's word on a socket. In a storm who is turned away only comes once more."""
STOP_SECONDS = 1
"""For a server that was drained to end what it still answers."""

Started: TypeAlias = Callable[[Callable[[], None]], object]
"""Called inside the server's loop once it runs, with what stops it."""

RunServer: TypeAlias = Callable[[Any, socket.socket, int, int, Started], None]
"""Serves an application on a socket; a client's messages and bodies are at most so many bytes."""


def run_daphne(
    application: Any, listener: socket.socket, max_message: int, max_body: int, started: Started
) -> None:
    """Serves until stopped. The pool's flow control bounds what Daphne holds for slow readers.

    Its own access lines have a form of their own and pass the log by; the application writes them.
    """
    from twisted.internet import reactor

    from .daphne_http import DaphneHttp
    from .daphne_socket import DaphneServer, DaphneSocket

    def begin() -> None:
        server.http_factory.protocol = DaphneHttp
        server.ws_factory.protocol = DaphneSocket
        started(server.stop)

    server = DaphneServer(
        application,
        endpoints=[f"fd:fileno={listener.detach()}"],  # Twisted closes it
        signal_handlers=False,
        websocket_connect_timeout=CONNECT_SECONDS,
        websocket_handshake_timeout=CONNECT_SECONDS,
        websocket_max_message_size=max_message,
        websocket_max_frame_size=max_message,
        server_name="",
    )
    server.max_body = max_body
    # Not callWhenRunning: that is before the loop under the reactor runs.
    reactor.callLater(0, begin)  # type: ignore[arg-type] # zope knows no self
    server.run()


def run_uvicorn(
    application: Any, listener: socket.socket, max_message: int, max_body: int, started: Started
) -> None:
    """Serves until stopped. uvicorn pushes back on slow readers; see `listen` for dead ones.

    It reads no more of a body than the application asks for.
    """
    import uvicorn

    from .uvicorn_http import UvicornHttp
    from .uvicorn_socket import UvicornSocket

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # ours; uvicorn's own would close every socket before it was told anything

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started(self._stop)

        def _stop(self) -> None:
            self.should_exit = True

    config = uvicorn.Config(
        application,
        http=UvicornHttp,
        ws=UvicornSocket,
        ws_max_size=max_message,
        ws_per_message_deflate=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        log_config=None,
    )
    Server(config).run(sockets=[listener])


SERVERS: Final[Mapping[str, RunServer]] = {"daphne": run_daphne, "uvicorn": run_uvicorn}
