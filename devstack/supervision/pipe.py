"""A pipe between a child process and the event loop."""

import asyncio
import os
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Pipe:
    """A pipe that this process reads. Give `write_end` to a child, then close it here.

    asyncio's own pipes make a process count as running while any of its children holds one open.
    These don't.
    """

    reader: asyncio.StreamReader
    write_end: int

    @classmethod
    async def open(cls) -> Self:
        """Return a new pipe. Its reading end closes when it has been read to the end."""
        read_end, write_end = os.pipe()
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb")
        )
        return cls(reader, write_end)
