"""The arguments for bubblewrap: what a command sees, and what it can do."""

import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from coding_tasks.sandbox.bubblewrap.keeper import layout
from coding_tasks.sandbox.command import HOME_INSIDE, TREE_INSIDE
from coding_tasks.sandbox.interface import Limits

UID_INSIDE = 1000
"""Not root, because some agents refuse to work as root."""
_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Folders of the root that are links to below /usr on most systems."""
_SETTINGS = (
    *("alternatives", "ca-certificates", "ld.so.cache", "localtime", "mime.types"),
    *("ssl/certs", "ssl/openssl.cnf", "pki/tls/certs", "pki/ca-trust/extracted"),
)
"""What programs need of /etc. No host names, users, services or private keys."""
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
SEALED = (*("--remount-ro", "/dev"), *("--remount-ro", "/"))
"""After everything is mounted. What is left writable has a size."""
TASK = (
    *("--bind", layout.TREE, TREE_INSIDE),
    *("--bind", layout.HOME, HOME_INSIDE),
    *("--bind", layout.TEMPORARY_FILES, "/tmp"),  # noqa: S108 - the workspace's own
    *("--bind", layout.SHARED_MEMORY, "/dev/shm"),  # noqa: S108 - the workspace's own
    *("--chdir", TREE_INSIDE),
)
PYTHON_FOLDER_INSIDE = "/opt/python"


def system() -> list[str]:
    """Return arguments that show the host's programs, and nothing of its data."""
    arguments = ["--proc", "/proc", "--dev", "/dev", "--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM:
        folder = Path("/", name)
        if folder.is_symlink():
            arguments += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            arguments += ["--ro-bind", str(folder), str(folder)]
    for name in _SETTINGS:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for name in layout.ETC_FILES:
        arguments += ["--ro-bind", f"{layout.ETC}/{name}", f"/etc/{name}"]
    return [*arguments, "--dir", "/var", "--symlink", "/tmp", "/var/tmp"]  # noqa: S108 - inside


def mounts(wanted: Sequence[tuple[str, str]]) -> list[str]:
    """Return arguments that show these folders or files read-only: from, to."""
    return [part for source, target in wanted for part in ("--ro-bind", source, target)]


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


def python_mounts() -> dict[str, Path]:
    """Return what must be mounted for the worker's own Python, under its own path.

    A Python can refer to its libraries by absolute paths. One below /usr is there already.
    """
    folder = Path(sys.base_prefix).resolve()
    return {} if folder.is_relative_to("/usr") else {str(folder): folder}


def python_link() -> list[str]:
    """Return arguments that show the worker's own Python at a fixed path."""
    return ["--symlink", str(Path(sys.base_prefix).resolve()), PYTHON_FOLDER_INSIDE]


def is_clean(path: str) -> bool:
    """Return whether a path inside is absolute, and no part of it leads elsewhere."""
    pure = PurePosixPath(path)
    return pure.is_absolute() and ".." not in pure.parts and str(pure) == path
