"""Where an agent works: a fresh copy of one repository, gone when the work is done."""

import os
import resource
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from django.conf import settings

from coding_tasks.clone_urls import UnsafeCloneURL, protocol_of
from coding_tasks.failures import CheckoutFailed

PREFIX = "tollgate-clone-"
_NO_FOLLOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# What git says when trying again cannot help; LC_ALL=C keeps it English.
_PERMANENT = (
    "authentication failed",
    "could not read username",
    "permission denied",
    "host key verification failed",
    "not found",
    "does not exist",
    "does not appear to be a git repository",
    "not allowed",
    "out of memory",
)


class Checkout(Protocol):
    """The files of one repository as an agent may read them."""

    def files(self) -> Sequence[str]:
        """Return the paths of the regular files, relative and in order, without git's own."""
        ...

    def read(self, path: str, limit: int) -> bytes | None:
        """Return up to `limit` bytes of a regular file, or None where there is none."""
        ...


class Sandbox(Protocol):
    """Makes checkouts. The seam for sandboxes that also run an agent's commands."""

    def checkout(self, clone_url: str) -> AbstractContextManager[Checkout]:
        """Provide a checkout until the block ends; raises `CheckoutFailed`."""
        ...


@dataclass(frozen=True)
class ClonedCheckout:
    """A clone in a directory of its own. Nothing outside of it is read, whatever it links to."""

    root: Path
    most_files: int = 20_000

    def files(self) -> list[str]:
        """See `Checkout.files`; at most `most_files` of them, and only those with names in UTF-8.

        git keeps names as bytes, but only text can be told to a model.
        """
        found: list[str] = []
        for folder, folders, names in os.walk(self.root, followlinks=False):
            folders[:] = sorted(name for name in folders if _is_shown(name))
            inside = Path(folder).relative_to(self.root)
            for name in sorted(filter(_is_shown, names)):
                path = inside / name
                if stat.S_ISREG((self.root / path).lstat().st_mode):
                    found.append(path.as_posix())
                if len(found) == self.most_files:
                    return found
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


def _is_shown(name: str) -> bool:
    """Tell a name in UTF-8 that is not git's own; other bytes are lone surrogates in a `str`."""
    return name != ".git" and name == name.encode("utf-8", "ignore").decode()


def _open_below(root: Path, parts: Sequence[str]) -> int:
    """Open what the parts lead to, one by one from the root, and follow no link."""
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
class CloneSandbox:
    """Clones the newest commit into a throw-away directory. Runs nothing of the repository."""

    timeout: timedelta = timedelta(minutes=5)
    most_bytes: int = 500_000_000
    most_memory: int = 2_000_000_000
    """Bytes of address space for git, which maps the packs that it reads."""
    directory: Path | None = None
    """Where the clones live; the system's temporary directory unless given."""

    @contextmanager
    def checkout(self, clone_url: str) -> Iterator[ClonedCheckout]:
        """See `Sandbox.checkout`."""
        try:
            protocol_of(clone_url)
        except UnsafeCloneURL as error:
            raise CheckoutFailed(f"the address is refused: {error}", permanent=True) from error
        with tempfile.TemporaryDirectory(
            prefix=PREFIX, dir=self.directory, ignore_cleanup_errors=True
        ) as directory:
            target = Path(directory) / "repository"
            self._clone(clone_url, target)
            yield ClonedCheckout(target)

    def remove_leftovers(self, older_than: timedelta) -> None:
        """Remove clones that a killed worker left behind."""
        directory = self.directory or Path(tempfile.gettempdir())
        for left in directory.glob(f"{PREFIX}*"):
            try:
                abandoned = time.time() - left.lstat().st_mtime > older_than.total_seconds()
            except OSError:
                continue
            if abandoned:
                shutil.rmtree(left, ignore_errors=True)

    def _clone(self, url: str, target: Path) -> None:
        git = _git()
        with tempfile.TemporaryFile(dir=target.parent) as output:
            process = subprocess.Popen(  # noqa: S603 - the address was judged, and follows `--`
                _command(git, url, target),
                cwd=target.parent,
                env=_environment(git),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            self._bound(process)
            try:
                self._watch(process, target)
            finally:
                _end(process)
            if process.returncode:
                output.seek(0)
                raise _failure(output.read(100_000).decode(errors="replace"))

    def _bound(self, process: subprocess.Popen[bytes]) -> None:
        """Bound git's memory: a small pack can unfold to more than any machine has."""
        with suppress(ProcessLookupError):  # it has ended already
            bound = (self.most_memory, self.most_memory)
            resource.prlimit(process.pid, resource.RLIMIT_AS, bound)

    def _watch(self, process: subprocess.Popen[bytes], target: Path) -> None:
        deadline = time.monotonic() + self.timeout.total_seconds()
        running = True
        while running:
            try:
                process.wait(0.25)
                running = False
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise CheckoutFailed("cloning took too long") from None
            if _size(target) > self.most_bytes:
                raise CheckoutFailed("the repository is too big", permanent=True)


def _git() -> str:
    found = shutil.which("git")
    if found is None:
        raise CheckoutFailed("git is not installed", permanent=True)
    return found


def _command(git: str, url: str, target: Path) -> list[str]:
    return [
        git,
        *("-c", "core.symlinks=false"),
        *("-c", "core.hooksPath=/dev/null"),
        *("-c", "core.fsmonitor=false"),
        *("-c", "credential.helper="),
        "clone",
        *("--quiet", "--depth=1", "--single-branch", "--no-tags"),
        *("--no-recurse-submodules", "--template=", "--no-local"),
        "--",
        url,
        str(target),
    ]


def _environment(git: str) -> dict[str, str]:
    """Return all that git sees of our environment: none of our secrets, and no configuration."""
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
    """Make sure that neither git nor a child of it goes on."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _failure(output: str) -> CheckoutFailed:
    lines = [line for line in output.splitlines() if line.startswith(("fatal:", "ERROR:"))]
    permanent = any(sign in output.lower() for sign in _PERMANENT)
    return CheckoutFailed(" ".join(lines)[:200] or "git failed", permanent=permanent)


def _size(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue  # git renames its temporary files
    return total
