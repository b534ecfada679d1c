"""What each hand-written part costs compared with libraries: `python -m benchmarks.network_parts`.

The real gateway runs with one part replaced at a time, and all others unchanged: the server's
protocol, the HTTP client, or the Redis client. The alternatives of a part take turns, and the
figure is CPU per call (user and system), which other programs on the machine distort least.
README.gateway.md has the method and the figures. `network_parts server redis` measures only those.
"""

import argparse
import asyncio
import gc
import os
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from benchmarks.load import machine, peers, processes, wire
from benchmarks.load.generator import Load, large_body, small_body
from benchmarks.load.table import Table
from benchmarks.load.world import ROOT, Gateway, World, world

PARTS = {
    "server": ("ours", "uvicorn httptools, ASGI", "granian, RSGI"),
    "client": ("ours", "aiohttp", "pyreqwest", "httpx2"),
    "redis": ("ours", "redis-py", "coredis"),
}
PYTHON = peers.INSTALLED / "parts" / "bin" / "python"
REQUIREMENTS = Path(__file__).with_name("requirements-parts.txt")
# The least that a part has to save of a whole call's CPU, unless no library does what it does.
LEAST = 0.10
ROUNDS = 10
PAUSE = 0.001  # seconds between two events of a stream


@dataclass(frozen=True)
class Case:
    """One kind of call, and how many of them make one round."""

    name: str
    body: bytes
    connections: int
    calls: int


CASES = [
    Case(f"{name}, {connections} concurrent", body, connections, calls)
    for name, body, calls in (
        ("small", small_body(), 192),
        ("200 KB", large_body(), 64),
        ("stream", small_body(stream=True), 64),
    )
    for connections in (16, 64)
]


@dataclass
class Seen:
    """Milliseconds of CPU per call by alternative, one for each round."""

    rounds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, alternative: str, milliseconds: float) -> None:
        """Add a round."""
        self.rounds.setdefault(alternative, []).append(milliseconds)

    def median(self, alternative: str) -> float:
        """Return the median of the rounds."""
        return statistics.median(self.rounds[alternative])

    def saved(self, alternative: str) -> list[float]:
        """Return by round the share of a call with `alternative` that ours saves."""
        pairs = zip(self.rounds["ours"], self.rounds[alternative], strict=True)
        return [1 - ours / theirs for ours, theirs in pairs]


def install() -> None:
    """Install the libraries beside the gateway's own packages, once."""
    if PYTHON.exists():
        return
    requirements = [ROOT / "requirements-gateway.lock", REQUIREMENTS]
    pip = [str(PYTHON), "-m", "pip", "install", "-q", "-r"]
    problems = peers.install_into(
        PYTHON.parent.parent,
        [sys.executable, "-m", "venv", str(PYTHON.parent.parent)],
        *([*pip, str(each)] for each in requirements),
    )
    if problems:
        raise SystemExit(f"could not be installed: {problems[0]}")


async def measure(around: World, part: str, table: Table, rounds: int) -> None:
    """Measure all alternatives of one part of the gateway in turn."""
    tokens = around.tokens(around.tollgate.project())
    around.upstream.interval = PAUSE
    gateways: dict[str, Gateway] = {}
    try:
        for number, name in enumerate(PARTS[part]):
            gateways[name] = _gateway(around, part, name, number)
            await gateways[name].start()
        pids = {name: gateway.pid for name, gateway in gateways.items()}
        shares = Shares(part)
        for case in CASES:
            loads = {
                name: around.load(gateway.url, tokens, case.body)
                for name, gateway in gateways.items()
            }
            shares.add(table, case, await alternate(pids, loads, case, rounds))
    finally:
        await asyncio.gather(*(gateway.stop() for gateway in gateways.values()))
    shares.conclude(table)


def _gateway(around: World, part: str, name: str, number: int) -> Gateway:
    """Return a gateway with one part replaced and a database of its own in Redis."""
    database = f"{around.redis_url.rpartition('/')[0]}/{number + 1}"
    argv = [str(PYTHON), "-m", "benchmarks.parts.serve", part, name]
    return Gateway(around, argv=argv, GATEWAY_REDIS_URL=database)


async def alternate(pids: dict[str, int], loads: dict[str, Load], case: Case, rounds: int) -> Seen:
    """Return the CPU per call of every alternative; while one works, the others are stopped.

    Turns are short, so that whatever else the machine does affects all alternatives alike.
    """
    seen = Seen()
    callers = {name: Callers(load, case) for name, load in loads.items()}
    order = list(pids)
    for turn in range(rounds + 1):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            with processes.stopped(pid for other, pid in pids.items() if other != name):
                cpu = await callers[name].round(pids[name])
            if turn:  # the first one warms up
                seen.add(name, cpu / case.calls * 1000)
    for each in callers.values():
        each.close()
    return seen


class Callers:
    """Connections that stay open between the rounds."""

    def __init__(self, load: Load, case: Case) -> None:
        self._load = load
        self._case = case
        self._connections: list[wire.ClientConnection] = []

    async def round(self, pid: int) -> float:
        """Make the calls of one round; return the CPU seconds of the process and its children.

        A call on each connection comes first and is not counted. The process was stopped, and has
        to notice which of its own connections were closed meanwhile.
        """
        alive = [each for each in self._connections if not each.lost]
        while len(alive) < self._case.connections:
            alive.append(await wire.connect(self._load.url))
        self._connections = alive
        await asyncio.gather(*map(self._ensure, range(len(alive))))
        self._left, self._failed = self._case.calls, 0
        before = processes.exact_cpu_seconds(pid)
        await asyncio.gather(*map(self._work, self._connections))
        return processes.exact_cpu_seconds(pid) - before

    def close(self) -> None:
        """Close the connections."""
        for each in self._connections:
            each.close()

    async def _ensure(self, index: int) -> None:
        """Make one call successfully. After its stop, the process may miss answers of its Redis."""
        for _ in range(100):
            reply = await self._connections[index].call(self._load.next()[1])
            if reply.status == 200:
                return
            if not reply.status:
                self._connections[index] = await wire.connect(self._load.url)
            else:
                await asyncio.sleep(0.05)
        raise RuntimeError(f"answered {reply.status}: {reply.body[:300]!r}")

    async def _work(self, connection: wire.ClientConnection) -> None:
        while self._left > 0:
            self._left -= 1
            reply = await connection.call(self._load.next()[1])
            if reply.status == 200 and reply.complete:
                continue
            self._left += 1
            self._failed += 1
            if not reply.status or self._failed > self._case.calls // 10:
                raise RuntimeError(f"answered {reply.status}: {reply.body[:300]!r}")


class Shares:
    """The share of a call's CPU that a part saves, by alternative and kind of call."""

    def __init__(self, part: str) -> None:
        self._part = part
        self._medians: dict[str, list[float]] = {}

    def add(self, table: Table, case: Case, seen: Seen) -> None:
        """Add a row for each alternative."""
        for name in seen.rounds:
            if name == "ours":
                continue
            low, median, high = statistics.quantiles(seen.saved(name))
            self._medians.setdefault(name, []).append(median)
            table.add(
                f"{self._part}: ours instead of {name}, {case.name}",
                f"{median:.0%} saved ({seen.median('ours'):.3f} : {seen.median(name):.3f} ms CPU)",
                note=f"half of the rounds {low:.0%} to {high:.0%}, load {os.getloadavg()[0]:.1f}",
            )

    def conclude(self, table: Table) -> None:
        """Add the row that decides: the mean of all kinds of calls, for the cheapest library."""
        best = min(self._medians, key=lambda name: statistics.mean(self._medians[name]))
        found = self._medians[best]
        table.add(
            f"{self._part}: the mean of these, instead of the cheapest ({best})",
            f"{statistics.mean(found):.0%} saved",
            f"≥ {LEAST:.0%}",
            note=f"{min(found):.0%} to {max(found):.0%} by kind of call",
        )


async def measure_all(parts: list[str], table: Table, rounds: int) -> None:
    """Measure parts one after another."""
    async with world() as around:
        for part in parts:
            await measure(around, part, table, rounds)


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.network_parts")
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; by default all")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    install()
    print(machine.describe(), flush=True)
    os.sched_setaffinity(0, {processes.OTHER_CORE})
    gc.disable()  # a pause of the harness would distort the figures
    table = Table()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure_all(arguments.parts or list(PARTS), table, arguments.rounds))
    table.show()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
