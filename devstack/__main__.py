"""The whole system on one machine: `python -m devstack`, behind `make up`."""

import asyncio
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from devstack.bootstrap import check_web, create_demo_project, migrate
from devstack.default_agent import default_agent
from devstack.env_file import write_env_file
from devstack.programs import metrics_directory, server_programs, tollgate_programs
from devstack.settings import SettingsError, Stack, read, refuse_taken_ports
from devstack.supervision.console import Console
from devstack.supervision.linux import signal_when_parent_dies
from devstack.supervision.supervisor import StackError, Supervisor
from devstack.table import table
from devstack.temporal_file import reset_or_refuse_damaged


def main() -> int:
    """Run the stack until Ctrl-C or SIGTERM; return the exit status."""
    _stop_with_make()
    console = Console()
    try:
        agent = default_agent(os.environ, console.say)
        stack = read(os.environ | {"DEFAULT_AGENT": agent})
        with exclusive_use(stack.directory):
            refuse_taken_ports(stack)
            reset_or_refuse_damaged(stack, os.environ.get("RESET", ""))
            write_env_file(stack.directory / "env", stack.environment)
            shutil.rmtree(metrics_directory(stack), ignore_errors=True)
            ready_file(stack).unlink(missing_ok=True)
            try:
                asyncio.run(up(stack, console))
            finally:
                ready_file(stack).unlink(missing_ok=True)
    except (SettingsError, StackError) as error:
        print(f"tollgate: {error}", file=sys.stderr)
        return 1
    return 0


async def up(stack: Stack, console: Console) -> None:
    """Start everything, print the table, and keep the stack running until a signal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    # The console turns JSON into text. Commands that people run themselves log text directly.
    environment = os.environ | stack.environment | {"LOG_FORMAT": "json"}
    async with Supervisor(environment, console) as supervisor:
        starting = asyncio.create_task(_start(supervisor, stack, console))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await stopping
        for waiting in (starting, stopping):
            waiting.cancel()
        await asyncio.wait({starting, stopping})
        console.say("stopping")
    console.say("all stopped")


async def _start(supervisor: Supervisor, stack: Stack, console: Console) -> None:
    try:
        async with asyncio.TaskGroup() as first:
            first.create_task(supervisor.start(server_programs(stack)))
            first.create_task(migrate(supervisor))
            first.create_task(check_web(supervisor))
        async with asyncio.TaskGroup() as second:
            second.create_task(supervisor.start(tollgate_programs(stack)))
            creating_project = second.create_task(create_demo_project(supervisor, stack))
    except* StackError as errors:
        raise errors.exceptions[0] from None
    console.write(table(stack, creating_project.result()))
    ready_file(stack).write_text(str(os.getpid()))


def ready_file(stack: Stack) -> Path:
    """Return the file that exists while everything runs; it holds the supervisor's process id."""
    return stack.directory / "ready"


@contextmanager
def exclusive_use(directory: Path) -> Iterator[None]:
    """Lock the folder for this process. Raise `StackError` if another stack uses it."""
    with _lock_file(directory) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StackError(
                f"it runs already (process {lock.read().strip()}) with the data in {directory}."
                " Stop it with Ctrl-C, or start another one with its own DEVSTACK_DIR and ports."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _lock_file(directory: Path) -> TextIO:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return (directory / "lock").open("a+")
    except OSError as error:
        raise StackError(
            f"{directory} cannot be written ({error.strerror}); choose another: DEVSTACK_DIR=…"
        ) from None


def _stop_with_make() -> None:
    """Stop cleanly if the `make` that started this process is killed."""
    if "MAKELEVEL" in os.environ:
        signal_when_parent_dies(signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
