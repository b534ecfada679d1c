"""Shared checkouts: the files of one commit, written out once for all runs that start from it.

A run puts a writable layer over a checkout and never writes to the checkout itself. A run that uses
one holds a lease, which keeps it from being evicted.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

import structlog
from django.conf import settings

from coding_tasks.failures import CheckoutFailed, UnpackingFailed
from coding_tasks.repositories.bounds import BOUNDS, Bounds, require_within
from coding_tasks.repositories.file_locks import locked
from coding_tasks.repositories.git import Git
from coding_tasks.repositories.mirrors import LOCAL, MOST_MEMORY, Base, Mirrors
from coding_tasks.repositories.remotes import Remote
from coding_tasks.repositories.trees import measure_tree, remove_tree

log = structlog.get_logger(__name__)

LEASE = timedelta(hours=2)
"""How long a run holds a checkout without renewing its lease."""
_EMPTY = "empty"
"""The name of the checkout of a repository without commits."""
_NEW, _OLD = "new-", "old-"
_LEASES, _SIZE = "leases", "size"
# A file counts as unchanged if size and time are: the layer over it changes everything else.
_CONFIGURATION = ("core.checkStat=minimal", "core.trustctime=false")


@dataclass(frozen=True)
class SharedCheckout:
    """A clone at one commit, with its `.git`. Nobody may write to it."""

    path: Path
    commit: str
    """Empty if the repository has no commit."""


@dataclass(frozen=True)
class SharedCheckouts:
    """The checkouts below one directory, shared by all processes of a machine.

    `owner` is the user and group that the files get, if this process may give them away: a layer
    over a file lets only the file's owner change it.
    """

    directory: Path
    owner: tuple[int, int] | None = None
    timeout: timedelta = timedelta(minutes=5)
    bounds: Bounds = BOUNDS
    most_memory: int = MOST_MEMORY

    @classmethod
    def from_settings(cls, owner: tuple[int, int] | None = None) -> Self:
        """Return the checkouts of this machine."""
        return cls(Path(settings.REPOSITORIES_DIRECTORY), owner)

    def provide(
        self, mirrors: Mirrors, remote: Remote, base: Base, *, holder: str
    ) -> SharedCheckout:
        """Return the checkout of a commit, writing it out if needed, with a lease for the holder.

        Raises `CheckoutFailed`.
        """
        deadline = time.monotonic() + self.timeout.total_seconds()
        folder = self._folder / f"{remote.folder}-{base.commit or _EMPTY}"
        shared = SharedCheckout(folder / "repository", base.commit)
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = self._lock(folder)
        with locked(lock, deadline, exclusive=False):
            if folder.is_dir():
                self.renew(shared, holder)
                return shared
        with locked(lock, deadline, exclusive=True):
            if not folder.is_dir():
                self._make(mirrors, remote, base, folder, deadline)
            self.renew(shared, holder)
            return shared

    def renew(self, shared: SharedCheckout, holder: str) -> None:
        """Extend the holder's lease. Raises `CheckoutFailed` if the checkout is gone."""
        try:
            self._lease(shared, holder).touch()
        except FileNotFoundError as error:
            raise CheckoutFailed("the checkout is gone") from error

    def release(self, shared: SharedCheckout, holder: str) -> None:
        """End the holder's lease."""
        self._lease(shared, holder).unlink(missing_ok=True)

    def evict(self, *, older_than: timedelta, most_bytes: int) -> int:
        """Remove checkouts that are old or, oldest first, more than so many bytes together.

        Those with a lease stay. Returns the number removed.
        """
        now = time.time()
        found = sorted(self._found(), key=lambda each: each.used)
        size = sum(each.size for each in found)
        removed = 0
        for each in found:
            if each.used > now - older_than.total_seconds() and size <= most_bytes:
                continue
            if self._evict(each.folder, now):
                size -= each.size
                removed += 1
        for left in (*self._folder.glob(f"{_OLD}*"), *self._folder.glob(f"{_NEW}*")):
            if left.stat().st_mtime < now - 2 * self.timeout.total_seconds():
                remove_tree(left)
        return removed

    @property
    def _folder(self) -> Path:
        return self.directory / "checkouts"

    def _lock(self, folder: Path) -> Path:
        """Return the lock file of the remote: few files, although there are many commits."""
        return self._folder / f".{folder.name.partition('-')[0]}.lock"

    def _lease(self, shared: SharedCheckout, holder: str) -> Path:
        name = hashlib.sha256(holder.encode()).hexdigest()[:32]
        return shared.path.parent / _LEASES / name

    def _found(self) -> Iterator["_Found"]:
        for folder in self._folder.glob("*-*"):
            if folder.name.startswith((_NEW, _OLD, ".")):
                continue
            try:
                used = (folder / _LEASES).stat().st_mtime
                yield _Found(folder, used, int((folder / _SIZE).read_text()))
            except (OSError, ValueError):  # evicted meanwhile
                continue

    def _evict(self, folder: Path, now: float) -> bool:
        """Remove a checkout unless somebody holds it. Return whether it was removed."""
        lock = self._lock(folder)
        with locked(lock, time.monotonic() + 1, exclusive=True):
            leases = list((folder / _LEASES).glob("*")) if folder.is_dir() else []
            if any(_mtime(lease) > now - LEASE.total_seconds() for lease in leases):
                return False
            old = Path(tempfile.mkdtemp(prefix=_OLD, dir=self._folder)) / folder.name
            folder.rename(old)
        remove_tree(old.parent)  # this can take minutes, so the lock is free again
        return True

    def _make(
        self, mirrors: Mirrors, remote: Remote, base: Base, folder: Path, deadline: float
    ) -> None:
        """Write the checkout out. If the mirror turns out to be damaged, fetch it anew."""
        try:
            self._write(mirrors, remote, base, folder, deadline)
        except UnpackingFailed as error:
            if not error.permanent:
                raise
            log.warning("a mirror is made anew", url=remote.url, reason=str(error))
            mirrors.rebuild(remote)
            self._write(mirrors, remote, base, folder, deadline)

    def _write(
        self, mirrors: Mirrors, remote: Remote, base: Base, folder: Path, deadline: float
    ) -> None:
        new = Path(tempfile.mkdtemp(prefix=_NEW, dir=self._folder))
        try:
            git = Git(new, deadline, self.bounds, self.most_memory)
            init = ("init", "--quiet", "--template=", "--initial-branch=main")
            git.run(*init, str(git.target)).require_success()
            for setting in _CONFIGURATION:
                git.run("config", *setting.split("="), within=git.target).require_success()
            if base.commit:
                self._unpack(git, mirrors, remote, base)
            size = measure_tree(new, self.bounds.entries * 2).size
            (new / _SIZE).write_text(str(size))
            (new / _LEASES).mkdir()
            self._give_away(git.target)
            new.chmod(0o755)
            new.rename(folder)
        except BaseException:
            with suppress(OSError):  # `evict` tries again
                remove_tree(new)
            raise

    def _unpack(self, git: Git, mirrors: Mirrors, remote: Remote, base: Base) -> None:
        """Copy the commit, and nothing else, from the mirror, and write its files out."""
        mirrors.ensure(remote, base.commit)
        with mirrors.reading(remote) as mirror:
            fetch = ("fetch", "--quiet", "--no-tags", "--depth=1", "--no-write-fetch-head", "--")
            source = (f"file://{mirror.path}", f"{base.commit}:refs/heads/base")
            git.run(*fetch, *source, within=git.target, environment=LOCAL).require_success()
        with git.listing(base.commit) as listing:
            require_within(self.bounds, listing)
        links = ("-c", "core.symlinks=true")
        git.run(
            *links, "checkout", "--quiet", "--detach", base.commit, within=git.target
        ).require_success()

    def _give_away(self, path: Path) -> None:
        """Make the owner the owner of all files, if this process may."""
        if self.owner is None or os.geteuid() != 0:
            return
        os.chown(path, *self.owner)
        for parent, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(os.path.join(parent, name), *self.owner, follow_symlinks=False)


@dataclass(frozen=True)
class _Found:
    """A checkout, when it was last used (seconds since 1970), and its size in bytes."""

    folder: Path
    used: float
    size: int


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # released meanwhile
        return 0.0
