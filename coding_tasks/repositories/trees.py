"""Measure and remove untrusted folders, of any depth and with any names and permissions.

Nothing here recurses, so nesting costs list entries and not stack frames.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class TreeSize:
    """The size of a folder's contents: entries, folders included, and bytes."""

    entries: int
    size: int


def measure_tree(root: Path, most_entries: int) -> TreeSize:
    """Return the size of the folder. Counting stops at more than `most_entries` entries."""
    entries = size = 0
    for entry in islice(_walk(root), most_entries + 1):
        entries += 1
        with suppress(OSError):  # git renames its temporary files
            size += entry.stat(follow_symlinks=False).st_size
    return TreeSize(entries, size)


def _walk(root: Path) -> Iterator[os.DirEntry[str]]:
    waiting = [str(root)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as inside:
            for entry in inside:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def remove_tree(path: Path) -> None:
    """Remove a folder and everything in it. Raise `OSError` if something cannot be removed.

    Nested folders are first moved to the top. So only two folders are open at a time, and no path
    is longer than one name: the limits on path lengths and open files don't matter. No other
    process should write to the folder meanwhile. A missing folder is not an error.
    """
    with suppress(FileNotFoundError):
        _make_writable(str(path))
        top = os.open(path, _FOLDER)
        try:
            _Removal(top).run()
        finally:
            os.close(top)
        os.rmdir(path)


class _Removal:
    """Empties one folder, in passes over its direct entries."""

    def __init__(self, top: int) -> None:
        self._top = top
        unused = secrets.token_hex(8)
        self._names = (f"{unused}-{number}" for number in count())
        self._failure: OSError | None = None

    def run(self) -> None:
        """Make passes until one changes nothing. Raise the first error of that pass, if any."""
        while self._advances():
            pass
        if self._failure is not None:
            raise self._failure

    def _advances(self) -> bool:
        self._failure = None
        with os.scandir(self._top) as inside:
            return sum(self._remove(entry) for entry in inside) > 0

    def _remove(self, entry: os.DirEntry[str]) -> int:
        """Remove an entry at the top; return the number of successful steps."""
        if not entry.is_dir(follow_symlinks=False):
            return self._try(lambda: os.unlink(entry.name, dir_fd=self._top))
        try:
            _make_writable(entry.name, self._top)
            folder = os.open(entry.name, _FOLDER, dir_fd=self._top)
        except OSError as error:
            self._note(error)
            return 0
        try:
            with os.scandir(folder) as inside:
                steps = sum(self._take_out(found, folder) for found in inside)
        finally:
            os.close(folder)
        return steps + self._try(lambda: os.rmdir(entry.name, dir_fd=self._top))

    def _take_out(self, entry: os.DirEntry[str], folder: int) -> int:
        """Remove a file from a folder, or move a subfolder to the top."""
        if not entry.is_dir(follow_symlinks=False):
            return self._try(lambda: os.unlink(entry.name, dir_fd=folder))

        def move() -> None:
            _make_writable(entry.name, folder)  # moving a folder changes its "..", a write
            os.rename(entry.name, next(self._names), src_dir_fd=folder, dst_dir_fd=self._top)

        return self._try(move)

    def _try(self, step: Callable[[], None]) -> int:
        try:
            step()
        except OSError as error:
            self._note(error)
            return 0
        return 1

    def _note(self, error: OSError) -> None:
        """Remember the first failure of a pass. A missing entry is not a failure."""
        if self._failure is None and not isinstance(error, FileNotFoundError):
            self._failure = error


def _make_writable(folder: str, parent: int | None = None) -> None:
    with suppress(PermissionError):  # another user's folder: remove the rest anyway
        os.chmod(folder, 0o700, dir_fd=parent)
