"""The sandbox made of bubblewrap: whether it works here, and workspaces."""

import asyncio
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from coding_tasks.sandbox.bubblewrap import arguments, binary, seccomp
from coding_tasks.sandbox.bubblewrap.keeper import layout
from coding_tasks.sandbox.bubblewrap.keeper.mounts import Plan, Size
from coding_tasks.sandbox.bubblewrap.keeper_process import KeeperProcess
from coding_tasks.sandbox.bubblewrap.workspace import BubblewrapWorkspace, View
from coding_tasks.sandbox.command import PYTHON_INSIDE, Command
from coding_tasks.sandbox.errors import SandboxError, SandboxMissing, WorkspaceFailed
from coding_tasks.sandbox.interface import Limits, Storage

UNPRIVILEGED = 64_646
"""The user and group of sandboxes whose worker is root. No account should have it."""
_PROBE = """
import socket, sys
open("/work/written", "w").close()
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2)
except OSError:
    print("isolated")
"""
_HINT = "user namespaces, and mounts in them, must be permitted"
_ANY_FOLDER = Path("/usr/bin")
_PROBE_LIMITS = Limits(seconds=30)
_DEFAULT_STORAGE = Storage()
ASK_AGAIN_AFTER = 60.0
"""Seconds until a sandbox that did not work is tried again."""


class Bubblewrap:
    """See `coding_tasks.sandbox.interface.Sandbox`.

    `unprivileged` is the uid and the gid of sandboxes if this process is root. Otherwise they run
    as the user of this process.
    """

    def __init__(self, unprivileged: int = UNPRIVILEGED) -> None:
        self._unprivileged = unprivileged
        self._probing = threading.Lock()
        self._reason: str | None = "not tried yet"
        self._ask_again_at = 0.0

    @property
    def owner(self) -> tuple[int, int]:
        """See `Sandbox.owner`."""
        if os.geteuid() == 0:
            return self._unprivileged, self._unprivileged
        return os.geteuid(), os.getegid()

    def why_missing(self) -> str | None:
        """See `Sandbox.why_missing`."""
        with self._probing:
            if self._reason is not None and time.monotonic() >= self._ask_again_at:
                self._reason = _in_a_thread(self._probe)
                self._ask_again_at = time.monotonic() + ASK_AGAIN_AFTER
            return self._reason

    @asynccontextmanager
    async def open(
        self,
        tree: Path | None,
        *,
        repository: Path | None = None,
        mounts: Mapping[str, Path] | None = None,
        storage: Storage = _DEFAULT_STORAGE,
    ) -> AsyncIterator[BubblewrapWorkspace]:
        """See `Sandbox.open`."""
        _check_machine()
        for inside in mounts or {}:
            if not arguments.is_clean(inside):
                raise WorkspaceFailed(f"not a path inside the sandbox: {inside!r}")
        if tree is not None:
            self._check_owner(tree)
        async with self._opened(tree, repository, mounts or {}, storage) as workspace:
            yield workspace

    @asynccontextmanager
    async def _opened(
        self,
        tree: Path | None,
        repository: Path | None,
        mounts: Mapping[str, Path],
        storage: Storage,
    ) -> AsyncIterator[BubblewrapWorkspace]:
        program = binary.find()
        shown = {**arguments.python_mounts(), **mounts}
        uid, gid = self.owner
        plan = Plan(
            uid=uid,
            gid=gid,
            tree=None if tree is None else str(tree),
            repository=None if repository is None else str(repository),
            binds={
                **{folder.name: str(folder) for folder in program.folders},
                **{str(number): str(path) for number, path in enumerate(shown.values())},
            },
            tree_size=Size(storage.tree_bytes, storage.tree_files),
            home_size=Size(storage.home_bytes, storage.home_files),
            temporary_size=Size(storage.temporary_bytes, storage.temporary_files),
        )
        keeper = await KeeperProcess.spawn(plan)
        binds = [(f"{layout.BINDS}/{number}", inside) for number, inside in enumerate(shown)]
        view = View(
            program=f"{layout.BINDS}/{program.path}",
            system=[*arguments.system(), *arguments.mounts(binds), *arguments.python_link()],
            filter=seccomp.build(),
            has_repository=repository is not None,
        )
        try:
            yield BubblewrapWorkspace(keeper, view, storage)
        finally:
            await asyncio.shield(keeper.close())

    def _check_owner(self, tree: Path) -> None:
        try:
            owner = tree.stat().st_uid
        except OSError as error:
            raise WorkspaceFailed(f"the checkout is not there: {error}") from error
        if owner != self.owner[0]:
            raise WorkspaceFailed(f"the checkout must belong to uid {self.owner[0]}, not {owner}")

    async def _probe(self) -> str | None:
        """Run a command that writes above a folder of the host, and tries to reach a port of it.

        Return what is wrong.
        """
        _check_machine()
        with socket.create_server(("127.0.0.1", 0)) as host:
            port = host.getsockname()[1]
            command = Command((PYTHON_INSIDE, "-I", "-S", "-c", _PROBE, str(port)), {})
            async with (
                self._opened(_ANY_FOLDER, None, {}, Storage()) as workspace,
                workspace.start(command, _PROBE_LIMITS) as process,
            ):
                said = [line.text async for line in process.lines()]
                ended = await process.wait()
        if said == ["isolated"] and ended.status == 0:
            return None
        return f"a command in the sandbox was not isolated, or failed: {' '.join(said)[-500:]!r}"


def _check_machine() -> None:
    if sys.platform != "linux":
        raise SandboxMissing("bubblewrap needs Linux")
    if platform.machine() not in seccomp.machines():
        raise SandboxMissing(f"there is no filter for system calls on {platform.machine()}")


def _in_a_thread(probe: Callable[[], Coroutine[Any, Any, str | None]]) -> str | None:
    """Return what the probe says. The caller may be in an event loop, so it gets one of its own."""
    reasons: list[str | None] = []

    def work() -> None:
        try:
            reasons.append(asyncio.run(probe()))
        except SandboxMissing as error:
            reasons.append(str(error))
        except (SandboxError, OSError) as error:
            reasons.append(f"{error} ({_HINT})")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return reasons[0] if reasons else "the probe failed"
