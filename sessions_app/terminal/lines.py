"""What a person types."""

from __future__ import annotations

import asyncio
import os
import termios


class Lines:
    """The lines of a terminal or a pipe, one at a time, without a thread that cannot be ended."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._read = b""
        self._ended = False
        self.is_terminal = os.isatty(fd)

    async def next(self) -> str | None:
        """The next line without its end; None at the end of input. Cancelling loses nothing."""
        while b"\n" not in self._read and not self._ended:
            await self._readable()
            block = os.read(self._fd, 65536)
            self._read += block
            self._ended = not block
        if not self._read:
            # A terminal may go on after Ctrl-D; a pipe says its end again.
            self._ended = False
            return None
        line, _, self._read = self._read.partition(b"\n")
        return line.decode(errors="replace").removesuffix("\r")

    def forget(self) -> None:
        """Drops what was typed ahead, so that it answers no question asked after it.

        What is piped in is meant for whatever comes, and stays.
        """
        if self.is_terminal:
            termios.tcflush(self._fd, termios.TCIFLUSH)
            self._read = b""

    async def _readable(self) -> None:
        ready = asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(self._fd, ready.set)
        except OSError:  # a plain file is always ready
            return
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._fd)
