"""A pipe between a child process and the event loop."""

import asyncio
import os
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Pipe:
    """A pipe that this process reads; `write_end` is for a child and to be closed here.

    With the pipes that asyncio makes itself, a process counts as running for as long as a child of
    its own holds one open. These do not have that effect.
    """

    reader: asyncio.StreamReader
    write_end: int

    @classmethod
    async def open(cls) -> Self:
        """Return a new pipe, whose reading end is closed when it has been read to its end."""
        read_end, write_end = os.pipe()
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb")
        )
        return cls(reader, write_end)
