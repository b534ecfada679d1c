"""A workspace that a keeper holds, and how a command is started in it."""

import fcntl
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

from coding_tasks.sandbox import export
from coding_tasks.sandbox.command import GATEWAY_PORT_INSIDE, HOME_INSIDE, TREE_INSIDE, Command
from coding_tasks.sandbox.door.relay import Relay
from coding_tasks.sandbox.errors import WorkspaceLost
from coding_tasks.sandbox.interface import Limits, Storage
from coding_tasks.sandbox.keepers.isolation import Isolation
from coding_tasks.sandbox.keepers.keeper import layout
from coding_tasks.sandbox.keepers.keeper.messages import Start
from coding_tasks.sandbox.keepers.keeper_process import KeeperProcess
from coding_tasks.sandbox.keepers.view import TASK, Bind, Mount, Scratch, View
from coding_tasks.sandbox.process import STREAMS, RunningCommand
from coding_tasks.sandbox.workspace import BaseWorkspace, Purpose


@dataclass(frozen=True)
class Runner:
    """What starts a command: a keeper, and the program that isolates it."""

    keeper: KeeperProcess
    isolation: Isolation
    program: str
    """The program's path in the keeper."""
    system: Sequence[Mount]
    """What every command sees."""


class KeeperWorkspace(BaseWorkspace):
    """See `coding_tasks.sandbox.interface.Workspace`."""

    def __init__(self, runner: Runner, storage: Storage, *, has_repository: bool) -> None:
        super().__init__(has_repository=has_repository)
        self._keeper = runner.keeper
        self._runner = runner
        self._storage = storage

    async def _begin(
        self,
        process: RunningCommand,
        purpose: Purpose,
        command: Command,
        limits: Limits,
        relay: Relay | None = None,
        index: bytes | None = None,
    ) -> None:
        view = self._view(purpose, index).after(self._runner.system)
        isolation = self._runner.isolation
        files = isolation.files(
            self._runner.program, command, limits, view, network=relay is not None
        )
        with ExitStack() as stack:
            given = {
                "arguments": files.arguments,
                "argv": files.argv,
                "filter": files.filter,
                "stdin": files.stdin,
            }
            extra = {} if index is None else {"index": index}
            ours = [
                stack.enter_context(_memory(name, data)).fileno()
                for name, data in (given | extra).items()
            ]
            pipes = {stream: os.pipe() for stream in STREAMS}
            for _, writer in pipes.values():
                stack.callback(os.close, writer)
            outputs = [writer for _, writer in pipes.values()]
            try:
                run, finished = self._keeper.start(
                    lambda number: self._order(number, limits, relay),
                    [*ours[: len(given)], *outputs, *ours[len(given) :]],
                    relay.listen if relay else None,
                )
            except WorkspaceLost:
                for reader, _ in pipes.values():
                    os.close(reader)
                raise
        readers = {stream: reader for stream, (reader, _) in pipes.items()}
        process.follow(finished, readers, lambda: self._keeper.kill(run))

    def _view(self, purpose: Purpose, index: bytes | None) -> View:
        match purpose:
            case Purpose.TASK:
                return TASK
            case Purpose.EXPORT:
                file = "" if index is None else export.INDEX_NAME
                return View(
                    (
                        Bind(layout.TREE, TREE_INSIDE),
                        Bind(layout.REPOSITORY, export.REPOSITORY_INSIDE),
                        Scratch(export.HOME_INSIDE, self._storage.tree_bytes, file),
                    ),
                    TREE_INSIDE,
                )
            case Purpose.SAVE | Purpose.RESTORE:
                return View((Bind(layout.HOME, HOME_INSIDE, purpose is Purpose.RESTORE),))

    def _order(self, number: int, limits: Limits, relay: Relay | None) -> Start:
        return Start(
            run=number,
            isolation=self._runner.isolation.name,
            network=relay is not None,
            port=GATEWAY_PORT_INSIDE,
            memory=limits.memory,
            cpu_seconds=limits.cpu_seconds,
            resources=self._runner.isolation.resources(limits),
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
