"""The arguments for bubblewrap: what a command sees, and what it can do."""

import resource
from collections.abc import Mapping

from coding_tasks.sandbox.interface import Limits
from coding_tasks.sandbox.keepers.isolation import EXTRA_DESCRIPTOR
from coding_tasks.sandbox.keepers.view import UID_INSIDE, Bind, Link, Mount, Scratch, View

_OWN_PROCESSES = 8
"""Processes of bubblewrap and the keeper that count as the command's."""

ISOLATION = (
    "--unshare-user",
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup",
    "--disable-userns",
    "--die-with-parent",
    "--new-session",
    *("--cap-drop", "ALL"),
    *("--uid", str(UID_INSIDE), "--gid", str(UID_INSIDE), "--hostname", "sandbox"),
)
NO_NETWORK = ("--unshare-net",)
"""Commands with a door get a network namespace from the keeper instead."""
DEVICES = (*("--proc", "/proc"), *("--dev", "/dev"))
SEALED = (*("--remount-ro", "/dev"), *("--remount-ro", "/"))
"""After everything is mounted. What is left writable has a size."""


def shown(view: View) -> list[str]:
    """Return arguments that show this view, and where the command starts in it."""
    mounts = [part for mount in view.mounts for part in _mount(mount)]
    return [*DEVICES, *mounts, *SEALED, "--chdir", view.folder]


def _mount(mount: Mount) -> tuple[str, ...]:
    match mount:
        case Bind(source, target, writable):
            return ("--bind" if writable else "--ro-bind", source, target)
        case Link(path, leads_to):
            return ("--symlink", leads_to, path)
        case Scratch(path, size, file):
            filled = ("--file", str(EXTRA_DESCRIPTOR), f"{path}/{file}") if file else ()
            return ("--size", str(size), "--tmpfs", path, *filled)


def environment(variables: Mapping[str, str]) -> list[str]:
    """Return arguments that set the whole environment. They hold secrets."""
    return [
        "--clearenv",
        *(part for name, value in variables.items() for part in ("--setenv", name, value)),
    ]


def resources(limits: Limits) -> list[tuple[int, int]]:
    """Return the limits that the kernel enforces, as `setrlimit` takes them.

    They are set before bubblewrap makes its user namespace, in which the command's processes are
    then counted.
    """
    return [
        (resource.RLIMIT_NPROC, limits.processes + _OWN_PROCESSES),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_FSIZE, limits.file_size),
        (resource.RLIMIT_CPU, int(limits.cpu_seconds) + 1),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 8_000_000),
        (resource.RLIMIT_MSGQUEUE, 800_000),
    ]
