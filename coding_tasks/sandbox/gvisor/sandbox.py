"""The sandbox made of gVisor's runsc, which runs commands on its own kernel in user space."""

import platform
import resource
import shutil
import sys
from pathlib import Path

from coding_tasks.sandbox import seccomp
from coding_tasks.sandbox.command import Command
from coding_tasks.sandbox.errors import SandboxMissing
from coding_tasks.sandbox.gvisor import bundle
from coding_tasks.sandbox.host import UNPRIVILEGED
from coding_tasks.sandbox.interface import Limits
from coding_tasks.sandbox.keepers.isolation import Files, Program, joined
from coding_tasks.sandbox.keepers.sandbox import KeeperSandbox
from coding_tasks.sandbox.keepers.view import View


class GVisorIsolation:
    """See `coding_tasks.sandbox.keepers.isolation.Isolation`."""

    name = "gvisor"
    needs = "runsc must be able to start without root; user namespaces must be permitted"

    def find(self) -> Program:
        """See `Isolation.find`."""
        if sys.platform != "linux":
            raise SandboxMissing("gVisor needs Linux")
        if platform.machine() not in seccomp.machines():
            raise SandboxMissing(f"there is no filter for system calls on {platform.machine()}")
        found = shutil.which("runsc")
        if found is None:
            raise SandboxMissing("gVisor is not installed: there is no runsc on the PATH")
        path = Path(found).resolve()
        return Program((path.parent,), f"{path.parent.name}/{path.name}")

    def resources(self, limits: Limits) -> list[tuple[int, int]]:
        """See `Isolation.resources`. The command's own limits are set inside."""
        return [(resource.RLIMIT_CORE, 0)]

    def files(
        self, program: str, command: Command, limits: Limits, view: View, *, network: bool
    ) -> Files:
        """See `Isolation.files`."""
        return Files(
            argv=joined([program, *bundle.flags(network=network)]),
            arguments=bundle.write(limits, view),
            stdin=bundle.given(command) + command.stdin,
        )


class GVisor(KeeperSandbox):
    """The stronger sandbox, for operators who chose it. See `KeeperSandbox` for `unprivileged`."""

    def __init__(self, unprivileged: int = UNPRIVILEGED) -> None:
        super().__init__(GVisorIsolation(), unprivileged)
