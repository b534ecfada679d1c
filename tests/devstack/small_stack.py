"""A supervisor over small programs, run as a process of its own so that a test can kill it.

Its arguments are JSON, a list of stages, each a map from a program's name to its Python code, and
how many seconds its programs have to stop.
"""

import asyncio
import json
import os
import signal
import sys

from devstack.console import Console
from devstack.servers import Program
from devstack.supervisor import StackError, Supervisor


async def main(stages: list[dict[str, str]], stop_within: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    async with Supervisor(os.environ, Console(), stop_within) as supervisor:
        for stage in stages:
            await supervisor.start(
                [Program(name, [sys.executable, "-uc", code]) for name, code in stage.items()]
            )
        events = (stop, supervisor.failed)
        waits = [asyncio.create_task(event.wait()) for event in events]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
    if supervisor.failure:
        raise StackError(supervisor.failure)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1]), float(sys.argv[2])))
