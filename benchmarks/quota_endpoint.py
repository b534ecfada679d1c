"""`GET quota_limits/` compared with an empty view: `python -m benchmarks.quota_endpoint`.

One granian process with its own core serves both with the same settings and middleware. The stores,
the reconciler and the load generator share the other core. It runs on the embedded default and on
PostgreSQL. README.quota.md has the method and the figures.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.load import processes, wire
from benchmarks.load.table import Table
from devstack.commands import WEB
from devstack.servers import answers, free_port, redis_server
from tests.postgres import postgres_server

CONNECTIONS = 16
SECONDS = 2.0
ROUNDS = 5
RATE = 100
PACED_SECONDS = 10.0

QUOTA = "quota_limits, warm"
LEAST_RATIO = 0.7
MOST_P99_MS = 30.0

PYTHON = Path(sys.executable)
HERE = frozenset({processes.OTHER_CORE})
SERVED = frozenset({processes.GATEWAY_CORE})


def main() -> int:
    """Print the table; return 1 if a figure was missed."""
    os.sched_setaffinity(0, HERE)
    table = Table()
    for name in ("embedded default", "PostgreSQL"):
        with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as scratch:
            Path(scratch).chmod(0o755)  # PostgreSQL's own user passes through
            with serving(Path(scratch), on_postgresql=name == "PostgreSQL") as (
                url,
                key,
                project,
                pid,
            ):
                asyncio.run(measure(table, name, url, key, project, pid))
    table.show()
    return 1 if table.missed else 0


@contextmanager
def serving(scratch: Path, *, on_postgresql: bool) -> Iterator[tuple[str, str, int, int]]:
    """Run Tollgate with one project; yield its address, a key, the project and the process."""
    redis_port, web_port, postgres_port = free_port(), free_port(), free_port()
    environment = {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SECRET_KEY": "a secret of the benchmark, longer than fifty characters, of no value",
        "DATABASE_URL": (
            f"postgres://postgres@127.0.0.1:{postgres_port}/postgres"
            if on_postgresql
            else f"sqlite:///{scratch / 'db.sqlite3'}"
        ),
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "SLACK_SIGNING_SECRET": "of no value",
        "GATEWAY_SERVICE_TOKEN": "of no value",
    }
    with ExitStack() as stack:
        if on_postgresql:
            stack.enter_context(postgres_server(scratch / "postgres", postgres_port))
        program = redis_server("redis", scratch / "redis", redis_port)
        stack.enter_context(
            processes.running(program.argv, scratch / "redis.log", program.ready, cores=HERE)
        )
        processes.manage(environment, "migrate", "--verbosity", "0")
        made = json.loads(
            processes.manage(
                environment,
                "create_project",
                "--organization",
                "Bench",
                "--name",
                "Bench",
                "--limit",
                "2000",
                "--json",
            )
        )
        stack.enter_context(
            processes.running(
                [str(PYTHON), "manage.py", "run_reconciler"],
                scratch / "reconciler.log",
                lambda: b"rebuilt Redis" in (scratch / "reconciler.log").read_bytes(),
                cores=HERE,
                environment=environment,
            )
        )
        url = f"http://127.0.0.1:{web_port}"
        web = stack.enter_context(
            processes.running(
                [
                    *(str(PYTHON.with_name(WEB[0])), *WEB[1:]),
                    "--port",
                    str(web_port),
                ],
                scratch / "web.log",
                lambda: answers(f"{url}/_health"),
                cores=SERVED,
                environment=environment
                | {
                    "DJANGO_SETTINGS_MODULE": "benchmarks.quota_site.settings",
                    "BENCHMARK_KEY": made["personal_api_key"],
                },
            )
        )
        yield url, made["personal_api_key"], made["project_id"], web.pid


async def measure(table: Table, database: str, url: str, key: str, project: int, pid: int) -> None:
    """Measure both views in turn, so that other load on the machine affects both."""
    paths = {
        QUOTA: f"/api/projects/{project}/quota_limits/",
        "an empty view, with the product's authentication": "/empty/",
        "an empty view, authenticated from a dictionary": "/bare/",
    }
    requests = {
        name: f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n\r\n"
        for name, path in paths.items()
    }
    rates: dict[str, list[float]] = {name: [] for name in paths}
    notes: dict[str, str] = {}
    for turn in range(ROUNDS + 1):
        for name, request in requests.items():
            with processes.costing(pid) as cost:
                rate = await throughput(url, request.encode())
            if turn:  # the first one warms up
                rates[name].append(rate)
                notes[name] = f"{cost.cpu / SECONDS / rate * 1e6:.0f} µs of CPU, {cost.note()}"
    for name, seen in rates.items():
        table.add(
            f"{database}: {name}, {CONNECTIONS} connections",
            f"{statistics.median(seen):.0f} requests/s",
            note=notes[name],
        )
    quota, empty, bare = rates.values()
    for other, beside, target in ((empty, "the first", LEAST_RATIO), (bare, "the second", None)):
        ratios = [one / two for one, two in zip(quota, other, strict=True)]
        ratio = statistics.median(ratios)
        table.add(
            f"{database}: throughput of quota_limits to that of {beside} empty view",
            f"{ratio:.2f}",
            f"≥ {target}" if target else "",
            ratio >= target if target else None,
            f"{min(ratios):.2f} to {max(ratios):.2f} in {ROUNDS} rounds",
        )
    with processes.costing(pid) as cost:
        latencies = await paced(url, requests[QUOTA].encode())
    p99 = statistics.quantiles(latencies, n=100)[98] * 1000
    table.add(
        f"{database}: quota_limits at {RATE} requests/s, p99",
        f"{p99:.1f} ms (p50 {statistics.median(latencies) * 1000:.1f} ms)",
        f"≤ {MOST_P99_MS:g} ms",
        p99 <= MOST_P99_MS,
        cost.note(),
    )


async def throughput(url: str, request: bytes) -> float:
    """Return the requests per second answered with 200, on all connections together."""
    deadline = time.perf_counter() + SECONDS

    async def loop() -> int:
        connection = await wire.connect(url)
        done = 0
        while time.perf_counter() < deadline:
            _expect_200(await connection.call(request))
            done += 1
        connection.close()
        return done

    started = time.perf_counter()
    done = sum(await asyncio.gather(*(loop() for _ in range(CONNECTIONS))))
    return done / (time.perf_counter() - started)


async def paced(url: str, request: bytes) -> list[float]:
    """Return the latencies of calls at a fixed rate, each from the time when it was due."""
    idle = [await wire.connect(url) for _ in range(CONNECTIONS)]
    latencies: list[float] = []

    async def call(due: float) -> None:
        connection = idle.pop() if idle else await wire.connect(url)
        _expect_200(await connection.call(request))
        latencies.append(time.perf_counter() - due)
        idle.append(connection)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as calls:
        for number in range(int(RATE * PACED_SECONDS)):
            due = began + number / RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            calls.create_task(call(due))
    for connection in idle:
        connection.close()
    return latencies


def _expect_200(reply: wire.Reply) -> None:
    if reply.status != 200:
        raise RuntimeError(f"answered {reply.status}: {reply.body[:300]!r}")


if __name__ == "__main__":
    sys.exit(main())
