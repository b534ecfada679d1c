"""Mirrors: one bare repository per remote, fetched again and not cloned again.

A mirror holds the newest commit of the default branch, and the commits of tasks. It can be thrown
away at any time: what is missing is fetched, and unpublished changes are kept in the database.
"""

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

import structlog
from django.conf import settings

from coding_tasks.failures import (
    ChangeRefused,
    CheckoutFailed,
    RepositoryRefused,
    RepositoryTooBig,
)
from coding_tasks.repositories.bounds import BOUNDS, Bounds
from coding_tasks.repositories.file_locks import locked
from coding_tasks.repositories.git import Ended, Git, printable
from coding_tasks.repositories.remotes import Remote
from coding_tasks.repositories.trees import remove_tree

log = structlog.get_logger(__name__)

MOST_MEMORY = 2_000_000_000
"""Bytes of address space for git, which maps the packs it reads."""
LOCAL = {"GIT_ALLOW_PROTOCOL": "file"}
"""The environment for fetching from a repository of our own."""
_UPSTREAM = "refs/upstream"
_HEADS = "refs/heads/"
_ASKING = "asking-"
_MOST_PACKS = 100
_KNOWN_COMMITS = 50
"""Commits of a task's branch that are fetched, to see whether it contains ours."""
_NOT_AN_ANCESTOR = 1  # the exit status of `git merge-base --is-ancestor`
_FAULT = re.compile(r"^error: object [0-9a-f]+: \w+: (?P<what>.{1,200})$", re.MULTILINE)
"""What git prints about an object that fails its check."""
# Git prints these about files of the mirror itself. LC_ALL=C keeps them English.
_DAMAGE = (
    "not a git repository",
    "bad config",
    "bad object",
    "bad tree",
    "bad signature",
    "corrupt",
    "is empty",
    "unable to read",
    "unable to parse",
    "invalid sha1 pointer",
    "missing blob",
    "missing tree",
    "missing commit",
    "packfile",
    "pack index",
    "inflate",
    "file exists",  # a lock file that a killed process left
    "does not have all necessary objects",
    "did not send all necessary objects",
    "unresolved deltas",
)


@dataclass(frozen=True)
class Base:
    """The commit that a run starts from, empty if the repository is, and the default branch."""

    commit: str
    branch: str


class _Damaged(Exception):
    """The mirror cannot be used and has to be made again."""


@dataclass(frozen=True)
class Mirrors:
    """The mirrors below one directory, shared by all processes of a machine."""

    directory: Path
    timeout: timedelta = timedelta(minutes=5)
    bounds: Bounds = BOUNDS
    most_memory: int = MOST_MEMORY

    @classmethod
    def from_settings(cls) -> Self:
        """Return the mirrors of this machine."""
        return cls(Path(settings.REPOSITORIES_DIRECTORY))

    def update(self, remote: Remote, branch: str = "") -> Base:
        """Fetch what is new, and return the commit that the next run of a branch starts from.

        That is the tip of the branch, or else the newest commit of the default branch. A tip of
        ours that was not pushed counts, unless the remote's branch has other commits. Raises
        `CheckoutFailed`.
        """
        deadline = self._deadline()
        found = self._ask(remote, branch, deadline)
        with self._held(remote, deadline, exclusive=False) as mirror:
            if mirror is not None and (base := mirror.base(found, branch)) is not None:
                return base
        with self._held(remote, deadline, exclusive=True) as mirror:
            return self._mended(remote, mirror, lambda fresh: fresh.fetch(remote, found, branch))

    def remote_tip(self, remote: Remote, branch: str) -> str:
        """Return the commit of the remote's branch now, or an empty text if there is no branch.

        Raises `CheckoutFailed`.
        """
        return self._ask(remote, branch, self._deadline()).tip

    def ensure(self, remote: Remote, commit: str) -> None:
        """Fetch the commit unless the mirror has it. Raises `CheckoutFailed`."""
        deadline = self._deadline()
        with self._held(remote, deadline, exclusive=False) as mirror:
            if mirror is not None and mirror.has(commit):
                return
        with self._held(remote, deadline, exclusive=True) as mirror:
            self._mended(remote, mirror, lambda fresh: fresh.fetch_commit(remote, commit))

    def has(self, remote: Remote, commit: str) -> bool:
        """Return whether this machine has the commit, or any mirror if the commit is empty."""
        with self._held(remote, self._deadline(), exclusive=False) as mirror:
            return mirror is not None and (not commit or mirror.has(commit))

    def rebuild(self, remote: Remote) -> None:
        """Remove a mirror that is damaged. The next use fetches it anew."""
        with self._held(remote, self._deadline(), exclusive=True):
            self._remove(remote)

    @contextmanager
    def reading(self, remote: Remote) -> Iterator["Mirror"]:
        """Provide the mirror, which stays as it is until the block ends. Raises `CheckoutFailed`.

        Commits and branches can be added meanwhile.
        """
        with self._held(remote, self._deadline(), exclusive=False) as mirror:
            if mirror is None:
                raise CheckoutFailed("the mirror of the repository is gone")
            yield mirror

    def remove_unused(self, older_than: timedelta) -> int:
        """Remove the mirrors that were not used for so long; return their number."""
        removed = 0
        oldest = time.time() - older_than.total_seconds()
        # What workers that were killed left behind.
        for left in (*self._folder.glob(f"{_ASKING}*"), *self.changes.glob("*")):
            if left.stat().st_mtime < oldest:
                remove_tree(left)
        for lock in self._folder.glob("*.lock"):
            path = lock.with_suffix("")
            if lock.stat().st_mtime < oldest and path.exists():
                with locked(lock, time.monotonic() + 1, exclusive=True):
                    remove_tree(path)
                removed += 1
        return removed

    @property
    def changes(self) -> Path:
        """The folder in which changes are committed."""
        return self.directory / "changes"

    @property
    def _folder(self) -> Path:
        return self.directory / "mirrors"

    def _deadline(self) -> float:
        return time.monotonic() + self.timeout.total_seconds()

    def _git(self, directory: Path, deadline: float) -> Git:
        return Git(directory, deadline, self.bounds, self.most_memory)

    @contextmanager
    def _held(
        self, remote: Remote, deadline: float, *, exclusive: bool
    ) -> Iterator["Mirror | None"]:
        """Provide the mirror under its lock, or None if there is none yet."""
        private_folder(self._folder)
        path = self._folder / remote.folder
        with locked(path.with_suffix(".lock"), deadline, exclusive=exclusive):
            yield Mirror(self._git(path, deadline)) if path.is_dir() else None

    def _mended(
        self, remote: Remote, mirror: "Mirror | None", fetch: Callable[["Mirror"], Base]
    ) -> Base:
        """Fetch into the mirror; if it is damaged or has grown too big, into a new one."""
        if mirror is not None:
            try:
                mirror.require_tidy()
                return fetch(mirror)
            except (_Damaged, RepositoryTooBig) as error:
                log.warning("a mirror is made anew", url=remote.url, reason=str(error))
        self._remove(remote)
        path = self._folder / remote.folder
        path.mkdir(mode=0o700)
        mirror = Mirror(self._git(path, self._deadline()))
        try:
            mirror.create()
            return fetch(mirror)
        except _Damaged as error:
            self._remove(remote)
            raise CheckoutFailed(str(error)) from error
        except RepositoryTooBig:
            self._remove(remote)
            raise

    def _remove(self, remote: Remote) -> None:
        remove_tree(self._folder / remote.folder)

    def _ask(self, remote: Remote, branch: str, deadline: float) -> "_Found":
        """Return what the remote's default branch and the task's branch are now."""
        private_folder(self._folder)
        scratch = Path(tempfile.mkdtemp(prefix=_ASKING, dir=self._folder))
        try:
            git = self._git(scratch, deadline)
            refs = self._refs(git, remote, "HEAD", *([_HEADS + branch] if branch else []))
            if not refs.names.get("HEAD"):
                refs = self._refs(git, remote)
            return refs.found(branch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _refs(self, git: Git, remote: Remote, *names: str) -> "_Refs":
        with tempfile.TemporaryFile(dir=git.directory) as output:
            ended = git.run(
                "ls-remote", "--symref", "--", remote.url, *names, remote=remote, output=output
            )
            ended.require_reached()
            output.seek(0)
            return _Refs.parse(output.read())


@dataclass(frozen=True)
class _Found:
    """A default branch and its tip, and the tip of a task's branch. Empty if there is none."""

    default: str
    head: str
    tip: str


@dataclass(frozen=True)
class _Refs:
    """The answer of `git ls-remote --symref`."""

    names: Mapping[str, str]
    default: str
    """The branch that HEAD names, or empty."""

    @classmethod
    def parse(cls, output: bytes) -> Self:
        names = {}
        default = ""
        for line in output.decode(errors="replace").splitlines():
            value, _, name = line.partition("\t")
            if value.startswith("ref: ") and name == "HEAD":
                default = value.removeprefix("ref: ").removeprefix(_HEADS)
            else:
                names[name] = value
        return cls(names, default)

    def found(self, branch: str) -> _Found:
        """Choose the default branch. A HEAD that names no branch stands for the only one.

        Raises `CheckoutFailed` if there are several branches and none is the default.
        """
        tip = self.names.get(_HEADS + branch, "") if branch else ""
        if head := self.names.get("HEAD", ""):
            return _Found(self.default, head, tip)
        heads = {
            name.removeprefix(_HEADS): value
            for name, value in self.names.items()
            if name.startswith(_HEADS) and name != _HEADS + branch
        }
        for name in (*heads,) if len(heads) == 1 else ("main", "master"):
            if name in heads:
                return _Found(name, heads[name], tip)
        if heads:
            raise RepositoryRefused("the repository has no default branch")
        return _Found("", "", tip)


class Mirror:
    """One mirror, under its lock."""

    def __init__(self, git: Git) -> None:
        self.git = git
        self.path = git.target
        self._place = {"GIT_DIR": str(self.path)}

    def create(self) -> None:
        """Make an empty repository."""
        self._run("init", "--bare", "--quiet", "--template=", str(self.path)).require_success()

    def has(self, commit: str) -> bool:
        """Return whether the mirror has the commit and its folder."""
        return self._run("cat-file", "-e", f"{commit}^{{tree}}").status == 0

    def tip(self, branch: str) -> str:
        """Return the commit of a task's branch here, or an empty text."""
        try:
            name = self.git.read(
                "rev-parse",
                "--quiet",
                "--verify",
                f"{_HEADS}{branch}^{{commit}}",
                environment=self._place,
            )
        except CheckoutFailed:
            return ""
        return name.decode().strip()

    def require_tidy(self) -> None:
        """Raise `_Damaged` if so many packs were fetched that a new mirror is better."""
        if sum(1 for _ in (self.path / "objects" / "pack").glob("*.pack")) > _MOST_PACKS:
            raise _Damaged("it has many packs")

    def base(self, found: _Found, branch: str) -> Base | None:
        """Return where the next run starts, or None if something has to be fetched for that."""
        own = self.tip(branch) if branch else ""
        if found.tip and own != found.tip:
            if not self.has(found.tip):
                return None
            if not own or not self._is_ancestor(found.tip, own):
                own = found.tip
        start = own or found.head
        return Base(start, found.default) if not start or self.has(start) else None

    def fetch(self, remote: Remote, found: _Found, branch: str) -> Base:
        """Return `base`, fetching what it needs. Raises `CheckoutFailed` and `_Damaged`."""
        if (base := self.base(found, branch)) is not None:  # another run has just fetched it
            return base
        if found.tip and not self.has(found.tip):
            self._fetch(remote, found.tip, _KNOWN_COMMITS)
        elif found.head:
            self._fetch(remote, found.head, 1)
        base = self.base(found, branch)
        if base is None:
            raise _Damaged("what was fetched is missing")
        return base

    def fetch_commit(self, remote: Remote, commit: str) -> Base:
        """Fetch one commit unless it is here. Raises `CheckoutFailed` and `_Damaged`."""
        if not self.has(commit):
            self._fetch(remote, commit, 1)
        if not self.has(commit):
            raise _Damaged("what was fetched is missing")
        return Base(commit, "")

    def add_branch(self, source: Path, branch: str) -> None:
        """Take the branch `change` of another repository of ours, with its commits.

        Git checks every object on the way. Raises `ChangeRefused` if it finds fault with one, and
        `CheckoutFailed`.
        """
        ended = self._run(
            "-c",
            "fetch.fsckObjects=true",
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--",
            f"file://{source}",
            f"+{_HEADS}change:{_HEADS}{branch}",
            environment=LOCAL,
        )
        if fault := _FAULT.search(ended.messages):
            what = printable(fault["what"])
            raise ChangeRefused(f"The change contains a file that git refuses: {what}.")
        ended.require_success()

    def push(self, remote: Remote, commit: str, branch: str) -> tuple[Ended, bytes]:
        """Push a commit as a branch; return how that ended, and git's report about the branch."""
        return self._push(remote, f"{commit}:{_HEADS}{branch}")

    def put_back(self, remote: Remote, branch: str, *, was: str, to: str) -> tuple[Ended, bytes]:
        """Have the remote's branch point at the commit `to`, or delete it if that is empty.

        The remote refuses, in one step, if the branch doesn't point at `was` any more. The answer
        is as from `push`.
        """
        lease = f"--force-with-lease={_HEADS}{branch}:{was}"
        return self._push(remote, f"{to}:{_HEADS}{branch}", lease)

    def _push(self, remote: Remote, refspec: str, *options: str) -> tuple[Ended, bytes]:
        with tempfile.TemporaryFile(dir=self.git.directory) as output:
            ended = self._run(
                "push",
                "--porcelain",
                "--no-verify",
                "--no-follow-tags",
                "--recurse-submodules=no",
                *options,
                "--",
                remote.url,
                refspec,
                remote=remote,
                output=output,
            )
            output.seek(0)
            return ended, output.read()

    def _fetch(self, remote: Remote, commit: str, depth: int) -> None:
        name = f"{_UPSTREAM}/{'head' if depth == 1 else 'tip'}"
        ended = self._run(
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            f"--depth={depth}",
            "--",
            remote.url,
            f"+{commit}:{name}",
            remote=remote,
        )
        if any(sign in ended.errors.lower() for sign in _DAMAGE):  # even if git coped with it
            raise _Damaged(ended.reason)
        ended.require_reached()

    def _is_ancestor(self, commit: str, descendant: str) -> bool:
        ended = self._run("merge-base", "--is-ancestor", commit, descendant)
        if ended.status != _NOT_AN_ANCESTOR:
            ended.require_success()
        return ended.status == 0

    def _run(self, *arguments: str, environment: Mapping[str, str] = {}, **how: object) -> Ended:
        place = self._place | dict(environment)
        return self.git.run(*arguments, environment=place, **how)  # type: ignore[arg-type]


def private_folder(path: Path) -> None:
    """Create a folder that only our own user can enter."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
