"""Live sessions for people on a terminal: list them, follow one, cancel what runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any, TypeAlias

from asgiref.sync import sync_to_async
from django.core.management.base import BaseCommand, CommandError

from chat.frames import Cursor
from chat.remote.errors import RemoteError
from chat.remote.login import LASTS_SECONDS, Login, logged_in
from chat.remote.server import Server, address, listed
from chat.remote.show import FrameScreen, table
from chat.remote.tail import Back, Gap, Lost, Told, follow
from chat.submission import is_conv_id
from sessions_app.terminal.screen import Screen

Task: TypeAlias = Callable[[Server], Awaitable[None]]


class Command(BaseCommand):
    """Speaks to a running server as any client does, as the account that --user names.

    The log-in is made from this project's database and key, which must be the server's; it is
    deleted at the end, also by Ctrl-C, and lasts some minutes where that is not possible.
    """

    help = __doc__
    requires_system_checks = ()  # it serves nothing

    def add_arguments(self, parser: ArgumentParser) -> None:
        _where(parser, url="http://127.0.0.1:8000", user="operator")
        parser.set_defaults(task="list", json=False)
        tasks = parser.add_subparsers(title="tasks", metavar="list | tail | cancel")
        listing = tasks.add_parser("list", help="every live session; what is done without a task")
        listing.set_defaults(task="list")
        listing.add_argument("--json", action="store_true", help="as the debug API says it")
        tail = tasks.add_parser("tail", help="follow a conversation until Ctrl-C")
        tail.set_defaults(task="tail")
        tail.add_argument("conv_id", metavar="id")
        tail.add_argument(
            "-n", "--frames", type=int, default=0, help="begin with the last N frames"
        )
        tail.add_argument("--json", action="store_true", help="each frame as one line of JSON")
        cancel = tasks.add_parser("cancel", help="end the inference that runs")
        cancel.set_defaults(task="cancel")
        cancel.add_argument("conv_id", metavar="id")
        cancel.add_argument("--inference", metavar="ID", help="only if this is the one that runs")
        cancel.add_argument("--queue", action="store_true", help="and forget what waits behind it")
        for task in (listing, tail, cancel):
            _where(task, url=SUPPRESS, user=SUPPRESS)

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.ending = ""
        styled = options["force_color"] or (self.stdout.isatty() and not options["no_color"])
        self._screen = Screen(self.stdout, styled=styled)
        tasks: dict[str, Task] = {
            "list": partial(self._list, as_json=options["json"]),
            "tail": partial(self._tail, options),
            "cancel": partial(self._cancel, options),
        }
        try:
            url = address(options["url"])
            if "conv_id" in options and not is_conv_id(options["conv_id"]):
                raise CommandError(f"{options['conv_id'][:200]!r} is no id of a conversation")
            with _ended_in_order(), logged_in(options["user"]) as login:
                asyncio.run(self._run(tasks[options["task"]], url, login))
        except RemoteError as error:
            raise CommandError(f"{str(error).rstrip('.')}.") from None
        except KeyboardInterrupt:
            self._screen.write("\n")
        if self._screen.gone:
            # Or Python would complain of it at its own end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    async def _run(self, task: Task, url: str, login: Login) -> None:
        renewing = asyncio.create_task(_renew(login), name="renew-login")
        try:
            async with Server(url, login) as server:
                await task(server)
        finally:
            renewing.cancel()
            await asyncio.wait({renewing})

    async def _list(self, server: Server, *, as_json: bool) -> None:
        body = await server.conversations()
        if as_json:
            self._screen.write(json.dumps(json.loads(body), indent=2) + "\n")
        elif rows := listed(body):
            self._screen.write(table(rows))
        else:
            self.stderr.write(f"There are no live sessions at {server.url}.")

    async def _cancel(self, options: dict[str, Any], server: Server) -> None:
        ended = await server.cancel(
            options["conv_id"], inference_id=options["inference"], queue=options["queue"]
        )
        self._screen.write(f"The inference {ended} ends as cancelled.\n")

    async def _tail(self, options: dict[str, Any], server: Server) -> None:
        conv_id, most = options["conv_id"], max(0, options["frames"])
        tell = self._json_line if options["json"] else FrameScreen(self._screen).frame
        cursor = await server.head(conv_id)
        if most:
            for frame in await server.frames(conv_id, after=cursor.seq - most, most=most):
                tell(frame)
                cursor = Cursor(cursor.epoch, frame["seq"], frame.get("stream_id"))
        self._note(f"following {conv_id} from frame {cursor.seq} on; Ctrl-C leaves")
        connect = partial(server.socket, conv_id)
        happenings = follow(connect, cursor, explain=partial(server.head, conv_id))
        async with aclosing(happenings):
            async for happening in happenings:
                match happening:
                    case Told(frame):
                        tell(frame)
                    case Gap():
                        self._gap(happening, as_json=options["json"])
                    case Lost(reason, seconds):
                        self._note(f"connection lost ({reason}); again in {seconds:.1f} s")
                    case Back():
                        self._note("connected again; nothing was missed")
                if self._screen.gone:
                    return

    def _gap(self, gap: Gap, *, as_json: bool) -> None:
        data = gap.snapshot["data"]
        self._note(
            f"gap: what came after frame {gap.seen} is not to be had any more ({gap.reason}); "
            f"what stands at frame {data['version']} follows"
        )
        if as_json:
            self._json_line(gap.snapshot)
        else:
            same_log = gap.reason in ("window", "slow")
            FrameScreen(self._screen).snapshot(data, after=gap.seen if same_log else 0)

    def _json_line(self, event: Any) -> None:
        self._screen.write(json.dumps(event) + "\n")

    def _note(self, text: str) -> None:
        """For the person, beside what may be piped on."""
        self.stderr.write(f"-- {text}")


def _where(parser: ArgumentParser, *, url: str, user: str) -> None:
    parser.add_argument("--url", default=url, help="the server; default: http://127.0.0.1:8000")
    parser.add_argument("--user", default=user, help="the account; default: operator")


async def _renew(login: Login) -> None:
    while True:
        await asyncio.sleep(LASTS_SECONDS / 3)
        await sync_to_async(login.renew)()


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that the log-in is deleted."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
