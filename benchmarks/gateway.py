"""What the gateway costs and whether it counts exactly: `python -m benchmarks.gateway`.

The real gateway (`python -m gateway`, a real valkey beside it) runs under the full gate -
authenticate, hold, forward, settle, event written - pinned to one core, between a load generator
and a fake upstream that are the same for every row and every peer. The table states throughput,
added latency, memory, and the exactness of the accounting: parallel calls against credits for
exactly so many, callers that try again, and SIGKILL under load. `--full` runs the long versions,
`--peers` installs and measures other gateways. Method and figures: README.gateway.md.
"""

import argparse
import asyncio
import gc
import os

import uvloop

from benchmarks.load import processes, speed
from benchmarks.load.table import Table
from benchmarks.load.world import world


async def measure(arguments: argparse.Namespace) -> Table:
    """Measure row by row."""
    table = Table()
    async with world() as around:
        await speed.harness_ceiling(around, table, 2)
        await speed.gateway_speeds(around, table, arguments.seconds)
        await speed.added_latency(around, table, 2000)
        await speed.added_first_byte(around, table, 4)
        await speed.memory(around, table, 20_000)
        await speed.many_streams(around, table, 100, 6)
    return table


def main() -> int:
    """Measure, print the table; return 1 if an exactness row failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {processes.OTHER_CORE})
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        table = runner.run(measure(arguments))
    table.show()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
