"""`manage.py serve`: the server, with what a server on a public address needs."""

from __future__ import annotations

from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.module_loading import import_string

from chat.apps import hub
from chat.conf import chat_settings
from chat.serving.collector import let_go, settle
from chat.serving.listener import listen, raise_descriptor_limit
from chat.serving.servers import SERVERS
from chat.serving.signals import Shutdown


class Command(BaseCommand):
    help = "Serves the project on Daphne or uvicorn, with safe settings; SIGTERM drains it."
    requires_system_checks = ()  # the application itself refuses to start with a wrong setting

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--server", choices=sorted(SERVERS), default="daphne")
        parser.add_argument("--host", default="127.0.0.1", help="a name or an address")
        parser.add_argument("--port", type=port_number, default=8000)

    def handle(self, *, server: str, host: str, port: int, **options: Any) -> None:
        raise_descriptor_limit()
        try:
            listener = listen(host, port)
        except OSError as error:
            raise CommandError(
                f"cannot listen on {host}:{port}: {error}; name another --host or --port, "
                "or stop what listens there"
            ) from None
        with listener:
            application = import_string(settings.ASGI_APPLICATION)
            conf = chat_settings()
            settle()
            bound = listener.getsockname()[1]

            def started(stop: Any) -> None:
                Shutdown(hub(), timeout=conf.drain_timeout, stop=stop)
                address = f"[{host}]" if ":" in host else host
                self.announce(f"Webchat on {server}: http://{address}:{bound}/")

            bounds = conf.message_max_bytes, conf.body_max_bytes
            SERVERS[server](application, listener, *bounds, started)
            let_go()

    def announce(self, text: str) -> None:
        """Says it, where somebody can hear it: a disk that is full is no reason not to serve."""
        with suppress(OSError):
            self.stdout.write(text)
            self.stdout.flush()


def port_number(text: str) -> int:
    """Named for what argparse says of a text that is none."""
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    raise ValueError
