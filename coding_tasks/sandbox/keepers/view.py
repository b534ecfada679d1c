"""What commands see of the host and of their workspace, whatever program isolates them."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coding_tasks.sandbox.command import HOME_INSIDE, TREE_INSIDE
from coding_tasks.sandbox.keepers.keeper import layout

UID_INSIDE = 1000
"""Not root, because some agents refuse to work as root."""
PYTHON_FOLDER_INSIDE = "/opt/python"
_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Folders of the root that are links to folders below /usr on most systems."""
_SETTINGS = (
    *("alternatives", "ca-certificates", "ld.so.cache", "localtime", "mime.types"),
    *("ssl/certs", "ssl/openssl.cnf", "pki/tls/certs", "pki/ca-trust/extracted"),
)
"""What programs need of /etc. No host names, users, services or private keys."""


@dataclass(frozen=True)
class Bind:
    """A folder or a file that the keeper has, shown at another path."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    path: str
    leads_to: str


@dataclass(frozen=True)
class Scratch:
    """A writable folder in memory, gone with the command."""

    path: str
    size: int
    file: str = ""
    """The name of a file in it that is filled from the command's extra descriptor, or ""."""


Mount = Bind | Link | Scratch


@dataclass(frozen=True)
class View:
    """What one command sees, besides /proc and /dev, and the folder where it starts."""

    mounts: Sequence[Mount]
    folder: str = "/"

    def after(self, system: Sequence[Mount]) -> "View":
        """Return a view of the system's mounts, followed by those of this view."""
        return View([*system, *self.mounts], self.folder)


TASK = View(
    (
        Bind(layout.TREE, TREE_INSIDE, writable=True),
        Bind(layout.HOME, HOME_INSIDE, writable=True),
        Bind(layout.TEMPORARY_FILES, "/tmp", writable=True),  # noqa: S108 - the workspace's own
        Bind(layout.SHARED_MEMORY, "/dev/shm", writable=True),  # noqa: S108 - the workspace's own
    ),
    TREE_INSIDE,
)


def system() -> list[Mount]:
    """Return mounts that show the host's programs, and none of its data."""
    shown: list[Mount] = [Bind("/usr", "/usr")]
    for name in _SYSTEM:
        folder = Path("/", name)
        if folder.is_symlink():
            shown.append(Link(str(folder), str(folder.readlink())))
        elif folder.is_dir():
            shown.append(Bind(str(folder), str(folder)))
    settings = [f"/etc/{name}" for name in _SETTINGS]
    shown += [Bind(path, path) for path in settings if Path(path).exists()]
    shown += [Bind(f"{layout.ETC}/{name}", f"/etc/{name}") for name in layout.ETC_FILES]
    return [*shown, Link("/var/tmp", "/tmp")]  # noqa: S108 - inside


def binds(wanted: Mapping[str, Path]) -> list[Mount]:
    """Return mounts that show these paths of the host. The keeper has them by number."""
    return [Bind(f"{layout.BINDS}/{number}", path) for number, path in enumerate(wanted)]


def python_mounts() -> dict[str, Path]:
    """Return what must be mounted for the worker's own Python, at the same path as outside.

    Python can refer to its libraries by absolute paths. A Python below /usr is there already.
    """
    folder = Path(sys.base_prefix).resolve()
    return {} if folder.is_relative_to("/usr") else {str(folder): folder}


def python_link() -> Link:
    """Return a link that shows the worker's own Python at a fixed path."""
    return Link(PYTHON_FOLDER_INSIDE, str(Path(sys.base_prefix).resolve()))
