"""A sandbox whose workspaces keepers hold: whether it works here, and workspaces."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from coding_tasks.sandbox.host import UNPRIVILEGED, check_mount, check_owner
from coding_tasks.sandbox.interface import Storage
from coding_tasks.sandbox.keepers import view
from coding_tasks.sandbox.keepers.isolation import Isolation
from coding_tasks.sandbox.keepers.keeper import layout
from coding_tasks.sandbox.keepers.keeper.mounts import Plan, Size
from coding_tasks.sandbox.keepers.keeper_process import KeeperProcess
from coding_tasks.sandbox.keepers.workspace import KeeperWorkspace, Runner
from coding_tasks.sandbox.probe import ProbedSandbox, try_out

_ANY_FOLDER = Path("/usr/bin")
_DEFAULT_STORAGE = Storage()


class KeeperSandbox(ProbedSandbox):
    """See `coding_tasks.sandbox.interface.Sandbox`.

    `unprivileged` is the uid and the gid of sandboxes if this process is root. Otherwise they run
    as the user of this process.
    """

    def __init__(self, isolation: Isolation, unprivileged: int = UNPRIVILEGED) -> None:
        self._isolation = isolation
        super().__init__(unprivileged, self._try, isolation.needs)

    @asynccontextmanager
    async def open(
        self,
        tree: Path | None,
        *,
        repository: Path | None = None,
        mounts: Mapping[str, Path] | None = None,
        storage: Storage = _DEFAULT_STORAGE,
    ) -> AsyncIterator[KeeperWorkspace]:
        """See `Sandbox.open`."""
        for inside in mounts or {}:
            check_mount(inside)
        if tree is not None:
            check_owner(tree, self.owner)
        async with self._opened(tree, repository, mounts or {}, storage) as workspace:
            yield workspace

    @asynccontextmanager
    async def _opened(
        self,
        tree: Path | None,
        repository: Path | None,
        mounts: Mapping[str, Path],
        storage: Storage,
    ) -> AsyncIterator[KeeperWorkspace]:
        program = self._isolation.find()
        shown = {**view.python_mounts(), **mounts}
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
        system = [*view.system(), *view.binds(shown), view.python_link()]
        runner = Runner(keeper, self._isolation, f"{layout.BINDS}/{program.path}", system)
        try:
            yield KeeperWorkspace(runner, storage, has_repository=repository is not None)
        finally:
            await asyncio.shield(keeper.close())

    async def _try(self) -> str | None:
        """Return what is wrong with a workspace above a folder of the host."""
        return await try_out(self._opened(_ANY_FOLDER, None, {}, Storage()))
