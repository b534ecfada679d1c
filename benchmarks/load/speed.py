"""The rows about time and memory."""

import asyncio
from dataclasses import dataclass

from benchmarks.load import processes
from benchmarks.load.generator import (
    Load,
    Result,
    at_once,
    closed_loop,
    large_body,
    percentile,
    small_body,
)
from benchmarks.load.table import Table
from benchmarks.load.tollgate import settled
from benchmarks.load.wire import Reply
from benchmarks.load.world import World, gateway_of

WARM_UP = 0.7  # seconds


@dataclass(frozen=True)
class Speed:
    """Throughput of one gateway: successful calls per second, CPU in milliseconds per call."""

    rate: float
    cpu_ms: float
    noisy: bool
    note: str

    @classmethod
    def mean(cls, rounds: list["Speed"]) -> "Speed":
        """Return the mean of several rounds of the same length."""
        count = len(rounds)
        rate = sum(each.rate for each in rounds) / count
        cpu_ms = sum(each.cpu_ms * each.rate for each in rounds) / count / rate
        return cls(rate, cpu_ms, any(each.noisy for each in rounds), rounds[-1].note)

    def against(self, other: "Speed") -> float:
        """Return this throughput divided by the other's.

        If either had to share its core, compare the CPU per call instead: both use a whole core, so
        it determines their throughput.
        """
        if self.noisy or other.noisy:
            return other.cpu_ms / self.cpu_ms
        return self.rate / other.rate

    def __str__(self) -> str:
        return f"{self.rate:,.0f}/s, {self.cpu_ms:.2f} ms CPU"


async def throughput(pid: int, load: Load, connections: int, seconds: float) -> Speed:
    """Return the speed of one gateway with this number of concurrent calls."""
    await closed_loop(load, connections, seconds=WARM_UP)
    with processes.costing(pid) as cost:
        result = (await closed_loop(load, connections, seconds=seconds)).check()
    return Speed(result.rate, cost.cpu / result.calls * 1000, cost.noisy, cost.note())


async def gateway_speeds(world: World, table: Table, seconds: float) -> None:
    """Measure the gateway: small and large calls, streams, and with the stricter Redis."""
    project = world.tollgate.project()
    tokens = world.tokens(project)
    stream = small_body(stream=True)
    async with gateway_of(world) as gateway:
        for what, body, connections, fsync in (
            ("JSON", small_body(), 16, "everysec"),
            ("JSON", small_body(), 64, "everysec"),
            ("streams of 24 events", stream, 16, "everysec"),
            ("200 KB bodies", large_body(), 16, "everysec"),
            ("JSON, appendfsync always", small_body(), 16, "always"),
            ("JSON, appendfsync always", small_body(), 64, "always"),
        ):
            world.redis.config_set("appendfsync", fsync)
            load = world.load(gateway.url, tokens, body)
            speed = await throughput(gateway.pid, load, connections, seconds)
            table.add(f"gateway, {what}, {connections} concurrent", str(speed), note=speed.note)
        world.redis.config_set("appendfsync", "everysec")
        await settled(lambda: world.at_rest(project), 60, "the delivery of all events")


async def harness_ceiling(world: World, table: Table, seconds: float) -> None:
    """Measure generator and upstream without a gateway."""
    load = Load(world.upstream.url, small_body())
    for connections in (16, 64):
        await closed_loop(load, connections, seconds=WARM_UP)
        result = (await closed_loop(load, connections, seconds=seconds)).check()
        table.add(f"no gateway at all, JSON, {connections} concurrent", f"{result.rate:,.0f}/s")


async def added_latency(world: World, table: Table, seconds: float) -> None:
    """Measure one call at a time, in turn with and without the gateway."""
    project = world.tollgate.project()
    async with gateway_of(world) as gateway:
        through = world.load(gateway.url, world.tokens(project))
        direct = Load(world.upstream.url, small_body())
        await closed_loop(through, 1, seconds=WARM_UP)
        seen, base = Result(), Result()
        with processes.costing(gateway.pid) as cost:
            for _ in range(10):
                for load, result in ((through, seen), (direct, base)):
                    part = await closed_loop(load, 1, seconds=seconds / 10)
                    result.totals += part.check().totals
        added = _added(seen.totals, base.totals, 0.5)
        table.add(
            "added latency, 1 concurrent call, p50",
            f"{added:.2f} ms (p99 {_added(seen.totals, base.totals, 0.99):.2f})",
            "≤ 1.5 ms",
            added <= 1.5,
            cost.note(),
            noisy=cost.noisy,
        )


async def added_first_byte(world: World, table: Table, seconds: float) -> None:
    """Measure streams of 24 events in 0.6 s, kept open in parallel, and all begun at once."""
    project = world.tollgate.project()
    world.upstream.interval = 0.025
    async with gateway_of(world) as gateway:
        tokens = world.tokens(project)
        through = world.load(gateway.url, tokens, small_body(stream=True))
        direct = Load(world.upstream.url, small_body(stream=True))
        await closed_loop(through, 16, seconds=1)
        for streams, most in ((16, 3.0), (64, 15.0)):
            with processes.costing(gateway.pid) as cost:
                seen = await closed_loop(through, streams, seconds=seconds, spread=0.6)
                base = await closed_loop(direct, streams, seconds=seconds, spread=0.6)
            added = _added(seen.check().first_bytes, base.check().first_bytes, 0.5)
            table.add(
                f"time to first byte added, {streams} streams open, p50",
                f"{added:.2f} ms (p99 {_added(seen.first_bytes, base.first_bytes, 0.99):.2f})",
                f"≤ {most:g} ms",
                added <= most,
                cost.note(),
                noisy=cost.noisy,
            )
            with processes.costing(gateway.pid) as cost:
                first, plain = [], []
                for _ in range(max(3, int(seconds / 1.3))):
                    first += [_first_byte(reply) for _, reply in await at_once(through, streams)]
                    plain += [_first_byte(reply) for _, reply in await at_once(direct, streams)]
            added = _added(first, plain, 0.5)
            table.add(
                f"time to first byte added, {streams} streams begun in one moment, p50",
                f"{added:.2f} ms (p99 {_added(first, plain, 0.99):.2f})",
                f"≤ {most:g} ms",
                added <= most,
                cost.note(),
                noisy=cost.noisy,
            )
    world.upstream.interval = 0.0


def _first_byte(reply: Reply) -> float:
    if reply.status != 200:
        raise RuntimeError(f"a stream was answered with {reply.status}: {reply.body[:300]!r}")
    return reply.first_byte - reply.started


def _added(seen: list[float], base: list[float], share: float) -> float:
    """Return the difference of two percentiles in milliseconds."""
    return (percentile(seen, share) - percentile(base, share)) * 1000


async def memory(world: World, table: Table, calls: int) -> None:
    """Measure the resident memory of one process, idle and during many calls."""
    project = world.tollgate.project()
    world.tollgate.keep_events = False
    async with gateway_of(world) as gateway:
        idle = processes.resident_megabytes(gateway.pid)
        load = world.load(gateway.url, world.tokens(project))
        sizes = []
        for _ in range(4):
            (await closed_loop(load, 16, count=calls // 4, seconds=300)).check()
            sizes.append(processes.resident_megabytes(gateway.pid))
        await settled(lambda: world.at_rest(project), 60, "the delivery of all events")
        await asyncio.sleep(0.5)
    growth = sizes[-1] - sizes[1]
    steps = ", ".join(f"{size:.0f}" for size in sizes)
    table.add(
        f"memory of one process, idle / after each quarter of {calls:,} calls",
        f"{idle:.0f} / {steps} MB",
        "≤ 120 MB, ≤ 5 MB from the second on",
        max(sizes) <= 120 and growth <= 5,
    )
    world.tollgate.keep_events = True


async def many_streams(world: World, table: Table, streams: int, seconds: int) -> None:
    """Measure long streams with two chunks a second, started evenly over half their length."""
    project = world.tollgate.project()
    upstream = world.upstream
    usual, upstream.interval, upstream.events = upstream.events, 0.5, 2 * seconds - 5
    async with gateway_of(world) as gateway:
        through = world.load(gateway.url, world.tokens(project), small_body(stream=True))
        direct = Load(upstream.url, small_body(stream=True))
        await closed_loop(through, 1, count=1)
        most = 0.0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, processes.resident_megabytes(gateway.pid))
                await asyncio.sleep(0.5)

        watching = asyncio.create_task(watch())
        with processes.costing(gateway.pid) as cost:
            seen = (await closed_loop(through, streams, count=streams, spread=seconds / 2)).check()
        watching.cancel()
        base = (await closed_loop(direct, streams, count=streams, spread=2)).check()
        added = _added(seen.first_bytes, base.first_bytes, 0.99)
        await settled(lambda: world.at_rest(project), 60, "the delivery of all events")
    upstream.interval, upstream.events = 0.0, usual
    what = f"{streams} streams of {seconds} s begun over {seconds // 2} s"
    table.add(f"{what}: memory", f"{most:.0f} MB", "≤ 300 MB", most <= 300, cost.note())
    table.add(
        f"{what}: time to first byte added, p99",
        f"{added:.1f} ms",
        "≤ 50 ms",
        added <= 50,
        cost.note(),
        noisy=cost.noisy,
    )
