"""A workspace: what is mounted for a task, and the commands that run in it."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from coding_tasks.sandbox import export, home
from coding_tasks.sandbox.bubblewrap import arguments
from coding_tasks.sandbox.bubblewrap.keeper import layout
from coding_tasks.sandbox.bubblewrap.keeper.messages import Start
from coding_tasks.sandbox.bubblewrap.keeper_process import KeeperProcess
from coding_tasks.sandbox.bubblewrap.process import LINE_COST, STREAMS, RunningCommand, Stream
from coding_tasks.sandbox.command import GATEWAY_PORT_INSIDE, HOME_INSIDE, TREE_INSIDE, Command
from coding_tasks.sandbox.door.relay import Relay
from coding_tasks.sandbox.errors import ExportFailed, TooBig, WorkspaceFailed, WorkspaceLost
from coding_tasks.sandbox.interface import (
    MEGABYTE,
    Change,
    Door,
    Ended,
    Limit,
    Limits,
    Storage,
)

_EXPORT_SECONDS = 120
_ARCHIVE_SECONDS = 60
_EXPLANATION = 500
_SHELL = "/bin/sh"
_EXTRA = "6"
"""The number that the keeper gives to the descriptor after those that every command has."""
_PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": HOME_INSIDE, "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class View:
    """What bubblewrap shows to a command."""

    program: str
    """bubblewrap itself, as the keeper sees it."""
    system: Sequence[str]
    filter: bytes
    has_repository: bool


class BubblewrapWorkspace:
    """See `coding_tasks.sandbox.interface.Workspace`."""

    def __init__(self, keeper: KeeperProcess, view: View, storage: Storage) -> None:
        self._keeper = keeper
        self._view = view
        self._storage = storage

    @asynccontextmanager
    async def start(
        self, command: Command, limits: Limits, door: Door | None = None
    ) -> AsyncIterator[RunningCommand]:
        """See `Workspace.start`."""
        process = self._start(command, limits, door, arguments.TASK)
        try:
            yield process
        finally:
            await asyncio.shield(process.close())

    async def export(
        self, commit: str, index: Path | None = None, most_bytes: int = 20 * MEGABYTE
    ) -> Change:
        """See `Workspace.export`."""
        if not self._view.has_repository:
            raise ExportFailed("the workspace was opened without a repository")
        if not export.is_commit(commit):
            raise ExportFailed(f"not a commit's id: {commit!r}")
        command = Command((_SHELL, "-c", export.SCRIPT), export.environment(commit))
        shown = [
            *("--ro-bind", layout.TREE, TREE_INSIDE, "--chdir", TREE_INSIDE),
            *("--ro-bind", layout.REPOSITORY, export.REPOSITORY_INSIDE),
            *("--size", str(self._storage.tree_bytes), "--tmpfs", export.HOME_INSIDE),
        ]
        with ExitStack() as stack:
            extra = None
            if index is not None:
                extra = stack.enter_context(
                    _memory("index", await asyncio.to_thread(index.read_bytes))
                ).fileno()
                shown += ["--file", _EXTRA, export.INDEX_INSIDE]
            limits = Limits(seconds=_EXPORT_SECONDS)
            patch, complaints, ended = await self._collect(
                command, limits, shown, most_bytes, extra
            )
        if ended.status != 0:
            raise ExportFailed(f"git could not make a patch: {_reason(ended, complaints)}")
        return Change(patch, incomplete=b"incomplete" in complaints)

    async def save_home(self, paths: tuple[str, ...], most_bytes: int = 50 * MEGABYTE) -> bytes:
        """See `Workspace.save_home`."""
        for path in paths:
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise ExportFailed(f"not a path below the home: {path!r}")
        command = Command((_SHELL, "-c", home.SAVE, "sh", *paths), _PATH)
        shown = ("--ro-bind", layout.HOME, HOME_INSIDE)
        limits = Limits(seconds=_ARCHIVE_SECONDS)
        archive, complaints, ended = await self._collect(command, limits, shown, most_bytes)
        if ended.status != 0:
            raise ExportFailed(f"the home cannot be saved: {_reason(ended, complaints)}")
        return archive

    async def restore_home(self, archive: bytes) -> None:
        """See `Workspace.restore_home`."""
        if not archive:
            return
        command = Command((_SHELL, "-c", home.RESTORE), _PATH, archive)
        shown = ("--bind", layout.HOME, HOME_INSIDE)
        limits = Limits(seconds=_ARCHIVE_SECONDS)
        _, complaints, ended = await self._collect(command, limits, shown, MEGABYTE)
        if ended.status != 0:
            raise ExportFailed(f"the home cannot be restored: {_reason(ended, complaints)}")

    async def _collect(
        self,
        command: Command,
        limits: Limits,
        shown: Sequence[str],
        most_bytes: int,
        extra: int | None = None,
    ) -> tuple[bytes, bytes, Ended]:
        """Run one of our own commands; return its output, what it complained of, and its end."""
        bounded = replace(limits, output=most_bytes + 1)
        kept: dict[Stream, bytearray] = {stream: bytearray() for stream in STREAMS}
        process = self._start(command, bounded, None, shown, extra=extra, line_cost=0)
        try:
            async for stream, data in process.chunks():
                kept[stream] += data
            ended = await process.wait()
        finally:
            await process.close()
        if ended.limit is Limit.OUTPUT:
            raise TooBig(f"more than {most_bytes} bytes")
        return bytes(kept["stdout"]), bytes(kept["stderr"]), ended

    def _start(
        self,
        command: Command,
        limits: Limits,
        door: Door | None,
        shown: Sequence[str],
        *,
        extra: int | None = None,
        line_cost: int = LINE_COST,
    ) -> RunningCommand:
        """Start a command with these mounts besides the system's."""
        relay = Relay(door) if door is not None else None
        network = () if relay else arguments.NO_NETWORK
        secret = [*arguments.environment(command.environment)]
        visible = [
            self._view.program,
            *arguments.ISOLATION,
            *network,
            *self._view.system,
            *shown,
            *arguments.SEALED,
            "--",
            *command.argv,
        ]
        process = RunningCommand(self._keeper, limits, relay, line_cost)
        with ExitStack() as stack:
            files = [
                stack.enter_context(_memory(name, data))
                for name, data in (
                    ("arguments", _joined(secret)),
                    ("argv", _joined(visible)),
                    ("filter", self._view.filter),
                    ("stdin", command.stdin),
                )
            ]
            pipes = {stream: os.pipe() for stream in STREAMS}
            for _, writer in pipes.values():
                stack.callback(os.close, writer)
            descriptors = [file.fileno() for file in files]
            descriptors += [writer for _, writer in pipes.values()]
            descriptors += [extra] if extra is not None else []
            try:
                run, finished = self._keeper.start(
                    lambda number: _order(number, limits, relay),
                    descriptors,
                    relay.listen if relay else None,
                )
            except WorkspaceLost:
                for reader, _ in pipes.values():
                    os.close(reader)
                raise
        process.follow(run, finished, {stream: reader for stream, (reader, _) in pipes.items()})
        return process


def _order(number: int, limits: Limits, relay: Relay | None) -> Start:
    return Start(
        run=number,
        network=relay is not None,
        port=GATEWAY_PORT_INSIDE,
        memory=limits.memory,
        cpu_seconds=limits.cpu_seconds,
        resources=arguments.resources(limits),
    )


def _memory(name: str, data: bytes) -> BinaryIO:
    """Return a file in memory that holds the data and cannot be changed any more."""
    file = os.fdopen(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b")
    file.write(data)
    file.flush()
    file.seek(0)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
    return file


def _joined(parts: Sequence[str]) -> bytes:
    """Return the parts with a NUL between them. Raises `WorkspaceFailed` if one holds a NUL."""
    if any("\0" in part for part in parts):
        raise WorkspaceFailed("a NUL cannot be passed to a command")
    return b"\0".join(os.fsencode(part) for part in parts)


def _reason(ended: Ended, complaints: bytes) -> str:
    if ended.limit is not None:
        return f"it exceeded its limit of {ended.limit}"
    return complaints.decode("utf-8", "replace").strip()[-_EXPLANATION:] or str(ended)
