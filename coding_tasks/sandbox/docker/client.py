"""Runs the program `docker`, which speaks to the engine."""

import asyncio
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coding_tasks.sandbox.errors import SandboxMissing, WorkspaceFailed

_KEPT = ("PATH", "HOME", "XDG_RUNTIME_DIR")
_WITHIN = 60.0
"""Seconds."""
_EXPLANATION = 500
"""Characters of a complaint that are kept."""
Pipe = int | None


@dataclass(frozen=True)
class Client:
    """The program, and the environment in which it finds the engine."""

    program: str

    @classmethod
    def find(cls) -> "Client":
        """Return the client. Raises `SandboxMissing`."""
        found = shutil.which("docker")
        if found is None:
            raise SandboxMissing("Docker is not installed: there is no docker on the PATH")
        return cls(str(Path(found).resolve()))

    async def start(
        self, arguments: Sequence[str], *, stdin: Pipe, stdout: Pipe, stderr: Pipe
    ) -> asyncio.subprocess.Process:
        """Start `docker` with these arguments."""
        names = [name for name in os.environ if name in _KEPT or name.startswith("DOCKER_")]
        return await asyncio.create_subprocess_exec(
            self.program,
            *arguments,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={name: os.environ[name] for name in names},
            start_new_session=True,  # a Ctrl-C is for the worker
        )

    async def ask(self, *arguments: str) -> str:
        """Return what `docker` answers. Raises `WorkspaceFailed` with its complaint."""
        pipe = asyncio.subprocess.PIPE
        process = await self.start(
            arguments, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
        try:
            async with asyncio.timeout(_WITHIN):
                out, complaint = await process.communicate()
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise WorkspaceFailed(f"docker {arguments[0]} took too long") from error
        if process.returncode != 0:
            words = complaint.decode("utf-8", "replace").split()
            raise WorkspaceFailed(" ".join(words)[:_EXPLANATION])
        return out.decode("utf-8", "replace")
