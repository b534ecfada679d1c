"""What the host's folders must be like before a sandbox sees them."""

import os
from pathlib import Path, PurePosixPath

from coding_tasks.sandbox.errors import WorkspaceFailed

UNPRIVILEGED = 64_646
"""The user and group of sandboxes whose worker is root. No account should have it."""


def owner_of_trees(unprivileged: int) -> tuple[int, int]:
    """Return the uid and gid: the unprivileged one if this process is root, else its own."""
    if os.geteuid() == 0:
        return unprivileged, unprivileged
    return os.geteuid(), os.getegid()


def check_owner(tree: Path, wanted: tuple[int, int]) -> None:
    """Raise `WorkspaceFailed` unless the tree is there and belongs to this user."""
    try:
        owner = tree.stat().st_uid
    except OSError as error:
        raise WorkspaceFailed(f"the checkout is not there: {error}") from error
    if owner != wanted[0]:
        raise WorkspaceFailed(f"the checkout must belong to uid {wanted[0]}, not {owner}")


def check_mount(inside: str) -> None:
    """Raise `WorkspaceFailed` unless the path is absolute, normalized and without `..`."""
    pure = PurePosixPath(inside)
    if not pure.is_absolute() or ".." in pure.parts or str(pure) != inside:
        raise WorkspaceFailed(f"not a path inside the sandbox: {inside!r}")
