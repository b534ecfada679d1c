"""The rows about other gateways."""

from benchmarks.load import peers
from benchmarks.load.generator import Load, large_body
from benchmarks.load.speed import Speed, throughput
from benchmarks.load.table import Table
from benchmarks.load.world import World

# How many times a peer's throughput the gateway's should be, with small calls.
TARGETS = {"LiteLLM proxy": 30.0, "Portkey": 3.0, "TensorZero": 0.7}
LARGE_TARGET = 0.7
Speeds = dict[tuple[str, int], Speed]


async def compare(world: World, table: Table, gateway: Speeds, seconds: float) -> None:
    """Measure every peer that is installed; say which are not."""
    for peer in peers.PEERS:
        if not peer.installed:
            table.add(peer.name, "not installed (--peers)", _target(peer.name))
            continue
        try:
            async with peers.running(peer, world) as (pid, load):
                await _measure(peer, pid, load, table, gateway, seconds)
        except RuntimeError as error:
            table.add(peer.name, f"does not run: {str(error)[-200:]!r}", _target(peer.name))


async def _measure(
    peer: peers.Peer, pid: int, load: Load, table: Table, gateway: Speeds, seconds: float
) -> None:
    for connections in (16, 64) if peer.name in TARGETS else (16,):
        speed = await throughput(pid, load, connections, max(seconds, peer.seconds))
        times = gateway["small", connections].against(speed)
        least = TARGETS.get(peer.name)
        table.add(
            f"against {peer.name}, JSON, {connections} concurrent",
            f"{times:.{1 if times < 10 else 0}f} × ({speed})",
            _target(peer.name),
            None if least is None else times >= least,
            speed.note,
            noisy=speed.noisy,
        )
    if peer is not peers.AIOHTTP:
        return
    large = Load(load.url, large_body(), load.path)
    speed = await throughput(pid, large, 16, seconds)
    times = gateway["large", 16].against(speed)
    table.add(
        f"against {peer.name}, 200 KB bodies, 16 concurrent",
        f"{times:.1f} × ({speed})",
        f"≥ {LARGE_TARGET} ×",
        times >= LARGE_TARGET,
        speed.note,
        noisy=speed.noisy,
    )


def _target(name: str) -> str:
    return f"≥ {TARGETS[name]:g} ×" if name in TARGETS else ""
