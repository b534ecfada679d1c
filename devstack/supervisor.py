"""Run programs together: start in order, show their lines, restart what dies, stop all.

Each program has a session of its own, so that a Ctrl-C reaches only the supervisor, and so that
whatever it started can be ended with it. Nothing survives: not a stop, not a death of the
supervisor by SIGKILL (`devstack.child`, `devstack.warden`).
"""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from devstack.console import Console
from devstack.guard import Guard
from devstack.pipe import Pipe
from devstack.servers import Program
from devstack.settings import ROOT

READY_WITHIN = 120.0  # seconds
STOP_WITHIN = 9.0  # seconds, for all stages together
DEATHS = 3
DEATHS_WITHIN = 10.0  # seconds
LONGEST_REASON = 500  # characters


class StackError(Exception):
    """Why the stack cannot run, as one sentence that says what to do."""


class Child:
    """One program that is kept running."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: asyncio.subprocess.Process | None = None
        self.deaths: deque[float] = deque(maxlen=DEATHS)
        self.stopping = False
        self.keeping: asyncio.Task[None] | None = None

    def dies_too_often(self, now: float) -> bool:
        """Count a death; tell whether it is the third within ten seconds."""
        self.deaths.append(now)
        return len(self.deaths) == DEATHS and now - self.deaths[0] <= DEATHS_WITHIN


class Supervisor:
    """Keeps programs running until it is left; when one cannot be kept, `failed` says so.

    Use as `async with Supervisor(…) as supervisor`. Every stage that was started is stopped on
    leaving, the last one first.
    """

    def __init__(
        self, environment: Mapping[str, str], console: Console, stop_within: float = STOP_WITHIN
    ) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
        self.environment = {**environment, "PATH": path}
        self.console = console
        self.stop_within = stop_within
        self.failed = asyncio.Event()
        self.failure = ""
        self._stages: list[list[Child]] = []
        self._guard = Guard(console.say)

    async def __aenter__(self) -> Self:
        await self._guard.begin()
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.stop_within
        for number, stage in reversed(list(enumerate(self._stages))):
            # What a stage leaves of the time is for those below it.
            grace = (deadline - loop.time()) * (2 / 3 if number else 1)
            await asyncio.gather(*(self._stop(child, grace) for child in stage))
        await self.console.drain()
        await self._guard.end()

    async def start(self, programs: Sequence[Program]) -> None:
        """Start one stage of programs at once and wait until all are ready to serve."""
        self.console.say(f"starting {', '.join(program.name for program in programs)}")
        stage = [Child(program) for program in programs]
        self._stages.append(stage)
        for child in stage:
            child.keeping = asyncio.create_task(self._keep(child))
        await asyncio.gather(*(self._until_ready(child.program) for child in stage))

    async def run_once(self, program: Program, *, capture: bool = False) -> bytes:
        """Run a program to its end and return its standard output if that is to be captured.

        Otherwise its lines are shown. Raises `StackError` when the program fails.
        """
        output = await Pipe.open() if capture else None
        process, showing = await self._spawn(program, output)
        try:
            captured = await output.reader.read() if output else b""
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            self._sweep(process.pid)
        if process.returncode:
            said = await self._last_said(program.name, showing)
            raise StackError(f"{program.name} failed (exit {process.returncode}){said}")
        return captured

    # --- starting and keeping --------------------------------------------------------------------

    async def _spawn(
        self, program: Program, output: Pipe | None = None
    ) -> tuple[asyncio.subprocess.Process, asyncio.Task[None]]:
        """Start a program; return its process, and the task that ends when all is shown."""
        shown = await Pipe.open()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "devstack.child", str(os.getpid()), *program.argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=(output or shown).write_end,
            stderr=shown.write_end,
            env=self.environment | program.environment,
            cwd=ROOT,
            start_new_session=True,
        )
        for pipe in filter(None, (shown, output)):
            os.close(pipe.write_end)
        self._guard.watch(process.pid)
        return process, self.console.follow(program.name, shown.reader)

    async def _keep(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        while not child.stopping:
            child.process, showing = await self._spawn(child.program)
            if child.stopping:
                child.process.terminate()
            status = await child.process.wait()
            self._sweep(child.process.pid)
            if child.stopping:
                return
            how = f"was killed by signal {-status}" if status < 0 else f"ended (exit {status})"
            if child.dies_too_often(loop.time()):
                said = await self._last_said(child.program.name, showing)
                self.failure = self.failure or (
                    f"All is stopped: {child.program.name} {how} for the third time within"
                    f" {DEATHS_WITHIN:g} s{said}"
                )
                self.failed.set()
                return
            self.console.say(f"{child.program.name} {how}; starting it again")

    async def _last_said(self, name: str, showing: asyncio.Task[None]) -> str:
        """Return what a program that ended gave as the reason, to end a sentence of ours."""
        await asyncio.wait({showing}, timeout=1)
        said = " ".join(self.console.last_lines(name))
        return f": {said[:LONGEST_REASON]}" if said else "."

    async def _until_ready(self, program: Program) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_WITHIN
        while not await asyncio.to_thread(program.ready):
            if self.failure:
                raise StackError(self.failure)
            if loop.time() > deadline:
                raise StackError(f"{program.name} was not ready within {READY_WITHIN:g} s.")
            await asyncio.sleep(0.05)

    # --- ending ----------------------------------------------------------------------------------

    async def _stop(self, child: Child, grace: float) -> None:
        child.stopping = True
        if child.keeping is None:
            return
        if child.process is not None and child.process.returncode is None:
            child.process.terminate()
        await asyncio.wait({child.keeping}, timeout=grace)
        if not child.keeping.done() and child.process is not None:
            self.console.say(f"{child.program.name} did not stop in {grace:.0f} s and is killed")
            self._sweep(child.process.pid)
        await child.keeping

    def _sweep(self, group: int) -> None:
        """End what a program that ended has left behind."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        self._guard.release(group)
