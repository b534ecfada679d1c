"""Splits output into lines while it comes, and keeps each one bounded."""

from typing import Literal

from coding_tasks.sandbox.interface import Line


class LineSplitter:
    """Splits the output of one stream. Holds at most one line of `longest` bytes."""

    def __init__(self, stream: Literal["stdout", "stderr"], longest: int) -> None:
        self._stream = stream
        self._longest = longest
        self._begun = bytearray()
        self._cut = False

    def feed(self, data: bytes) -> list[Line]:
        """Return the lines that this data completes."""
        first, *others = data.split(b"\n")
        self._extend(first)
        lines = []
        for part in others:
            lines.append(self._take())
            self._extend(part)
        return lines

    def end(self) -> list[Line]:
        """Return the last line if it has no newline."""
        return [self._take()] if self._begun else []

    def _extend(self, part: bytes) -> None:
        room = self._longest - len(self._begun)
        self._begun += part[:room]
        self._cut = self._cut or len(part) > room

    def _take(self) -> Line:
        line = Line(self._stream, bytes(self._begun), self._cut)
        self._begun.clear()
        self._cut = False
        return line
