"""What the gateway costs and whether it counts exactly: `python -m benchmarks.gateway`.

The real gateway (`python -m gateway` with a real Valkey) does everything it does in production:
authenticate, hold, forward, settle, write the event. It has one core, between a load generator and
a fake upstream that are the same for every row and every peer. The table shows throughput, added
latency, memory, and whether the accounting is exact: parallel calls with credits for some of them,
callers that retry, and SIGKILL under load. `--short` shortens the parts that take minutes.
`--peers` installs other gateways, which every later run measures too. README.gateway.md has the
method and the figures.
"""

import argparse
import asyncio
import gc
import os
import sys

import uvloop

from benchmarks.load import comparison, exactness, machine, peers, processes, speed
from benchmarks.load.table import Table
from benchmarks.load.world import world

PARTS = ("exactness", "latency", "memory", "speed", "streams")


async def measure(parts: list[str], *, seconds: float, short: bool, table: Table) -> None:
    """Add the rows of these parts to the table."""
    async with world() as around:
        if "speed" in parts:
            await speed.harness_ceiling(around, table, seconds / 2)
            await speed.gateway_speeds(around, table, seconds)
            await comparison.compare(around, table, seconds)
        if "latency" in parts:
            await speed.added_latency(around, table, seconds)
            await speed.added_first_byte(around, table, seconds)
        if "memory" in parts:
            await speed.memory(around, table, 100_000)
        if "exactness" in parts:
            await exactness.all_at_once(around, table)
            await exactness.trying_again(around, table)
            await exactness.killed(around, table, 5 if short else 50)
        if "streams" in parts:
            streams, length = (100, 6) if short else (500, 60)
            await speed.many_streams(around, table, streams, length)


def main() -> int:
    """Measure and print the table; return 1 if a row about exactness missed its target."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.gateway")
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; by default all")
    parser.add_argument("--short", action="store_true", help="5 kills, 100 streams of 6 s")
    parser.add_argument("--peers", action="store_true", help="install other gateways first")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each throughput row")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    print(machine.describe(), flush=True)
    if arguments.peers:
        for problem in peers.install():
            print(f"could not be installed: {problem}", file=sys.stderr)
    os.sched_setaffinity(0, {processes.OTHER_CORE})
    gc.disable()  # a pause of the harness would count as latency of the gateway
    table = Table()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(
            measure(
                arguments.parts or list(PARTS),
                seconds=arguments.seconds,
                short=arguments.short,
                table=table,
            )
        )
    table.show()
    return 1 if table.inexact else 0


if __name__ == "__main__":
    raise SystemExit(main())
