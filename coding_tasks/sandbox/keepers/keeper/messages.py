"""What the worker and the keeper say to each other: JSON datagrams with file descriptors."""

import json
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

_LONGEST = 65_536
_MOST_DESCRIPTORS = 8


@dataclass(frozen=True)
class Open:
    """Fork a keeper for this plan, in JSON. Comes with its channel and its lifeline."""

    plan: dict[str, Any]


@dataclass(frozen=True)
class Start:
    """Start a command. Comes with the descriptors of `Descriptors`, in that order."""

    run: int
    isolation: str
    """The program that isolates the command."""
    network: bool
    """Whether the command gets a network of its own, with nothing but a listening door."""
    port: int
    memory: int
    cpu_seconds: float
    resources: Sequence[tuple[int, int]]
    """Resource limits as `setrlimit` takes them."""


@dataclass(frozen=True)
class Kill:
    """End every process of a run."""

    run: int


@dataclass(frozen=True)
class Ready:
    """The workspace is ready."""


@dataclass(frozen=True)
class Failed:
    """The workspace cannot be made. The last message."""

    reason: str


@dataclass(frozen=True)
class Listening:
    """Comes with the socket that listens inside."""

    run: int


@dataclass(frozen=True)
class Finished:
    """No process of the run is left."""

    run: int
    status: int | None
    """The command's exit status, as in a shell, or None if the keeper ended it."""
    started: bool
    """Whether the sandbox was set up, so that the command was at least tried."""
    limit: str | None
    cpu_seconds: float
    peak_memory: int


Message = Open | Start | Kill | Ready | Failed | Listening | Finished
_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind for kind in (Open, Start, Kill, Ready, Failed, Listening, Finished)
}


def channel() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a channel that keeps messages apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send a message and copies of these descriptors. Raises OSError."""
    body = json.dumps([type(message).__name__, asdict(message)]).encode()
    socket.send_fds(end, [body], descriptors)


def receive(end: socket.socket) -> tuple[Message, list[int]] | None:
    """Return the next message and its descriptors, or None if the other end is closed.

    Raises OSError.
    """
    body, descriptors, _, _ = socket.recv_fds(end, _LONGEST, _MOST_DESCRIPTORS)
    if not body:
        return None
    name, fields = json.loads(body)
    return _message(name, fields), descriptors


def _message(name: str, fields: dict[str, Any]) -> Message:
    return _KINDS[name](**fields)
