"""Run git on untrusted repositories, with limits on time, memory, disk and output."""

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from django.conf import settings

from coding_tasks.failures import (
    CheckoutFailed,
    RepositoryRefused,
    RepositoryTooBig,
    RepositoryUnreachable,
    UnpackingFailed,
)
from coding_tasks.repositories.bounds import Bounds
from coding_tasks.repositories.remotes import Login, Remote
from coding_tasks.repositories.trees import measure_tree

_LONGEST_MESSAGE = 1_000_000  # bytes; servers can send progress messages without end
_ENTRIES_OF_GIT = 1_000
_NO_SUCH_NAME = 1  # the exit status of `git rev-parse --quiet --verify`; other failures are 128
_PAUSE = 0.25  # seconds
_CLONE = "clone"
# Git prints these when another attempt cannot help. LC_ALL=C keeps them English.
_PERMANENT = (
    "authentication failed",
    "could not read username",
    "permission denied",
    "host key verification failed",
    "not found",
    "returned error: 403",
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


_OF_REMOTE = ("fatal: remote error:", "error: remote", "ERROR:")
"""How lines begin in which git repeats the remote's words as an error."""


class _TookTooLong(Exception):
    """Git did not end before its deadline."""


@dataclass(frozen=True)
class Ended:
    """How git ended: its exit status and its standard error."""

    status: int
    messages: str

    def require_success(self) -> None:
        """Raise `UnpackingFailed` or `RepositoryTooBig` if git failed without using the network."""
        if self.status:
            self.refuse_too_big()
            raise UnpackingFailed(self.reason, permanent=not self._is_our_own)

    def require_reached(self) -> None:
        """Raise `RepositoryUnreachable` or `RepositoryRefused` if the remote did not serve git.

        Raise `CheckoutFailed` if the fault is this machine's.
        """
        if self.status:
            self.refuse_too_big()
            if self._is_our_own:
                raise CheckoutFailed(self.reason)
            if self.says(*_PERMANENT):
                raise RepositoryRefused(self.reason)
            raise RepositoryUnreachable(self.reason)

    def refuse_too_big(self) -> None:
        """Raise `RepositoryTooBig` if git exceeded a limit."""
        if self.status == -signal.SIGSEGV or self.says(*_TOO_BIG):
            raise RepositoryTooBig(self.reason)

    @property
    def _is_our_own(self) -> bool:
        """Whether the fault is this machine's. What the remote says about that does not count."""
        own = [line for line in self._error_lines if not line.startswith(_OF_REMOTE)]
        said = " ".join(own).lower()
        return self.status == -signal.SIGKILL or any(sign in said for sign in _OUR_OWN)

    def says(self, *signs: str) -> bool:
        """Return whether git printed one of the texts, in any case."""
        said = self.messages.lower()
        return any(sign in said for sign in signs)

    @property
    def reason(self) -> str:
        """Git's own error message, in one short line of printable characters."""
        return printable(self.errors)[:200] or "git failed"

    @property
    def errors(self) -> str:
        """Git's error messages, without what the remote said."""
        return " ".join(self._error_lines)

    @property
    def _error_lines(self) -> Sequence[str]:
        lines = self.messages.splitlines()
        return [line for line in lines if line.startswith(("fatal:", "error:", "ERROR:"))]


@dataclass(frozen=True)
class Git:
    """Git, working on one repository in a directory that holds nothing else."""

    directory: Path
    deadline: float
    """When everything must be finished, on the monotonic clock."""
    bounds: Bounds
    most_memory: int

    @property
    def target(self) -> Path:
        """The repository's own folder."""
        return self.directory / "repository"

    def fetch(self, url: str) -> None:
        """Clone the newest commit of the default branch, without unpacking it.

        The address must have been checked before. Raises `CheckoutFailed`.
        """
        what = (_CLONE, "--no-checkout", "--quiet", "--depth=1", "--single-branch", "--no-tags")
        how = ("--no-recurse-submodules", "--template=", "--no-local")
        self.run(*what, *how, "--", url, str(self.target)).require_reached()

    def has_commit(self) -> bool:
        """Return whether the repository has a commit. An empty one has none.

        Raises `CheckoutFailed` if git fails.
        """
        ended = self.run("rev-parse", "--quiet", "--verify", "HEAD", within=self.target)
        if ended.status == _NO_SUCH_NAME and not ended.messages:
            return False
        ended.require_success()
        return True

    @contextmanager
    def listing(
        self, commit: str = "HEAD", environment: Mapping[str, str] | None = None
    ) -> Iterator[BinaryIO]:
        """Provide the list of all files and folders of a commit or tree.

        The form is that of `git ls-tree -r -t -z --long`. Raises `CheckoutFailed`.
        """
        listing = ("ls-tree", "-r", "-t", "-z", "--long", "--full-tree", commit)
        with tempfile.TemporaryFile(dir=self.directory) as output:
            ended = self.run(*listing, within=self.target, output=output, environment=environment)
            ended.require_success()
            output.seek(0)
            yield output

    def unpack(self) -> None:
        """Write out the files of the newest commit. Raises `CheckoutFailed`."""
        self.run("reset", "--quiet", "--hard", within=self.target).require_success()

    def read(
        self,
        *arguments: str,
        within: Path | None = None,
        given: bytes | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> bytes:
        """Run git without the network and return its standard output. Raises `CheckoutFailed`."""
        with tempfile.TemporaryFile(dir=self.directory) as output:
            ended = self.run(
                *arguments, within=within, output=output, given=given, environment=environment
            )
            ended.require_success()
            output.seek(0)
            return output.read()

    def run(
        self,
        *arguments: str,
        within: Path | None = None,
        output: BinaryIO | None = None,
        given: bytes | None = None,
        remote: Remote | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run git in the directory, or in `within`, and return how it ended.

        `given` is its standard input. The login of `remote` reaches git through a pipe: it is in no
        argument, variable or file. Raises `CheckoutFailed` if git takes too long, which is
        `RepositoryUnreachable` if it uses the network, and `RepositoryTooBig` if it exceeds the
        bounds.
        """
        git = _git()
        place = within or self.directory
        # Git must not find a repository around ours, or its configuration.
        around = {"GIT_CEILING_DIRECTORIES": str(place.parent)}
        with (
            tempfile.TemporaryFile(dir=self.directory) as messages,
            tempfile.TemporaryFile(dir=self.directory) as supplied,
            _login_pipe(remote) as (helper, inherited),
        ):
            supplied.write(given or b"")
            supplied.seek(0)
            process = subprocess.Popen(  # noqa: S603 - the address was checked, and follows `--`
                [git, *_options(), *helper, *arguments],
                cwd=place,
                env=_environment(git) | around | dict(environment or {}),
                stdin=supplied,
                stdout=output or subprocess.DEVNULL,
                stderr=messages,
                pass_fds=inherited,
                start_new_session=True,
                restore_signals=False,  # with SIGXFSZ ignored, git reports that a file is too large
                umask=0o022,
            )
            try:
                self._bound(process)
                self._watch(process, messages, output)
            except _TookTooLong:
                remotely = remote is not None or arguments[0] == _CLONE
                slow = RepositoryUnreachable if remotely else CheckoutFailed
                raise slow("git took too long") from None
            finally:
                _end(process)
            messages.seek(0)
            said = messages.read(_LONGEST_MESSAGE).decode(errors="replace")
            return Ended(process.returncode, said)

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
                    raise _TookTooLong from None
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
        "core.protectHFS=true",
        "core.attributesFile=/dev/null",
        "credential.helper=",
        "fetch.unpackLimit=1",  # a pack stays one file
        "gc.auto=0",
    )
    return [option for setting in chosen for option in ("-c", setting)]


@contextmanager
def _login_pipe(remote: Remote | None) -> Iterator[tuple[Sequence[str], Sequence[int]]]:
    """Provide git's options for the remote's login, and the descriptor to inherit.

    Git asks for a login at that host only, not where a redirection leads.
    """
    if remote is None or remote.login is None:
        yield (), ()
        return
    reader, writer = os.pipe()
    try:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(_answer_of_helper(remote.login))
        helper = f'!f() {{ test "$1" = get && cat /dev/fd/{reader}; }}; f'
        yield ("-c", f"credential.{remote.host}.helper={helper}"), (reader,)
    finally:
        os.close(reader)


def _answer_of_helper(login: Login) -> bytes:
    """Return the login in the form of git's credential helpers (gitcredentials(7))."""
    return f"username={login.username}\npassword={login.password}\n".encode()


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


def printable(text: str) -> str:
    """Return text in one line, without the control characters that terminals obey."""
    return "".join(one if one.isprintable() else " " for one in " ".join(text.split()))
