"""The gateway and its surroundings: a real Redis-protocol server, a fake Django and provider."""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from benchmarks.load import processes
from benchmarks.load.generator import Load, small_body
from benchmarks.load.tollgate import SERVICE_TOKEN, Project, Tollgate
from benchmarks.load.upstream import Upstream
from devstack.servers import accepts_connections, answers, free_port, redis_server

ROOT = Path(__file__).resolve().parent.parent.parent
GATEWAY_ONLY = frozenset({processes.GATEWAY_CORE})
PATH = "/slack_app/v1/messages"


@dataclass
class World:
    """The stores and fakes that the rows use."""

    directory: Path
    upstream: Upstream
    tollgate: Tollgate
    redis_url: str
    redis: "redis.Redis"

    def load(self, url: str, tokens: list[str], body: bytes | None = None) -> Load:
        """Return a load of calls to a gateway as product `slack_app`."""
        return Load(url, body or small_body(), PATH, tokens)

    def tokens(self, project: Project, count: int = 64) -> list[str]:
        """Create tokens for `count` runs of a project."""
        return [self.tollgate.token(project) for _ in range(count)]

    def account(self, project: Project) -> dict[str, int]:
        """Return an account in the gateway's Redis: micro-credits spent, held and pending."""
        names = ("spent", "held", "pending")
        values = self.redis.hmget(f"tollgate:account:{project.account}", names)
        return {name: int(value or 0) for name, value in zip(names, values, strict=True)}

    def at_rest(self, project: Project) -> bool:
        """Return whether nothing is held and every event was delivered."""
        account = self.account(project)
        return account["held"] == account["pending"] == 0 and not self.redis.xlen("tollgate:events")


class Gateway:
    """`python -m gateway`, one process."""

    def __init__(
        self,
        world: World,
        cores: AbstractSet[int] = GATEWAY_ONLY,
        argv: Sequence[str] = (sys.executable, "-m", "gateway"),
        **environment: str,
    ) -> None:
        self._cores = cores
        self._argv = list(argv)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = world.directory / f"gateway-{self.port}.log"
        self._environment = {
            "PYTHONPATH": str(ROOT),
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_REDIS_URL": world.redis_url,
            "TOLLGATE_URL": world.tollgate.url,
            "GATEWAY_SERVICE_TOKEN": SERVICE_TOKEN,
            "ANTHROPIC_UPSTREAM_URL": world.upstream.url,
            "ANTHROPIC_API_KEY": "sk-ant-key-of-the-operator",
            # A few tokens make the load of many, so this limit is raised; it is still checked.
            "GATEWAY_REQUESTS_PER_MINUTE": "100000000",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running gateway."""
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        """Start the gateway on its core and wait until it is ready."""
        process = self.process = processes.start(
            self._argv,
            self.log,
            cores=self._cores,
            environment=self._environment,
        )
        await asyncio.to_thread(
            processes.wait_ready, process, lambda: answers(f"{self.url}/_ready"), self.log
        )

    def kill(self) -> None:
        """SIGKILL it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def stop(self) -> None:
        """Stop it as an operator would."""
        if self.process is not None:
            await asyncio.to_thread(processes.stop, self.process)


@asynccontextmanager
async def gateway_of(world: World, **environment: str) -> AsyncIterator[Gateway]:
    """Run a gateway until the block ends."""
    async with gateways_of(world, 1, **environment) as (gateway,):
        yield gateway


@asynccontextmanager
async def gateways_of(
    world: World, count: int, cores: AbstractSet[int] = GATEWAY_ONLY, **environment: str
) -> AsyncIterator[list[Gateway]]:
    """Run several gateways on one Redis, each with its own port."""
    gateways = [Gateway(world, cores, **environment) for _ in range(count)]
    try:
        await asyncio.gather(*(gateway.start() for gateway in gateways))
        yield gateways
    finally:
        await asyncio.gather(*(gateway.stop() for gateway in gateways))


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Start the stores and fakes on the harness's core; remove everything at the end."""
    directory = Path(tempfile.mkdtemp(prefix="tollgate-bench-"))
    upstream, tollgate = Upstream(), Tollgate()
    await upstream.start()
    await tollgate.start()
    port = free_port()
    program = redis_server("redis", directory / "redis", port)
    try:
        with (
            processes.running(
                program.argv,
                directory / "redis.log",
                lambda: accepts_connections(port) and program.ready(),
                cores={processes.OTHER_CORE},
            ),
            redis.Redis(port=port, decode_responses=True) as client,
        ):
            yield World(directory, upstream, tollgate, f"redis://127.0.0.1:{port}/0", client)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
