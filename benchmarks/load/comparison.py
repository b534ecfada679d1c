"""The rows that compare the gateway with others."""

from benchmarks.load import peers, processes
from benchmarks.load.generator import Load, large_body, small_body
from benchmarks.load.speed import Speed, throughput
from benchmarks.load.table import Table
from benchmarks.load.world import Gateway, World, gateway_of

# The gateway's throughput must be at least this many times a peer's, with small calls.
TARGETS = {"LiteLLM proxy": 30.0, "Portkey": 3.0, "TensorZero": 0.7}
LARGE_TARGET = 0.7
ROUNDS = 2


async def compare(world: World, table: Table, seconds: float) -> None:
    """Compare every installed peer with the gateway, both just started.

    Print which peers are not installed.
    """
    tokens = world.tokens(world.tollgate.project())
    for peer in peers.PEERS:
        if not peer.installed:
            table.add(peer.name, "not installed (--peers)", _target(peer.name))
            continue
        try:
            async with gateway_of(world) as gateway, peers.running(peer, world) as (pid, load):
                pairs = _Pairs(world, gateway, tokens, pid, seconds)
                await _compare_one(peer, load, pairs, table)
        except RuntimeError as error:
            table.add(peer.name, f"does not run: {str(error)[-200:]!r}", _target(peer.name))


async def _compare_one(peer: peers.Peer, load: Load, pairs: "_Pairs", table: Table) -> None:
    for connections in (16, 64) if peer.name in TARGETS else (16,):
        await pairs.add(
            table,
            f"against {peer.name}, JSON, {connections} concurrent",
            load,
            small_body(),
            connections,
            TARGETS.get(peer.name),
        )
    if peer is peers.AIOHTTP:
        await pairs.add(
            table,
            f"against {peer.name}, 200 KB bodies, 16 concurrent",
            Load(load.url, large_body(), load.path),
            large_body(),
            16,
            LARGE_TARGET,
        )


class _Pairs:
    """Measures the gateway and one peer in turn, so that noise is the same for both."""

    def __init__(
        self, world: World, gateway: Gateway, tokens: list[str], pid: int, seconds: float
    ) -> None:
        self._world = world
        self._gateway = gateway
        self._tokens = tokens
        self._pid = pid
        self._seconds = seconds

    async def add(
        self,
        table: Table,
        what: str,
        load: Load,
        body: bytes,
        connections: int,
        least: float | None,
    ) -> None:
        """Add the row of one comparison; `load` and `body` are the peer's and the gateway's."""
        ours, theirs = [], []
        own = self._world.load(self._gateway.url, self._tokens, body)
        for _ in range(ROUNDS):
            with processes.stopped([self._pid]):
                ours.append(
                    await throughput(self._gateway.pid, own, connections, self._seconds / ROUNDS)
                )
            with processes.stopped([self._gateway.pid]):
                theirs.append(
                    await throughput(self._pid, load, connections, self._seconds / ROUNDS)
                )
        seen, other = Speed.mean(ours), Speed.mean(theirs)
        times = seen.against(other)
        table.add(
            what,
            f"{times:.{1 if times < 10 else 0}f} × ({seen} : {other})",
            "" if least is None else f"≥ {least:g} ×",
            None if least is None else times >= least,
            other.note,
            noisy=seen.noisy or other.noisy,
        )


def _target(name: str) -> str:
    return f"≥ {TARGETS[name]:g} ×" if name in TARGETS else ""
