"""Run git on untrusted repositories, with limits on time, memory, disk and output."""

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from django.conf import settings

from coding_tasks.failures import CheckoutFailed, RepositoryTooBig, UnpackingFailed
from coding_tasks.repositories.bounds import Bounds
from coding_tasks.repositories.trees import measure_tree

_LONGEST_MESSAGE = 1_000_000  # bytes; servers can send progress messages without end
_ENTRIES_OF_GIT = 1_000
_NO_SUCH_NAME = 1  # the exit status of `git rev-parse --quiet --verify`; other failures are 128
_PAUSE = 0.25  # seconds
# Git prints these when another attempt cannot help. LC_ALL=C keeps them English.
_PERMANENT = (
    "authentication failed",
    "could not read username",
    "permission denied",
    "host key verification failed",
    "not found",
    "does not exist",
    "does not appear to be a git repository",
    "not allowed",
    "possible repository corruption",
    "did not send all necessary objects",
)
_TOO_BIG = (
    "out of memory",
    "cannot allocate memory",
    "file too large",
    f"died of signal {int(signal.SIGSEGV)}",  # deeply nested folders exhaust the stack
    "exceeded maximum allowed tree depth",
)
# Errors of this machine rather than of the repository.
_OUR_OWN = (
    "no space left on device",
    "quota exceeded",
    "input/output error",
    "too many open files",
    "read-only file system",
    "resource temporarily unavailable",
)


@dataclass(frozen=True)
class Git:
    """Git, working on one clone in a directory that holds nothing else."""

    directory: Path
    deadline: float
    """When everything must be finished, on the monotonic clock."""
    bounds: Bounds
    most_memory: int

    @property
    def target(self) -> Path:
        """The clone's own folder."""
        return self.directory / "repository"

    def fetch(self, url: str) -> None:
        """Fetch the newest commit of the default branch, without unpacking it.

        The address must have been checked before. Raises `CheckoutFailed`.
        """
        what = ("clone", "--no-checkout", "--quiet", "--depth=1", "--single-branch", "--no-tags")
        how = ("--no-recurse-submodules", "--template=", "--no-local")
        status, said = self._run(self.directory, *what, *how, "--", url, str(self.target))
        if status:
            _refuse_too_big(status, said)
            permanent = any(sign in said.lower() for sign in _PERMANENT)
            raise CheckoutFailed(_fatal(said), permanent=permanent)

    def has_commit(self) -> bool:
        """Return whether the repository has a commit. An empty one has none.

        Raises `CheckoutFailed` if git fails.
        """
        status, said = self._run(self.target, "rev-parse", "--quiet", "--verify", "HEAD")
        if status == _NO_SUCH_NAME and not said:
            return False
        _refuse_failure(status, said)
        return True

    @contextmanager
    def listing(self) -> Iterator[BinaryIO]:
        """Provide the list of all files and folders of the newest commit.

        The form is that of `git ls-tree -r -t -z --long`. Raises `CheckoutFailed`.
        """
        listing = ("ls-tree", "-r", "-t", "-z", "--long", "--full-tree", "HEAD")
        with tempfile.TemporaryFile(dir=self.directory) as output:
            _refuse_failure(*self._run(self.target, *listing, output=output))
            output.seek(0)
            yield output

    def unpack(self) -> None:
        """Write out the files of the newest commit. Raises `CheckoutFailed`."""
        _refuse_failure(*self._run(self.target, "reset", "--quiet", "--hard"))

    def _run(
        self, directory: Path, *arguments: str, output: BinaryIO | None = None
    ) -> tuple[int, str]:
        """Run git in the directory; return its exit status and its standard error.

        Raises `CheckoutFailed` if that takes too long, and `RepositoryTooBig` beyond the bounds.
        """
        git = _git()
        with tempfile.TemporaryFile(dir=self.directory) as messages:
            process = subprocess.Popen(  # noqa: S603 - the address was checked, and follows `--`
                [git, *_options(), *arguments],
                cwd=directory,
                env=_environment(git),
                stdin=subprocess.DEVNULL,
                stdout=output or subprocess.DEVNULL,
                stderr=messages,
                start_new_session=True,
                restore_signals=False,  # with SIGXFSZ ignored, git reports that a file is too large
            )
            try:
                self._bound(process)
                self._watch(process, messages, output)
            finally:
                _end(process)
            messages.seek(0)
            return process.returncode, messages.read(_LONGEST_MESSAGE).decode(errors="replace")

    def _bound(self, process: subprocess.Popen[bytes]) -> None:
        """Limit git's memory and file size: a small pack can unpack to more than a machine has."""
        with suppress(ProcessLookupError):  # it has ended already
            memory = (self.most_memory, self.most_memory)
            resource.prlimit(process.pid, resource.RLIMIT_AS, memory)
            one_file = (self.bounds.size, self.bounds.size)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, one_file)

    def _watch(
        self, process: subprocess.Popen[bytes], messages: BinaryIO, output: BinaryIO | None
    ) -> None:
        running = True
        pause = _PAUSE
        while running:
            try:
                process.wait(pause)
                running = False
            except subprocess.TimeoutExpired:
                if time.monotonic() > self.deadline:
                    raise CheckoutFailed("cloning took too long") from None
            if _length(messages) > _LONGEST_MESSAGE:
                raise RepositoryTooBig("git printed too many messages")
            if output is not None and _length(output) > self.bounds.listing:
                raise RepositoryTooBig("the list of its files is too long")
            pause = self._measure()

    def _measure(self) -> float:
        """Raise `RepositoryTooBig` if the clone is too big; return the pause before the next check.

        Measuring many files takes a while, so it happens less often then.
        """
        began = time.monotonic()
        most = self.bounds.entries + _ENTRIES_OF_GIT
        found = measure_tree(self.directory, most)
        if found.entries > most or found.size > self.bounds.size:
            raise RepositoryTooBig(f"it has more than {self.bounds.size} bytes")
        return max(_PAUSE, 5 * (time.monotonic() - began))


def _git() -> str:
    found = shutil.which("git")
    if found is None:
        raise CheckoutFailed("git is not installed", permanent=True)
    return found


def _options() -> Sequence[str]:
    chosen = (
        "core.symlinks=false",
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "credential.helper=",
        "fetch.unpackLimit=1",  # a pack stays one file
        "gc.auto=0",
    )
    return [option for setting in chosen for option in ("-c", setting)]


def _environment(git: str) -> dict[str, str]:
    """Return the environment for git: without our secrets, and without configuration."""
    return {
        "PATH": os.pathsep.join((os.path.dirname(git), os.defpath)),
        "HOME": str(Path.home()),  # ssh's keys and known hosts
        "LC_ALL": "C",
        "GIT_ALLOW_PROTOCOL": ":".join(settings.GIT_ALLOWED_PROTOCOLS),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
        "GIT_TERMINAL_PROMPT": "0",
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """End git and all its children."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _length(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _refuse_too_big(status: int, said: str) -> None:
    if status == -signal.SIGSEGV or any(sign in said.lower() for sign in _TOO_BIG):
        raise RepositoryTooBig(_fatal(said))


def _refuse_failure(status: int, said: str) -> None:
    """Raise why git failed after fetching: because of this machine, or else of the contents."""
    if status:
        _refuse_too_big(status, said)
        ours = status == -signal.SIGKILL or any(sign in said.lower() for sign in _OUR_OWN)
        raise UnpackingFailed(_fatal(said), permanent=not ours)


def _fatal(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith(("fatal:", "error:", "ERROR:"))]
    return " ".join(lines)[:200] or "git failed"
