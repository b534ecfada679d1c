"""The sandbox made of containers: whether it works here, and workspaces."""

import contextlib
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from coding_tasks.sandbox.docker import options
from coding_tasks.sandbox.docker.client import Client
from coding_tasks.sandbox.docker.workspace import DockerWorkspace, opened
from coding_tasks.sandbox.errors import SandboxMissing, WorkspaceFailed
from coding_tasks.sandbox.host import UNPRIVILEGED, check_mount, check_owner
from coding_tasks.sandbox.interface import Storage
from coding_tasks.sandbox.probe import ProbedSandbox, try_out

_DEFAULT_STORAGE = Storage()
_NEEDS = "the worker must reach a Docker engine on this machine, and SANDBOX_IMAGE must be there"


class Docker(ProbedSandbox):
    """See `coding_tasks.sandbox.interface.Sandbox`.

    `unprivileged` is the uid and the gid of containers if this process is root. Otherwise they run
    as the user of this process. The engine must be on this machine, since it opens the same paths.
    """

    def __init__(self, image: str, runtime: str = "", unprivileged: int = UNPRIVILEGED) -> None:
        self._image = image
        self._runtime = runtime
        super().__init__(unprivileged, self._try, _NEEDS)

    @asynccontextmanager
    async def open(
        self,
        tree: Path | None,
        *,
        repository: Path | None = None,
        mounts: Mapping[str, Path] | None = None,
        storage: Storage = _DEFAULT_STORAGE,
    ) -> AsyncIterator[DockerWorkspace]:
        """See `Sandbox.open`."""
        client = self._client()
        for inside, path in (mounts or {}).items():
            check_mount(inside)
            if not path.exists():
                raise WorkspaceFailed(f"No such file or directory: {str(path)!r}")
        if tree is not None:
            check_owner(tree, self.owner)
        name = f"tollgate-{secrets.token_hex(8)}"
        with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
            setup = options.Setup(
                image=self._image,
                runtime=self._runtime,
                name=name,
                owner=self.owner,
                storage=storage,
                folder=Path(folder),
                mounts=mounts or {},
                tree=tree,
                repository=repository,
            )
            async with opened(client, setup) as workspace:
                yield workspace

    def _client(self) -> Client:
        if sys.platform != "linux":
            raise SandboxMissing("containers need Linux")
        if not self._image:
            raise SandboxMissing("SANDBOX_IMAGE must name an image")
        return Client.find()

    async def _try(self) -> str | None:
        """Remove what killed workers left, then return what is wrong with a workspace."""
        client = self._client()
        if left := (await client.ask(*options.leftovers())).split():
            with contextlib.suppress(WorkspaceFailed):  # another worker was first
                await client.ask("volume", "rm", *left)
        return await try_out(self.open(None))
