"""Tell a warden (`supervision.warden`) which process groups must not outlive this process."""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from devstack.environment import filter_environment


class Guard:
    """Keeps one warden process running. A new one gets the list of all groups."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._groups: set[int] = set()
        self._warden: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._ending = False

    async def begin(self) -> None:
        """Start the warden."""
        self._warden = await self._start()
        self._keeping = asyncio.create_task(self._keep_running(self._warden))

    async def end(self) -> None:
        """Let the warden kill the remaining groups and exit."""
        self._ending = True
        if self._warden is not None and self._warden.stdin is not None:
            self._warden.stdin.close()
        if self._keeping is not None:
            await self._keeping

    def watch(self, group: int) -> None:
        """Have the warden kill this group when this process is gone."""
        self._groups.add(group)
        self._tell(f"+{group}\n")

    def release(self, group: int) -> None:
        """Stop watching a group that has ended."""
        self._groups.discard(group)
        self._tell(f"-{group}\n")

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "devstack.supervision.warden",
            stdin=asyncio.subprocess.PIPE,
            env=filter_environment(os.environ, ()),
            start_new_session=True,
        )

    async def _keep_running(self, warden: asyncio.subprocess.Process) -> None:
        while True:
            await warden.wait()
            if self._ending:
                return
            self._warden = warden = await self._start()
            for group in self._groups:
                self._tell(f"+{group}\n")
            self._say("the warden was killed; another one watches")
            if self._ending and warden.stdin is not None:
                warden.stdin.close()

    def _tell(self, line: str) -> None:
        # Writing to a dying warden fails, but its successor gets the list of all groups.
        if self._warden is not None and self._warden.stdin is not None:
            with suppress(ConnectionError):
                self._warden.stdin.write(line.encode())
