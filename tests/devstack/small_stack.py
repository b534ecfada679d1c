"""A supervisor of small programs, as a separate process that a test can kill.

The first argument is JSON: a list of stages, each a map from a program's name to its Python code.
The second is the number of seconds that the programs have to stop.
"""

import asyncio
import json
import os
import signal
import sys

from devstack.servers import Program
from devstack.supervision.console import Console
from devstack.supervision.supervisor import Supervisor


def program(name: str, code: str) -> Program:
    """Return a program. One that is called "never-ready" is never ready."""
    return Program(name, [sys.executable, "-uc", code], lambda: name != "never-ready")


async def main(stages: list[dict[str, str]], stop_within: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    async with Supervisor(os.environ, Console(), stop_within) as supervisor:
        for stage in stages:
            await supervisor.start([program(name, code) for name, code in stage.items()])
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1]), float(sys.argv[2])))
