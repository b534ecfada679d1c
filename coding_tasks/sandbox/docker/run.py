"""One command in a container: its usage while it runs, and how it ends."""

import asyncio
import contextlib
import json
import re
import time
from dataclasses import dataclass

from coding_tasks.sandbox.docker.client import Client
from coding_tasks.sandbox.errors import WorkspaceFailed
from coding_tasks.sandbox.interface import Limit, Limits
from coding_tasks.sandbox.process import RunningCommand

_AGAIN = 0.05
"""Seconds between attempts to remove a container that may not exist yet."""
_MEASURE_AFTER = 0.5
"""Seconds before the first measurement and between attempts. Most commands end sooner."""
_ENGINE_FAILED = 125
"""The exit status of `docker run` if the engine failed. A command can have it, too."""
KILLED = 137
"""The exit status of `docker run` if SIGKILL ended the command."""
_UNITS = {"B": 1, "KB": 1e3, "KIB": 2**10, "MB": 1e6, "MIB": 2**20, "GB": 1e9, "GIB": 2**30}


@dataclass(frozen=True)
class End:
    """See `coding_tasks.sandbox.process.RunEnd`."""

    status: int | None
    started: bool
    limit: str | None
    cpu_seconds: float
    peak_memory: int


class ContainerRun:
    """A container from its start to its end."""

    def __init__(self, client: Client, name: str, limits: Limits, process: RunningCommand) -> None:
        self._client = client
        self._name = name
        self._limits = limits
        self._process = process
        self._killing: asyncio.Task[None] | None = None
        self._limit: Limit | None = None
        self._cpu_seconds = 0.0
        self._peak = 0
        self._over = asyncio.Event()

    async def follow(self, cli: asyncio.subprocess.Process) -> End:
        """Return how the container ended, once the engine has removed it."""
        began = time.time()
        measuring = asyncio.create_task(self._measure())
        status = await cli.wait()
        self._over.set()
        measuring.cancel()
        await asyncio.gather(measuring, return_exceptions=True)
        if self._killing is not None:
            await self._killing
        elif status == KILLED and await self._ran_out_of_memory(began):
            self._limit = Limit.MEMORY
        failed = status == _ENGINE_FAILED and self._process.complaint.startswith("docker:")
        return End(
            status=None if self._killing is not None else status,
            started=not failed,
            limit=self._limit,
            cpu_seconds=self._cpu_seconds,
            # What the engine killed it for came too fast to be sampled.
            peak_memory=self._limits.memory if self._limit is Limit.MEMORY else self._peak,
        )

    def kill(self) -> None:
        """Begin to end every process of the container."""
        if self._killing is None and not self._over.is_set():
            self._killing = asyncio.create_task(self._remove())

    def exceed(self, limit: Limit) -> None:
        """End the container because of this limit."""
        if self._killing is None:
            self._limit = limit
            self.kill()

    async def _remove(self) -> None:
        """Remove the container. It may not exist yet, so try until `docker run` ends."""
        while not self._over.is_set():
            with contextlib.suppress(WorkspaceFailed):
                await self._client.ask("rm", "--force", self._name)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), _AGAIN)

    async def _ran_out_of_memory(self, began: float) -> bool:
        try:
            said = await self._client.ask(
                *("events", "--since", str(int(began)), "--until", str(int(time.time()) + 1)),
                *("--filter", f"container={self._name}", "--filter", "event=oom"),
                *("--format", "{{.Action}}"),
            )
        except WorkspaceFailed:
            return False
        return "oom" in said

    async def _measure(self) -> None:
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        cli = None
        try:
            while True:  # `docker stats` ends at once if the container does not exist yet
                await asyncio.sleep(_MEASURE_AFTER)
                arguments = ("stats", "--no-trunc", "--format", "{{json .}}", self._name)
                cli = await self._client.start(arguments, stdin=null, stdout=pipe, stderr=null)
                assert cli.stdout is not None, "it is piped"
                seen = time.monotonic()
                while line := await cli.stdout.readline():
                    now = time.monotonic()
                    self._note(line, now - seen)
                    seen = now
                await cli.wait()
        finally:
            if cli is not None and cli.returncode is None:
                cli.kill()
                await cli.wait()

    def _note(self, line: bytes, seconds: float) -> None:
        """Take one line of `docker stats`, which also contains escape sequences for terminals."""
        begin = line.find(b"{")
        if begin < 0:
            return
        try:
            sample = json.loads(line[begin:].split(b"\x1b")[0])
            percent = float(sample["CPUPerc"].rstrip("%"))
            memory = bytes_of(sample["MemUsage"].partition("/")[0])
        except (ValueError, KeyError):  # "--" before the first sample
            return
        self._cpu_seconds += percent / 100 * seconds
        self._peak = max(self._peak, memory)
        if self._cpu_seconds > self._limits.cpu_seconds:
            self.exceed(Limit.CPU_SECONDS)


def bytes_of(text: str) -> int:
    """Return the bytes that a size such as "1.5MiB" means. Raises `ValueError`."""
    found = re.fullmatch(r"\s*([\d.]+)\s*([KMG]?i?B)\s*", text, re.IGNORECASE)
    if found is None:
        raise ValueError(f"not a size: {text!r}")
    return int(float(found[1]) * _UNITS[found[2].upper()])
