"""What every sandbox offers: workspaces for tasks, and processes in them.

Sizes are bytes and times are seconds unless a name says otherwise.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

from coding_tasks.sandbox.command import Command

MEGABYTE = 1_000_000
_UNSAFE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)
MOST_REFUSAL = 8_192
_NOTHING: Mapping[str, Path] = {}


@dataclass(frozen=True)
class Storage:
    """How much a workspace may hold. What exceeds it fails inside with "No space left"."""

    tree_bytes: int = 1_000 * MEGABYTE
    """What is written in the tree. Unchanged files of the checkout don't count."""
    tree_files: int = 200_000
    home_bytes: int = 250 * MEGABYTE
    home_files: int = 20_000
    temporary_bytes: int = 500 * MEGABYTE
    """Of temporary files and shared memory together."""
    temporary_files: int = 50_000


@dataclass(frozen=True)
class Limits:
    """How much one command may use. Exceeding a limit marked with * ends the command."""

    seconds: float = 1_800
    """* Wall clock."""
    cpu_seconds: float = 1_800
    """* Of all its processes together, checked several times a second."""
    memory: int = 2_000 * MEGABYTE
    """* Of all its processes together, checked several times a second."""
    processes: int = 512
    """Threads count too. A further one cannot be started."""
    open_files: int = 4_096
    """Of each process."""
    file_size: int = 1_000 * MEGABYTE
    """Of each file that it writes."""
    output: int = 64 * MEGABYTE
    """* Standard output and standard error together. Each line counts as 64 bytes more."""
    line: int = 4 * MEGABYTE
    """Longer lines are cut."""


class Limit(StrEnum):
    """A limit that ended a command."""

    SECONDS = "seconds"
    CPU_SECONDS = "cpu_seconds"
    MEMORY = "memory"
    OUTPUT = "output"


@dataclass(frozen=True)
class Refusal:
    """An answer in which the gateway itself refused a call, as its headers say."""

    status: int
    headers: Mapping[str, str]
    """With lower-case names."""
    body: bytes
    """The first `MOST_REFUSAL` bytes."""


@dataclass
class Refusals:
    """What the door heard. Unlike the output of a command, nothing inside can forge it."""

    last: Refusal | None = None
    """The gateway's refusal of the latest call, or None if it let that call pass."""


@dataclass(frozen=True)
class Door:
    """The one way out of the sandbox: the gateway, and there only the paths of one product."""

    gateway_url: str
    """As the worker reaches it, for example `https://gateway.example.com`."""
    product: str
    refusals: Refusals = field(default_factory=Refusals, compare=False)
    token: str = field(default="", repr=False)
    """The only credential that may leave, or empty if any may. With another one, code inside could
    spend somebody else's credits, or provoke a refusal by the gateway."""


@dataclass(frozen=True)
class Line:
    """A line of output, without its newline."""

    stream: Literal["stdout", "stderr"]
    data: bytes = field(repr=False)
    cut: bool = False
    """Whether the end is missing because the line was too long."""

    @property
    def text(self) -> str:
        """Return the line as text that is safe to show: without control characters."""
        return _UNSAFE.sub("", self.data.decode("utf-8", "replace"))


@dataclass(frozen=True)
class Ended:
    """How a command ended. At most one of `limit` and `stopped` is set."""

    status: int | None
    """The exit status, 128 + the signal if a signal ended it, or None if the sandbox ended it."""
    limit: Limit | None = None
    stopped: bool = False
    """Whether `Process.kill` ended it."""
    cpu_seconds: float = 0.0
    """As last sampled, so short commands show none."""
    peak_memory: int = 0
    """As sampled."""


class Process(Protocol):
    """A command that was started. Leaving its block kills what is left of it."""

    def lines(self) -> AsyncIterator[Line]:
        """Return the output while it is written. The command waits for a slow reader.

        Iterate once. Lines of one stream are in order.
        """
        ...

    async def wait(self) -> Ended:
        """Return how the command ended. Drops output that nobody read.

        When it returns, no process of the command is left, and its door is closed. Raises
        `WorkspaceFailed` if the command never started and `WorkspaceLost` if the workspace died.
        """
        ...

    def kill(self) -> None:
        """Close the door, then end every process of the command. Does nothing the second time."""
        ...


@dataclass(frozen=True)
class Change:
    """What differs from a commit, as a patch for `git apply --index --binary`."""

    patch: bytes = field(repr=False)
    """Empty if nothing changed."""
    incomplete: bool = False
    """Whether files were left out because they cannot be read."""


class Workspace(Protocol):
    """The tree and the home of one task, kept between commands until its block ends.

    Everything is gone when the worker dies.
    """

    def start(
        self, command: Command, limits: Limits, door: Door | None = None
    ) -> AbstractAsyncContextManager[Process]:
        """Start the command until the block ends. Without a door it has no network at all.

        Raises `WorkspaceFailed` or `WorkspaceLost`. A program that is missing inside ends with a
        status like in a shell: 127.
        """
        ...

    async def export(
        self, commit: str, index: Path | None = None, most_bytes: int = 20 * MEGABYTE
    ) -> Change:
        """Return what differs from the commit, which the workspace's repository must have.

        `commit` is a whole id, or "" if the repository has no commit yet. `index` is the index file
        of the checkout that the tree came from. With it, only changed files are read. Nested
        repositories and submodules are left out, and links are not followed. Raises `TooBig` or
        `ExportFailed`.
        """
        ...

    async def read_folder(self, path: str, most_files: int, most_bytes: int) -> bytes:
        """Return the files of a folder of the home as lines of JSON, or nothing if it is missing.

        A line has `name`, and `content` in base64 or `left_out` if there are too many files or
        bytes. Links and folders are left out. Raises `TooBig` or `ExportFailed`.
        """
        ...

    async def save_home(self, paths: tuple[str, ...], most_bytes: int = 50 * MEGABYTE) -> bytes:
        """Return an archive of these paths of the home. Paths that are missing are left out.

        Don't unpack it anywhere but with `restore_home`. Raises `TooBig` or `ExportFailed`.
        """
        ...

    async def restore_home(self, archive: bytes) -> None:
        """Unpack an archive in the home, inside the sandbox. Raises `ExportFailed`."""
        ...


class Sandbox(Protocol):
    """A way to run hostile code on this machine."""

    def why_missing(self) -> str | None:
        """Return why this sandbox doesn't work here, or None if it does.

        It runs a command that tries to reach the host, so it blocks for a moment. Success is
        remembered; after a failure it is tried again, at most once a minute.
        """
        ...

    @property
    def owner(self) -> tuple[int, int]:
        """Return the uid and the gid that every file of a tree must belong to."""
        ...

    def open(
        self,
        tree: Path | None,
        *,
        repository: Path | None = None,
        mounts: Mapping[str, Path] = _NOTHING,
        storage: Storage = Storage(),
    ) -> AbstractAsyncContextManager[Workspace]:
        """Open a workspace until the block ends.

        `tree` is a checkout on the host that many workspaces share. It is never written to and
        must not change meanwhile; without it the tree is empty. `repository` is a git directory
        on the host that only `export` sees. `mounts` maps paths inside to paths on the host, which
        are visible read-only. Raises `SandboxMissing` or `WorkspaceFailed`.
        """
        ...
