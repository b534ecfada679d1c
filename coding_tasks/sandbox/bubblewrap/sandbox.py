"""The sandbox made of bubblewrap: namespaces of the host's own kernel."""

import platform
import sys

from coding_tasks.sandbox import seccomp
from coding_tasks.sandbox.bubblewrap import arguments, binary
from coding_tasks.sandbox.command import Command
from coding_tasks.sandbox.errors import SandboxMissing
from coding_tasks.sandbox.host import UNPRIVILEGED
from coding_tasks.sandbox.interface import Limits
from coding_tasks.sandbox.keepers.isolation import Files, Program, joined
from coding_tasks.sandbox.keepers.sandbox import KeeperSandbox
from coding_tasks.sandbox.keepers.view import View


class BubblewrapIsolation:
    """See `coding_tasks.sandbox.keepers.isolation.Isolation`."""

    name = "bubblewrap"
    needs = "user namespaces, and mounts in them, must be permitted"

    def find(self) -> Program:
        """See `Isolation.find`."""
        if sys.platform != "linux":
            raise SandboxMissing("bubblewrap needs Linux")
        if platform.machine() not in seccomp.machines():
            raise SandboxMissing(f"there is no filter for system calls on {platform.machine()}")
        return binary.find()

    def resources(self, limits: Limits) -> list[tuple[int, int]]:
        """See `Isolation.resources`."""
        return arguments.resources(limits)

    def files(
        self, program: str, command: Command, limits: Limits, view: View, *, network: bool
    ) -> Files:
        """See `Isolation.files`."""
        visible = [
            program,
            *arguments.ISOLATION,
            *(() if network else arguments.NO_NETWORK),
            *arguments.shown(view),
            "--",
            *command.argv,
        ]
        return Files(
            argv=joined(visible),
            arguments=joined(arguments.environment(command.environment)),
            stdin=command.stdin,
            filter=seccomp.build(),
        )


class Bubblewrap(KeeperSandbox):
    """The default sandbox. See `KeeperSandbox` for `unprivileged`."""

    def __init__(self, unprivileged: int = UNPRIVILEGED) -> None:
        super().__init__(BubblewrapIsolation(), unprivileged)
