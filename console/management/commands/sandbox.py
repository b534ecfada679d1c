"""`manage.py sandbox`: try a command in the sandbox of coding agents."""

import asyncio
import os
import shutil
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from environs import EnvError

from coding_tasks.sandbox import choice
from coding_tasks.sandbox import command as inside
from coding_tasks.sandbox.errors import SandboxError
from coding_tasks.sandbox.interface import Door, Ended, Limits, Sandbox

PRODUCT = "slack_app"
TOKEN = "worth-nothing"  # noqa: S105 - the gateway refuses it
ENDED_BY_LIMIT = 124
"""The exit status that timeout(1) uses."""


class Command(BaseCommand):
    """Run a command in the sandbox on a copy of a folder, and print what it prints.

    The command can reach the gateway, but its token is refused there. Control characters are left
    out of its output. The exit status is the command's, or 124 if a limit ended it.
    """

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the folder and the command."""
        parser.add_argument(
            "--dir", metavar="DIR", type=Path, help="the folder to copy (default: an empty one)"
        )
        parser.add_argument("argv", metavar="COMMAND", nargs="+", help="write -- before it")

    def handle(self, *_args: Any, dir: Path | None, argv: list[str], **_options: Any) -> None:
        """Run it. Raises `CommandError` if there is no sandbox or DIR cannot be copied."""
        try:
            sandbox = choice.from_environment().sandbox()
        except EnvError as error:
            raise CommandError(str(error)) from error
        if reason := sandbox.why_missing():
            raise CommandError(f"there is no sandbox on this machine: {reason}")
        try:
            with _copy(dir, sandbox.owner) as tree:
                ended = asyncio.run(self._run(sandbox, tree, tuple(argv)))
        except (SandboxError, OSError, shutil.Error) as error:
            raise CommandError(str(error)) from error
        if ended.limit is not None:
            self.stderr.write(f"ended, because it exceeded its limit of {ended.limit}")
            sys.exit(ENDED_BY_LIMIT)
        sys.exit(ended.status)

    async def _run(self, sandbox: Sandbox, tree: Path | None, argv: tuple[str, ...]) -> Ended:
        door = Door(settings.GATEWAY_URL, PRODUCT)
        what = inside.Command(argv, _environment())
        async with sandbox.open(tree) as workspace, workspace.start(what, Limits(), door) as run:
            async for line in run.lines():
                output = self.stdout if line.stream == "stdout" else self.stderr
                output.write(line.text)
            return await run.wait()


def _environment() -> dict[str, str]:
    """Return the environment that agents get, with a token that is worth nothing."""
    gateway = f"{inside.GATEWAY_INSIDE}/{PRODUCT}"
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": inside.HOME_INSIDE,
        "LANG": "C.UTF-8",
        "ANTHROPIC_BASE_URL": gateway,
        "ANTHROPIC_AUTH_TOKEN": TOKEN,
        "OPENAI_BASE_URL": f"{gateway}/v1",
        "OPENAI_API_KEY": TOKEN,
    }


@contextmanager
def _copy(folder: Path | None, owner: tuple[int, int]) -> Iterator[Path | None]:
    """Provide a copy of the folder that belongs to the sandbox, until the block ends."""
    if folder is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="tollgate-sandbox-") as scratch:
        os.chmod(scratch, 0o755)  # noqa: S103 - the sandbox's user has to enter it
        tree = shutil.copytree(folder, Path(scratch) / "tree", symlinks=True)
        for path in (tree, *tree.rglob("*")):
            os.chown(path, *owner, follow_symlinks=False)
        yield tree
