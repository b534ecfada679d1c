"""The interface to a program that isolates the commands of a workspace."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from coding_tasks.sandbox.command import Command
from coding_tasks.sandbox.interface import Limits
from coding_tasks.sandbox.keepers.view import View

EXTRA_DESCRIPTOR = 6
"""The number that the keeper gives to the descriptor after those that every command has."""


@dataclass(frozen=True)
class Program:
    """A program, and the folders that it needs side by side, under their own names."""

    folders: tuple[Path, ...]
    path: str
    """Where the program is, beginning with the name of one of the folders."""


@dataclass(frozen=True)
class Files:
    """What the keeper needs to start one command. See `keeper.run.Descriptors`."""

    argv: bytes
    arguments: bytes = field(repr=False)
    stdin: bytes = field(repr=False)
    filter: bytes = b""


class Isolation(Protocol):
    """A program that isolates commands. The keeper has a module of the same name that starts it."""

    @property
    def name(self) -> str:
        """Return the name that settings and messages use."""
        ...

    @property
    def needs(self) -> str:
        """Return what the machine must permit, to tell the operator if it does not."""
        ...

    def find(self) -> Program:
        """Return the program to use. Raises `SandboxMissing` if there is none."""
        ...

    def resources(self, limits: Limits) -> list[tuple[int, int]]:
        """Return the limits of the program itself, as `setrlimit` takes them."""
        ...

    def files(
        self, program: str, command: Command, limits: Limits, view: View, *, network: bool
    ) -> Files:
        """Return how to start a command. `network` is whether the keeper opens a door for it."""
        ...


def joined(parts: Sequence[str]) -> bytes:
    """Return the parts with a NUL between them. No part must contain one."""
    return b"\0".join(os.fsencode(part) for part in parts)
