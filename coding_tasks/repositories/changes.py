"""Commit an agent's change, which arrives as a patch of bytes that nobody has looked at.

No working tree is written: git applies the patch to an index in a repository of its own, which
borrows the mirror's objects. Hooks, filters and configuration have nothing to run on.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.conf import settings

from coding_tasks.failures import ChangeRefused, CheckoutFailed, RepositoryTooBig
from coding_tasks.repositories.bounds import require_within
from coding_tasks.repositories.git import Git, printable
from coding_tasks.repositories.mirrors import Base, Mirror, Mirrors, private_folder
from coding_tasks.repositories.remotes import Remote
from coding_tasks.repositories.trees import remove_tree

MOST_PATCH = 10_000_000
"""Bytes of the largest patch that is committed."""
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""git's id of a folder without files."""
_SUBMODULE = b"160000"
_LONGEST_SUBJECT = 72
_LONGEST_NAME = 100
_PLAIN_DIFF = ("--no-renames", "--no-ext-diff", "--no-textconv", "--no-color", "--full-index")


@dataclass(frozen=True)
class Requester:
    """Who asked for the change. Without an address they are named, but not as an author."""

    name: str
    email: str = ""


@dataclass(frozen=True)
class ChangeRequest:
    """A patch against the base, and what its commit says.

    The same request always makes the same commit, so `committed_at` must not be the current time.
    """

    base: Base
    branch: str
    patch: bytes
    subject: str
    requester: Requester
    committed_at: datetime


@dataclass(frozen=True)
class ChangedFile:
    """A file that a change touches. Bytes of the path that are not UTF-8 are escaped."""

    path: str
    added: int
    """Lines. A binary file has none."""
    removed: int


@dataclass(frozen=True)
class Change:
    """A commit on a task's branch in the mirror."""

    commit: str
    parent: str
    branch: str
    files: tuple[ChangedFile, ...]
    patch: bytes
    """What the commit changes, as git writes it. `git apply` takes it."""
    added_text: bytes
    """The patch without context, with every file as text: what secrets are looked for in."""
    description: bytes
    """The commit as git stores it. `restore_change` makes the same commit of it again."""


def commit_change(mirrors: Mirrors, remote: Remote, request: ChangeRequest) -> Change | None:
    """Commit the patch on the branch in the mirror, as the bot; return None if it changes nothing.

    Raises `ChangeRefused` if the patch must not be committed, and `CheckoutFailed`.
    """
    if not request.patch.strip():
        return None
    with _workspace(mirrors, remote, request.base.commit) as work:
        work.apply(request.patch)
        tree = work.tree()
        if tree == work.base_tree:
            return None
        work.check(tree)
        commit = work.commit(tree, _message(request), request.committed_at)
        change = work.describe(commit, request.branch)
        work.hand_over(mirrors, remote, commit, request.branch)
        return change


def restore_change(mirrors: Mirrors, remote: Remote, change: Change) -> None:
    """Make the commit of an earlier change again if the mirror has lost it.

    Raises `CheckoutFailed`, for example if its parent is gone too.
    """
    if mirrors.has(remote, change.commit):
        return
    with _workspace(mirrors, remote, change.parent) as work:
        work.apply(change.patch)
        work.tree()
        commit = work.restore(change.description)
        if commit != change.commit:
            raise CheckoutFailed("an earlier change cannot be made again", permanent=True)
        work.hand_over(mirrors, remote, commit, change.branch)


def revert_change(
    mirrors: Mirrors, remote: Remote, change: Change, tip: str, committed_at: datetime
) -> str:
    """Commit the reverse of a change on top of `tip`; return the commit, which the mirror then has.

    The same arguments always make the same commit. Raises `ChangeRefused` and `CheckoutFailed`.
    """
    with _workspace(mirrors, remote, tip) as work:
        work.apply(change.patch, reverse=True)
        message = f"Undo {change.commit[:12]}\n\nThis reverts commit {change.commit}.\n"
        commit = work.commit(work.tree(), message, committed_at)
        # Not on the task's branch, which is only changed when the repository has taken the commit.
        work.hand_over(mirrors, remote, commit, f"{change.branch}-undo")
        return commit


@contextmanager
def _workspace(mirrors: Mirrors, remote: Remote, base: str) -> Iterator["_Workspace"]:
    """Provide an empty repository that borrows the mirror's objects, at the base's files."""
    private_folder(mirrors.changes)
    if base:
        mirrors.ensure(remote, base)
    elif not mirrors.has(remote, base):
        mirrors.update(remote)
    directory = Path(tempfile.mkdtemp(prefix="change-", dir=mirrors.changes))
    try:
        deadline = time.monotonic() + mirrors.timeout.total_seconds()
        work = _Workspace(Git(directory, deadline, mirrors.bounds, mirrors.most_memory), base)
        with mirrors.reading(remote) as mirror:
            work.borrow(mirror)
            yield work
    finally:
        with suppress(OSError):
            remove_tree(directory)


class _Workspace:
    """A repository for one change, without a working tree."""

    def __init__(self, git: Git, base: str) -> None:
        self._git = git
        self._base = base
        self._place = {
            "GIT_DIR": str(git.target),
            "GIT_INDEX_FILE": str(git.directory / "index"),
        }
        self.base_tree = EMPTY_TREE

    def borrow(self, mirror: Mirror) -> None:
        """Create the repository, and read the base's files into its index."""
        self._done("init", "--bare", "--quiet", "--template=", str(self._git.target))
        (self._git.target / "objects" / "info").mkdir(exist_ok=True)
        alternates = self._git.target / "objects" / "info" / "alternates"
        alternates.write_text(f"{mirror.path / 'objects'}\n")
        with suppress(FileNotFoundError):  # commits whose parents were not fetched
            (self._git.target / "shallow").write_bytes((mirror.path / "shallow").read_bytes())
        if self._base:
            self._done("read-tree", self._base)
            self.base_tree = self._read("rev-parse", f"{self._base}^{{tree}}").decode().strip()

    def apply(self, patch: bytes, *, reverse: bool = False) -> None:
        """Apply the patch, or its reverse, to the index. Raises `ChangeRefused`."""
        if len(patch) > MOST_PATCH:
            raise ChangeRefused(f"The change is larger than {MOST_PATCH // 1_000_000} MB.")
        ended = self._git.run(
            "apply",
            "--cached",
            "--binary",
            "--whitespace=nowarn",
            *(["--reverse"] if reverse else []),
            "-",
            given=patch,
            environment=self._place,
        )
        if ended.status:
            try:
                ended.require_success()
            except RepositoryTooBig as error:
                raise ChangeRefused("The change is too large.") from error
            except CheckoutFailed as error:
                if not error.permanent:
                    raise
                raise ChangeRefused(f"The change cannot be applied: {error}") from error

    def tree(self) -> str:
        """Write the index as a tree; return its id."""
        return self._read("write-tree").decode().strip()

    def check(self, tree: str) -> None:
        """Raise `ChangeRefused` if the files are too many or too large, or submodules change."""
        with self._git.listing(tree, self._place) as listing:
            try:
                require_within(self._git.bounds, listing)
            except RepositoryTooBig as error:
                why = str(error).removeprefix(f"{error.summary}: ")
                raise ChangeRefused(f"The change makes the repository too big: {why}.") from error
        raw = self._read("diff-tree", "-r", "-z", "--no-renames", self.base_tree, tree)
        for described, path in _pairs(raw):
            modes = described.lstrip(b":").split()[:2]
            if _SUBMODULE in modes or path == b".gitmodules":
                shown = printable(_text(path))
                raise ChangeRefused(
                    f"The change touches a submodule or contains another repository: {shown}."
                )

    def commit(self, tree: str, message: str, when: datetime) -> str:
        """Commit the tree as the bot; return the commit's id."""
        parents = ["-p", self._base] if self._base else []
        date = f"{int(when.timestamp())} +0000"
        person = {
            f"GIT_{role}_{key}": value
            for role in ("AUTHOR", "COMMITTER")
            for key, value in (
                ("NAME", settings.COMMIT_NAME),
                ("EMAIL", settings.COMMIT_EMAIL),
                ("DATE", date),
            )
        }
        made = self._read(
            "commit-tree", *parents, "-F", "-", tree, given=message.encode(), environment=person
        )
        return made.decode().strip()

    def restore(self, description: bytes) -> str:
        """Store a commit that was described before; return its id."""
        stored = self._read("hash-object", "-t", "commit", "-w", "--stdin", given=description)
        return stored.decode().strip()

    def describe(self, commit: str, branch: str) -> Change:
        """Return what the commit changes.

        Raises `ChangeRefused` if that cannot be shown: a small patch can change a huge file.
        """
        try:
            return self._describe(commit, branch)
        except RepositoryTooBig as error:
            raise ChangeRefused("The change is too large to be shown.") from error

    def _describe(self, commit: str, branch: str) -> Change:
        trees = (self.base_tree, commit)
        return Change(
            commit=commit,
            parent=self._base,
            branch=branch,
            files=tuple(_files(self._read("diff-tree", "-r", "-z", "--numstat", *trees))),
            patch=self._read("diff-tree", "-p", "--binary", *_PLAIN_DIFF, *trees),
            added_text=self._read("diff-tree", "-p", "--text", "-U0", *_PLAIN_DIFF, *trees),
            description=self._read("cat-file", "commit", commit),
        )

    def hand_over(self, mirrors: Mirrors, remote: Remote, commit: str, branch: str) -> None:
        """Add the commit to the mirror as its branch."""
        self._done("update-ref", "refs/heads/change", commit)
        with mirrors.reading(remote) as mirror:
            mirror.add_branch(self._git.target, branch)

    def _done(self, *arguments: str) -> None:
        self._git.run(*arguments, environment=self._place).require_success()

    def _read(
        self,
        *arguments: str,
        given: bytes | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> bytes:
        place = self._place | dict(environment or {})
        return self._git.read(*arguments, given=given, environment=place)


def _message(request: ChangeRequest) -> str:
    """Return the commit's message. People's words stay within its first line and its trailer."""
    subject = printable(request.subject)[:_LONGEST_SUBJECT].strip() or "Change what was asked for"
    name = _plain(request.requester.name) or "unknown"
    email = _plain(request.requester.email)
    trailer = f"Co-authored-by: {name} <{email}>" if email else f"Requested-by: {name}"
    return f"{subject}\n\n{trailer}\n"


def _plain(text: str) -> str:
    """Return a name or an address without what separates the parts of a trailer."""
    return printable(text.translate({ord(mark): " " for mark in "<>"}))[:_LONGEST_NAME].strip()


def _pairs(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Return the descriptions and paths of `git diff-tree -r -z --no-renames`."""
    parts = raw.rstrip(b"\0").split(b"\0") if raw else []
    return zip(parts[0::2], parts[1::2], strict=True)


def _files(numbers: bytes) -> Iterator[ChangedFile]:
    """Read the output of `git diff-tree -z --numstat`."""
    for record in numbers.split(b"\0"):
        if record:
            added, removed, path = record.split(b"\t", 2)
            yield ChangedFile(_text(path), _count(added), _count(removed))


def _count(number: bytes) -> int:
    return int(number) if number.isdigit() else 0


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
