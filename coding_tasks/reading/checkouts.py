"""Checkouts for the agent that only reads: a fresh clone, removed after the work."""

import os
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Protocol

import structlog

from coding_tasks.failures import RepositoryRefused
from coding_tasks.repositories.bounds import BOUNDS, Bounds, require_within
from coding_tasks.repositories.clone_urls import UnsafeCloneURL, protocol_of
from coding_tasks.repositories.git import Git
from coding_tasks.repositories.trees import remove_tree

log = structlog.get_logger(__name__)

PREFIX = "tollgate-clone-"
_NO_FOLLOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Checkout(Protocol):
    """The files of one repository, as an agent can read them."""

    def files(self) -> Sequence[str]:
        """Return the relative paths of the regular files, in order, without git's own."""
        ...

    def read(self, path: str, limit: int) -> bytes | None:
        """Return up to `limit` bytes of the file, or None if it is not a regular file."""
        ...


class Checkouts(Protocol):
    """Makes checkouts."""

    def checkout(self, clone_url: str) -> AbstractContextManager[Checkout]:
        """Provide a checkout until the block ends. Raises `CheckoutFailed`."""
        ...


class EmptyCheckout:
    """The files of a task without a repository: none."""

    def files(self) -> Sequence[str]:
        """See `Checkout.files`."""
        return ()

    def read(self, path: str, limit: int) -> bytes | None:
        """See `Checkout.read`."""
        return None


@dataclass(frozen=True)
class ClonedCheckout:
    """A clone in a directory of its own. Links are not followed, so nothing outside is read."""

    root: Path
    most_files: int = 20_000
    most_entries: int = BOUNDS.entries

    def files(self) -> list[str]:
        """See `Checkout.files`. Returns at most `most_files`, and only names in UTF-8.

        Git stores names as bytes, but a model can only be given text. At most `most_entries`
        entries of all kinds are looked at.
        """
        found: list[str] = []
        waiting = [PurePosixPath()]
        left = self.most_entries
        while waiting and left > 0:
            folder = waiting.pop()
            entries = _entries(self.root / folder, left)
            left -= len(entries)
            found += [str(folder / entry.name) for entry in entries if _is_file(entry)]
            if len(found) >= self.most_files:
                return found[: self.most_files]
            waiting += [
                folder / entry.name
                for entry in reversed(entries)
                if entry.is_dir(follow_symlinks=False)
            ]
        return found

    def read(self, path: str, limit: int) -> bytes | None:
        """See `Checkout.read`: no component of the path may be a link."""
        parts = Path(path).parts
        if not parts or Path(path).is_absolute() or ".." in parts:
            return None
        try:
            handle = _open_below(self.root, parts)
        except (OSError, ValueError):  # not there, a link on the way, or not a path at all
            return None
        try:
            return os.read(handle, limit) if stat.S_ISREG(os.fstat(handle).st_mode) else None
        finally:
            os.close(handle)


def _entries(folder: Path, most: int) -> list[os.DirEntry[str]]:
    """Return up to `most` entries that can be shown, in order, or none if unreadable."""
    try:
        with os.scandir(folder) as inside:
            shown = [entry for entry in islice(inside, most) if _is_shown(entry.name)]
    except OSError:
        return []
    return sorted(shown, key=lambda entry: entry.name)


def _is_file(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False)


def _is_shown(name: str) -> bool:
    """Return whether a name is UTF-8 and not git's own. Other bytes appear as lone surrogates."""
    return name != ".git" and name == name.encode("utf-8", "ignore").decode()


def _open_below(root: Path, parts: Sequence[str]) -> int:
    """Open the path below the root part by part, without following links."""
    handle = os.open(root, _NO_FOLLOW | os.O_DIRECTORY)
    for number, part in enumerate(parts, start=1):
        kind = os.O_NONBLOCK if number == len(parts) else os.O_DIRECTORY
        parent = handle
        try:
            handle = os.open(part, _NO_FOLLOW | kind, dir_fd=parent)
        finally:
            os.close(parent)
    return handle


@dataclass(frozen=True)
class Cloner:
    """Clones the newest commit into a temporary directory. Runs no code of the repository.

    The list of files is checked before any is unpacked, so a repository that exceeds the bounds
    cannot fill the disk or use up its inodes.
    """

    timeout: timedelta = timedelta(minutes=5)
    bounds: Bounds = BOUNDS
    most_memory: int = 2_000_000_000
    """Bytes of address space for git, which maps the packs it reads."""
    directory: Path | None = None
    """Where to put clones. By default the system's temporary directory."""
    _reported: set[str] = field(default_factory=set, compare=False, repr=False)

    @contextmanager
    def checkout(self, clone_url: str) -> Iterator[ClonedCheckout]:
        """See `Checkouts.checkout`."""
        try:
            protocol_of(clone_url)
        except UnsafeCloneURL as error:
            raise RepositoryRefused(f"the address is refused: {error}") from error
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self.directory))
        try:
            yield ClonedCheckout(self._clone(clone_url, directory))
        finally:
            self._remove(directory)

    def remove_leftovers(self, older_than: timedelta) -> None:
        """Remove clones that killed workers left behind. Log what cannot be removed."""
        directory = self.directory or Path(tempfile.gettempdir())
        for left in directory.glob(f"{PREFIX}*"):
            try:
                found = left.lstat()
            except OSError:
                continue
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if ours and time.time() - found.st_mtime > older_than.total_seconds():
                self._remove(left)

    def _remove(self, directory: Path) -> None:
        """Remove a clone. If that fails, log it once; `remove_leftovers` tries again."""
        try:
            remove_tree(directory)
        except OSError as error:
            if str(directory) not in self._reported:
                self._reported.add(str(directory))
                log.warning("a clone cannot be removed", path=str(directory), error=str(error))

    def _clone(self, url: str, directory: Path) -> Path:
        """Fetch, check the list of files, and only then unpack them; return their folder."""
        deadline = time.monotonic() + self.timeout.total_seconds()
        git = Git(directory, deadline, self.bounds, self.most_memory)
        git.fetch(url)
        if git.has_commit():
            with git.listing() as listing:
                require_within(self.bounds, listing)
            git.unpack()
        return git.target
