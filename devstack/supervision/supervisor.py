"""Run programs together: start them in order, show their output, restart those that die, stop all.

Each program has its own session, so Ctrl-C reaches only the supervisor, and a program can be ended
together with everything it started. No process survives the supervisor, even if it is killed
(`devstack.supervision.child`, `devstack.supervision.warden`).
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from devstack.environment import filter_environment
from devstack.servers import Program
from devstack.settings import ROOT
from devstack.supervision.console import Console
from devstack.supervision.guard import Guard
from devstack.supervision.pipe import Pipe

READY_WITHIN = 120.0  # seconds
STOP_WITHIN = 9.0  # seconds, for all stages together
DEATHS_AT_START = 3
"""If a program dies this many times in a row without ever being ready, the start ends."""
FIRST_WAIT = 1.0  # seconds, between the second death in a row and the next start
LONGEST_WAIT = 60.0  # seconds
STABLE_AFTER = 10.0  # seconds
"""If a program lived this long, its deaths are counted from one again."""
LONGEST_REASON = 500  # characters


class StackError(Exception):
    """Why the stack cannot run, in one sentence that says what to do."""


class Child:
    """One program that is kept running."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: asyncio.subprocess.Process | None = None
        self.stopping = asyncio.Event()
        self.keeping: asyncio.Task[None] | None = None
        self.was_ready = False
        self.deaths = 0
        """Deaths in a row; a program that stayed up is counted from one again."""

    def wait_after_death(self, lived: float) -> float:
        """Count a death after `lived` seconds; return the seconds to wait before the next start.

        The first death in a row has no wait, so a killed server is back at once.
        """
        self.deaths = self.deaths + 1 if lived < STABLE_AFTER else 1
        doubled = FIRST_WAIT * 2 ** min(self.deaths - 2, 30)
        return 0.0 if self.deaths == 1 else min(doubled, LONGEST_WAIT)


class Supervisor:
    """Keeps programs running until its block ends.

    Use it as `async with Supervisor(…) as supervisor`. At the end it stops the stages, the last one
    first. A program that keeps dying does not affect the others: it restarts after longer and
    longer waits, with a line for each death. Only a program that never became ready ends the start.
    """

    def __init__(
        self, environment: Mapping[str, str], console: Console, stop_within: float = STOP_WITHIN
    ) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
        self.environment = {**environment, "PATH": path}
        self.console = console
        self.stop_within = stop_within
        self.failure = ""
        """Why a program could never be started, or empty."""
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
            # Time that a stage doesn't use is left for the stages below it.
            grace = (deadline - loop.time()) * (2 / 3 if number else 1)
            await asyncio.gather(*(self._stop(child, grace) for child in stage))
        await self.console.drain()
        await self._guard.end()

    async def start(self, programs: Sequence[Program]) -> None:
        """Start the programs of one stage together and wait until all are ready.

        Raises `StackError` if one keeps dying before it is ready.
        """
        self.console.say(f"starting {', '.join(program.name for program in programs)}")
        stage = [Child(program) for program in programs]
        self._stages.append(stage)
        for child in stage:
            child.keeping = asyncio.create_task(self._keep_running(child))
        await asyncio.gather(*(self._until_ready(child) for child in stage))

    async def run_once(self, program: Program, *, capture: bool = False) -> bytes:
        """Run a program to its end. With `capture`, return its output instead of showing it.

        Raises `StackError` if the program fails.
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

    # --- starting and restarting -----------------------------------------------------------------

    async def _spawn(
        self, program: Program, output: Pipe | None = None
    ) -> tuple[asyncio.subprocess.Process, asyncio.Task[None]]:
        """Start a program. Return its process, and a task that ends when its output was shown."""
        shown = await Pipe.open()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "devstack.supervision.child",
            str(os.getpid()),
            *program.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=(output or shown).write_end,
            stderr=shown.write_end,
            env=filter_environment(self.environment, program.reads) | program.environment,
            cwd=ROOT,
            start_new_session=True,
        )
        for pipe in filter(None, (shown, output)):
            os.close(pipe.write_end)
        self._guard.watch(process.pid)
        return process, self.console.follow(program.name, shown.reader, program.hides)

    async def _keep_running(self, child: Child) -> None:
        """Restart the program whenever it ends, after longer and longer waits, until it stops."""
        loop = asyncio.get_running_loop()
        while not child.stopping.is_set():
            began = loop.time()
            how, said = await self._run_until_exit(child)
            if child.stopping.is_set():
                return
            wait = child.wait_after_death(loop.time() - began)
            if child.deaths >= DEATHS_AT_START and not child.was_ready:
                self.failure = self.failure or (
                    f"{child.program.name} cannot be started: it {how} {child.deaths} times{said}"
                )
                return
            if not wait:
                self.console.say(f"{child.program.name} {how}; starting it again")
                continue
            self.console.say(
                f"{child.program.name} {how}, {child.deaths} times in a row{said.rstrip('.')};"
                f" next try in {wait:g} s"
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(child.stopping.wait(), wait)

    async def _run_until_exit(self, child: Child) -> tuple[str, str]:
        """Run the program once. Return how it ended, and the reason that it printed."""
        try:
            child.process, showing = await self._spawn(child.program)
        except OSError as error:  # the machine has no process or file descriptor left
            return f"did not start ({error.strerror})", "."
        if child.stopping.is_set():
            child.process.terminate()
        status = await child.process.wait()
        self._sweep(child.process.pid)
        how = f"was killed by signal {-status}" if status < 0 else f"ended (exit {status})"
        return how, await self._last_said(child.program.name, showing)

    async def _last_said(self, name: str, showing: asyncio.Task[None]) -> str:
        """Return the last lines of a program that ended, as the end of one of our sentences."""
        await asyncio.wait({showing}, timeout=1)
        said = " ".join(self.console.last_lines(name))
        return f": {said[:LONGEST_REASON]}" if said else "."

    async def _until_ready(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_WITHIN
        while not await asyncio.to_thread(child.program.ready):
            if self.failure:
                raise StackError(self.failure)
            if loop.time() > deadline:
                raise StackError(f"{child.program.name} was not ready within {READY_WITHIN:g} s.")
            await asyncio.sleep(0.05)
        child.was_ready = True

    # --- ending ----------------------------------------------------------------------------------

    async def _stop(self, child: Child, grace: float) -> None:
        child.stopping.set()
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
        """Kill the processes that a program left behind."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        self._guard.release(group)
