"""What every workspace does with its sandbox: run commands, export the change, keep the home."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path, PurePosixPath

from coding_tasks.sandbox import export, folders, home
from coding_tasks.sandbox.command import HOME_INSIDE, PYTHON_INSIDE, Command
from coding_tasks.sandbox.door.relay import Relay
from coding_tasks.sandbox.errors import ExportFailed, TooBig, WorkspaceFailed
from coding_tasks.sandbox.interface import MEGABYTE, Change, Door, Ended, Limit, Limits
from coding_tasks.sandbox.process import LINE_COST, STREAMS, RunningCommand, Stream

_EXPORT_SECONDS = 120
_ARCHIVE_SECONDS = 60
_EXPLANATION = 500
_SHELL = "/bin/sh"
_PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": HOME_INSIDE, "LC_ALL": "C.UTF-8"}


class Purpose(Enum):
    """What a command is for, and so what it sees of the workspace."""

    TASK = auto()
    """An agent's command: the tree, the home and temporary files, all writable."""
    EXPORT = auto()
    """git: the tree and the repository, and a writable folder of its own with the index."""
    SAVE = auto()
    """The home."""
    RESTORE = auto()
    """The home, writable."""


class BaseWorkspace(ABC):
    """See `coding_tasks.sandbox.interface.Workspace`. Subclasses start the commands."""

    def __init__(self, *, has_repository: bool) -> None:
        self._has_repository = has_repository

    @asynccontextmanager
    async def start(
        self, command: Command, limits: Limits, door: Door | None = None
    ) -> AsyncIterator[RunningCommand]:
        """See `Workspace.start`."""
        _check(command)
        relay = Relay(door) if door is not None else None
        process = RunningCommand(limits, relay, LINE_COST)
        await self._begin(process, Purpose.TASK, command, limits, relay)
        try:
            yield process
        finally:
            await asyncio.shield(process.close())

    @abstractmethod
    async def _begin(
        self,
        process: RunningCommand,
        purpose: Purpose,
        command: Command,
        limits: Limits,
        relay: Relay | None = None,
        index: bytes | None = None,
    ) -> None:
        """Start the command and let the process follow it.

        `index` is the file that an export finds as `export.INDEX_INSIDE`. Raises `WorkspaceFailed`
        or `WorkspaceLost`.
        """

    async def export(
        self, commit: str, index: Path | None = None, most_bytes: int = 20 * MEGABYTE
    ) -> Change:
        """See `Workspace.export`."""
        if not self._has_repository:
            raise ExportFailed("the workspace was opened without a repository")
        if not export.is_commit(commit):
            raise ExportFailed(f"not a commit's id: {commit!r}")
        command = Command((_SHELL, "-c", export.SCRIPT), export.environment(commit))
        saved = None if index is None else await asyncio.to_thread(index.read_bytes)
        limits = Limits(seconds=_EXPORT_SECONDS)
        patch, complaints, ended = await self._collect(
            Purpose.EXPORT, command, limits, most_bytes, saved
        )
        if ended.status != 0:
            raise ExportFailed(f"git could not make a patch: {_reason(ended, complaints)}")
        return Change(patch, incomplete=b"incomplete" in complaints)

    async def read_folder(self, path: str, most_files: int, most_bytes: int) -> bytes:
        """See `Workspace.read_folder`."""
        arguments = ("-I", "-S", "-c", folders.PROGRAM, f"{HOME_INSIDE}/{path}")
        argv = (PYTHON_INSIDE, *arguments, str(most_files), str(most_bytes))
        limits = Limits(seconds=_ARCHIVE_SECONDS)
        most = 2 * most_bytes + MEGABYTE  # base64 and names
        found, complaints, ended = await self._collect(
            Purpose.SAVE, Command(argv, _PATH), limits, most
        )
        if ended.status != 0:
            raise ExportFailed(f"the folder cannot be read: {_reason(ended, complaints)}")
        return found

    async def save_home(self, paths: tuple[str, ...], most_bytes: int = 50 * MEGABYTE) -> bytes:
        """See `Workspace.save_home`."""
        for path in paths:
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise ExportFailed(f"not a path below the home: {path!r}")
        command = Command((_SHELL, "-c", home.SAVE, "sh", *paths), _PATH)
        limits = Limits(seconds=_ARCHIVE_SECONDS)
        archive, complaints, ended = await self._collect(Purpose.SAVE, command, limits, most_bytes)
        if ended.status != 0:
            raise ExportFailed(f"the home cannot be saved: {_reason(ended, complaints)}")
        return archive

    async def restore_home(self, archive: bytes) -> None:
        """See `Workspace.restore_home`."""
        if not archive:
            return
        command = Command((_SHELL, "-c", home.RESTORE), _PATH, archive)
        limits = Limits(seconds=_ARCHIVE_SECONDS)
        _, complaints, ended = await self._collect(Purpose.RESTORE, command, limits, MEGABYTE)
        if ended.status != 0:
            raise ExportFailed(f"the home cannot be restored: {_reason(ended, complaints)}")

    async def _collect(
        self,
        purpose: Purpose,
        command: Command,
        limits: Limits,
        most_bytes: int,
        index: bytes | None = None,
    ) -> tuple[bytes, bytes, Ended]:
        """Run one of our own commands; return its output, what it complained of, and its end.

        Raises `ExportFailed`, `TooBig` and `WorkspaceLost`.
        """
        _check(command)
        bounded = replace(limits, output=most_bytes + 1)
        kept: dict[Stream, bytearray] = {stream: bytearray() for stream in STREAMS}
        process = RunningCommand(bounded, None, line_cost=0)
        await self._begin(process, purpose, command, bounded, index=index)
        try:
            async for stream, data in process.chunks():
                kept[stream] += data
            ended = await process.wait()
        except WorkspaceFailed as error:  # code inside can take its rights from the tree or home
            raise ExportFailed(str(error)) from error
        finally:
            await process.close()
        if ended.limit is Limit.OUTPUT:
            raise TooBig(f"more than {most_bytes} bytes")
        return bytes(kept["stdout"]), bytes(kept["stderr"]), ended


def _check(command: Command) -> None:
    """Raise `WorkspaceFailed` if a part of the command would end early, and another one begin."""
    parts = (*command.argv, *command.environment, *command.environment.values())
    if any("\0" in part for part in parts):
        raise WorkspaceFailed("a NUL cannot be passed to a command")


def _reason(ended: Ended, complaints: bytes) -> str:
    if ended.limit is not None:
        return f"it exceeded its limit of {ended.limit}"
    return complaints.decode("utf-8", "replace").strip()[-_EXPLANATION:] or str(ended)
