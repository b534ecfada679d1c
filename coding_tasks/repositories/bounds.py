"""Limits on the size of a repository, checked on git's list of files before unpacking any."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from coding_tasks.failures import RepositoryTooBig

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Bounds:
    """The largest repository that is unpacked. Lengths and sizes are in bytes."""

    entries: int = 100_000
    """Files, links, folders and submodules together."""
    depth: int = 100
    path: int = 1_000
    name: int = 255
    size: int = 500_000_000
    """The files and git's own data together."""

    @property
    def listing(self) -> int:
        """The longest list of a repository's files that is read, in bytes."""
        return self.entries * 400


BOUNDS = Bounds()


def require_within(bounds: Bounds, listing: BinaryIO) -> None:
    """Raise `RepositoryTooBig` if the output of `git ls-tree -rtz --long` exceeds the bounds."""
    size = 0
    for entries, record in enumerate(_records(listing, longest=bounds.path + 200), start=1):
        described, _, path = record.partition(b"\t")
        size += _size(described)
        if entries > bounds.entries:
            raise RepositoryTooBig(f"it has more than {bounds.entries} files and folders")
        if size > bounds.size:
            raise RepositoryTooBig(f"its files have more than {bounds.size} bytes")
        if path.count(b"/") > bounds.depth:
            raise RepositoryTooBig(f"its folders are nested more than {bounds.depth} deep")
        if len(path) > bounds.path or len(path.rpartition(b"/")[2]) > bounds.name:
            raise RepositoryTooBig("it has a name or a path that is too long")


def _records(listing: BinaryIO, longest: int) -> Iterator[bytes]:
    rest = b""
    while chunk := listing.read(_CHUNK):
        *records, rest = (rest + chunk).split(b"\0")
        yield from records
        if len(rest) > longest:
            raise RepositoryTooBig("it has a name or a path that is too long")
    if rest:
        yield rest


def _size(described: bytes) -> int:
    """Return the size from `<mode> <type> <object> <size>`; folders and submodules have none."""
    size = described.split()[-1]
    return int(size) if size.isdigit() else 0
