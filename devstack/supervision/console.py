"""The output of the development stack: each line follows the name of its program."""

import asyncio
import sys
import time
from collections import deque
from contextlib import suppress
from typing import TextIO

from devstack.supervision.log_lines import readable

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_LONGEST_LINE = 1 << 16  # bytes; a longer one is shown in parts
_REMEMBERED = 2  # lines: an error, and what to do about it
NAME_WIDTH = 13


class Console:
    """Writes lines to one stream, with coloured names if it is a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._colour = self._stream.isatty()
        self._colour_of: dict[str, int] = {}
        self._pumps: set[asyncio.Task[None]] = set()
        self._last_lines: dict[str, deque[str]] = {}

    def say(self, text: str) -> None:
        """Print a message of the supervisor."""
        self.line("tollgate", text)

    def line(self, name: str, text: str) -> None:
        """Print one line after the name of its program."""
        label = f"{name:<{NAME_WIDTH}}"
        if self._colour:
            colour = self._colour_of.setdefault(
                name, _COLOURS[len(self._colour_of) % len(_COLOURS)]
            )
            label = f"\033[{colour}m{label}\033[0m"
        self.write(f"{time.strftime('%H:%M:%S')} {label} │ {text}\n")

    def write(self, text: str) -> None:
        """Print text unchanged. Ignore a reader that went away (`make up | head`)."""
        with suppress(BrokenPipeError):
            self._stream.write(text)
            self._stream.flush()

    def follow(
        self, name: str, stream: asyncio.StreamReader, hides: str = ""
    ) -> asyncio.Task[None]:
        """Print a program's output, but no line that contains `hides`.

        Return the task, which ends with the output.
        """
        self._last_lines[name] = deque(maxlen=_REMEMBERED)
        pump = asyncio.create_task(self._pump(name, stream, hides))
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)
        return pump

    def last_lines(self, name: str) -> list[str]:
        """Return the last lines that the newest program with this name printed."""
        return list(self._last_lines.get(name, ()))

    async def drain(self) -> None:
        """Print the rest of the output of programs that have ended."""
        if self._pumps:
            await asyncio.wait(self._pumps, timeout=1)

    async def _pump(self, name: str, stream: asyncio.StreamReader, hides: str) -> None:
        rest = b""
        while chunk := await stream.read(_LONGEST_LINE):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._show(name, line, hides)
        if rest:
            self._show(name, rest, hides)

    def _show(self, name: str, line: bytes, hides: str) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if hides and hides in text:
            return
        for shown in readable(text, colour=self._colour):
            self.line(name, shown)
        for plain in filter(None, readable(text)):
            self._last_lines[name].append(plain.strip())
