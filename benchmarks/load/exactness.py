"""The rows about money: what is admitted and what is booked, to the micro-credit."""

import asyncio
import random
from dataclasses import dataclass, field

from benchmarks.load import processes, wire
from benchmarks.load.generator import Load, at_once, small_body
from benchmarks.load.table import Table
from benchmarks.load.tollgate import Project, settled
from benchmarks.load.world import Gateway, World, gateways_of

CALLERS = 1000
HOLDS = 100
PROCESSES = 4
# Exactness is tested with processes that really run at the same time.
BOTH = frozenset({processes.GATEWAY_CORE, processes.OTHER_CORE})


async def bound_of_one_call(world: World, gateway: Gateway, body: bytes) -> int:
    """Return the micro-credits that the gateway holds for a call, by making one."""
    project = world.tollgate.project()
    world.upstream.gate.clear()
    call = asyncio.create_task(at_once(world.load(gateway.url, world.tokens(project, 1), body), 1))
    await settled(lambda: world.upstream.waiting == 1, 20, "a call at the provider")
    bound = world.account(project)["held"]
    world.upstream.gate.set()
    await call
    return bound


async def all_at_once(world: World, table: Table) -> None:
    """Send a thousand calls at once, with credits for exactly a hundred of them."""
    async with gateways_of(world, PROCESSES, BOTH) as gateways:
        bound = await bound_of_one_call(world, gateways[0], small_body())
        project = world.tollgate.project(HOLDS * bound)
        loads = await _loads(world, gateways, project)
        opened = [await wire.connect(load.url) for load in loads]
        world.upstream.gate.clear()
        calls = [
            asyncio.ensure_future(connection.call(load.next()[1]))
            for connection, load in zip(opened, loads, strict=True)
        ]
        await settled(
            lambda: world.upstream.waiting + sum(call.done() for call in calls) == CALLERS,
            60,
            "the decision about every call",
        )
        held = world.account(project)["held"]
        holding = sum(1 for _ in world.redis.scan_iter("tollgate:holds:*"))
        world.upstream.gate.set()
        statuses = [reply.status for reply in await asyncio.gather(*calls)]
        await settled(lambda: world.at_rest(project), 30, "the end of all holds")
        for each in opened:
            each.close()
    passed, refused = statuses.count(200), statuses.count(429)
    exact = (
        passed == HOLDS
        and refused == CALLERS - HOLDS
        and held == HOLDS * bound
        and _spent_as_booked(world, project)
        and project.booked <= HOLDS * bound
    )
    table.add(
        f"{CALLERS} calls at once over {PROCESSES} processes, credits for {HOLDS} holds",
        f"{passed} pass (held by {holding} of the processes), {refused} refused, "
        f"booked {project.booked / HOLDS / bound:.0%} of the limit, 0 held after",
        f"exactly {HOLDS} pass",
        exact,
        exactness=True,
    )


async def trying_again(world: World, table: Table) -> None:
    """Let as many callers retry every second, until less than one hold is left."""
    async with gateways_of(world, PROCESSES, BOTH) as gateways:
        bound = await bound_of_one_call(world, gateways[0], small_body())
        limit = HOLDS * bound
        project = world.tollgate.project(limit)
        over, passed, attempts = 0, 0, 0
        stop = asyncio.Event()

        async def watch() -> None:
            nonlocal over
            while not stop.is_set():
                account = world.account(project)
                over += account["spent"] + account["held"] > limit or project.booked > limit
                if not account["held"] and limit - account["spent"] < bound:
                    stop.set()
                await asyncio.sleep(0.005)

        async def caller(load: Load) -> None:
            nonlocal passed, attempts
            connection = await wire.connect(load.url)
            while not stop.is_set():
                attempts += 1
                if (await connection.call(load.next()[1])).status == 200:
                    passed += 1
                    break
                try:
                    async with asyncio.timeout(1):
                        await stop.wait()
                except TimeoutError:
                    continue
            connection.close()

        async with asyncio.timeout(120):
            loads = await _loads(world, gateways, project)
            await asyncio.gather(watch(), *map(caller, loads))
        await settled(lambda: world.at_rest(project), 30, "the end of all holds")
    left = limit - project.booked
    table.add(
        f"the same, trying again every second ({attempts:,} attempts)",
        f"{passed} pass, {left / bound:.2f} of a hold left, over the limit {over} times",
        "≤ limit at every instant, less than one hold left",
        not over and 0 <= left < bound and _spent_as_booked(world, project),
        exactness=True,
    )


async def _loads(world: World, gateways: list[Gateway], project: Project) -> list[Load]:
    """Return the load of each caller, spread evenly over the gateways.

    Every gateway looks up the tokens beforehand, so that all of them decide at the same time.
    """
    tokens = world.tokens(project, 8)
    for gateway in gateways:
        connection = await wire.connect(gateway.url)
        for token in tokens:
            head = f"GET /v1/usage/slack_app HTTP/1.1\r\nhost: x\r\nx-api-key: {token}\r\n\r\n"
            assert (await connection.call(head.encode())).status == 200
        connection.close()
    each = [world.load(gateway.url, tokens) for gateway in gateways]
    return each * (CALLERS // len(each))


def _spent_as_booked(world: World, project: Project) -> bool:
    return world.account(project) == {"spent": project.booked, "held": 0, "pending": 0}


@dataclass
class _Seen:
    """The trace ids of the calls, by how they ended."""

    received: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)


async def killed(world: World, table: Table, kills: int) -> None:
    """Kill the gateway under load, with JSON and streams, and then compare the records."""
    project = world.tollgate.project(10**15)
    tokens = world.tokens(project)
    world.upstream.interval = 0.005
    gateway = Gateway(world, GATEWAY_LEASE="1.5")
    await gateway.start()
    seen, stop = _Seen(), asyncio.Event()
    loads = [world.load(gateway.url, tokens, small_body(stream=each)) for each in (False, True)]
    callers = [asyncio.create_task(_call_on(load, seen, stop)) for load in loads * 12]
    for _ in range(kills):
        await asyncio.sleep(random.uniform(0.3, 1.0))
        gateway.kill()
        await gateway.start()
    await asyncio.sleep(0.5)
    stop.set()
    await asyncio.gather(*callers)
    await settled(lambda: world.at_rest(project), 60, "the end of all holds")
    await gateway.stop()
    world.upstream.interval = 0.0
    _compare_records(world, table, project, seen, kills)


async def _call_on(load: Load, seen: _Seen, stop: asyncio.Event) -> None:
    """Call again and again while the gateway is killed and restarted."""
    connection: wire.ClientConnection | None = None
    while not stop.is_set():
        if connection is None or connection.lost:
            try:
                connection = await wire.connect(load.url)
            except OSError:
                await asyncio.sleep(0.02)
                continue
        trace, request = load.next()
        reply = await connection.call(request)
        if not reply.complete:
            seen.cut.add(trace)
        else:
            (seen.received if reply.status == 200 else seen.refused).add(trace)
    if connection is not None:
        connection.close()


def _compare_records(world: World, table: Table, project: Project, seen: _Seen, kills: int) -> None:
    """Compare the provider's usage with the bookings, call by call."""
    ledger, provider = world.tollgate.by_trace, world.upstream.books
    lost = doubled = wrong = 0
    for trace in seen.received:
        events = ledger.get(trace, [])
        lost += not events
        doubled += len(events) > 1
        used = provider[trace].micro_credits()
        wrong += len(events) == 1 and (
            events[0]["debited_micro"] != used or events[0]["properties"]["$ai_usage_estimated"]
        )
    arrived = {trace for trace in seen.cut if trace in provider}
    for trace in seen.cut | seen.refused:
        count = len(ledger.get(trace, []))
        lost += trace in arrived and not count
        doubled += count > 1
    booked_cut = sum(
        event["debited_micro"] for trace in seen.cut for event in ledger.get(trace, [])
    )
    used_cut = sum(provider[trace].micro_credits() for trace in arrived)
    table.add(
        f"SIGKILL {kills} times under load, {len(seen.received):,} calls fully received",
        f"{lost} lost, {doubled} doubled, {wrong} booked otherwise than by the provider",
        "0, 0, 0",
        not (lost or doubled or wrong or world.tollgate.conflicts)
        and _spent_as_booked(world, project),
        exactness=True,
    )
    table.add(
        f"… {len(seen.cut)} calls cut off by it, {len(arrived)} of which the provider saw",
        f"each booked once; {(booked_cut - used_cut) / 1e6:+.2f} credits against "
        f"{used_cut / 1e6:.2f} used",
    )
