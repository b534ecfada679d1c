"""`POST /api/usage_events/`, everything included: `python -m benchmarks.ingestion [SECONDS]`.

One granian process with its own core takes batches of 500 events over two connections, on the
embedded default and on PostgreSQL. The stores and the load generator share the other core. The
ledger is verified afterwards. README.billing.md has the method and the figures.
"""

import http.client
import json
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.load import processes
from benchmarks.load.table import Table
from devstack.commands import WEB
from devstack.servers import answers, free_port, redis_server
from tests.postgres import postgres_server

BATCH = 500
CONNECTIONS = 2
SECONDS = 60.0
WARM_UP_SECONDS = 2.0
LEAST = {"embedded default": 5_000, "PostgreSQL": 3_000}

TOKEN = "the-service-token-of-the-benchmark"
PYTHON = Path(sys.executable)
HERE = frozenset({processes.OTHER_CORE})
SERVED = frozenset({processes.GATEWAY_CORE})


def main(seconds: float) -> int:
    """Print the table; return 1 if a figure was missed."""
    os.sched_setaffinity(0, HERE)
    table = Table()
    for name, least in LEAST.items():
        with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as scratch:
            Path(scratch).chmod(0o755)  # PostgreSQL's own user passes through
            measure(table, name, least, Path(scratch), seconds)
    table.show()
    return 1 if table.missed else 0


@dataclass
class Seen:
    """The results of the generator. `times` are those of whole batches, in ms."""

    events: int = 0
    times: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def measure(table: Table, name: str, least: int, scratch: Path, seconds: float) -> None:
    """Deliver for a while, then verify the ledger."""
    with serving(scratch, on_postgresql=name == "PostgreSQL") as site:
        deliver(site.port, site.project, WARM_UP_SECONDS)
        with processes.costing(site.pid) as cost:
            seen = deliver(site.port, site.project, seconds)
        rate = seen.events / seconds
        table.add(
            f"{name}: ingestion, batches of {BATCH}, {CONNECTIONS} connections",
            f"{rate:,.0f} events/s",
            f"≥ {least:,}",
            rate >= least and not seen.failures,
            note=f"{cost.cpu / max(seen.events, 1) * 1e6:.0f} µs of CPU an event, {cost.note()}",
            noisy=cost.noisy,
        )
        for failure in seen.failures[:3]:
            print(f"  failed: {failure}")
        ordered = sorted(seen.times)
        table.add(
            f"{name}: one batch, p50 / p99",
            f"{ordered[len(ordered) // 2]:.0f} / {ordered[-1 - len(ordered) // 100]:.0f} ms",
        )
        verified = site.manage("verify_ledger").strip().splitlines()
        table.add(
            f"{name}: ledger = totals afterwards",
            verified[0],
            "no difference",
            verified[-1].startswith("Everything agrees"),
            exactness=True,
        )


@dataclass(frozen=True)
class Site:
    """One web process, its stores, and its environment."""

    port: int
    pid: int
    environment: dict[str, str]
    project: dict[str, str]

    def manage(self, *arguments: str) -> str:
        """Run a command of Tollgate and return its output."""
        return processes.manage(self.environment, *arguments)


@contextmanager
def serving(scratch: Path, *, on_postgresql: bool) -> Iterator[Site]:
    """Run Redis, a database, and one web process on its own core; create one project."""
    redis_port, web_port, postgres_port = free_port(), free_port(), free_port()
    database = (
        f"postgres://postgres@127.0.0.1:{postgres_port}/postgres"
        if on_postgresql
        else f"sqlite:///{scratch / 'db.sqlite3'}"
    )
    environment = {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SECRET_KEY": "a secret of the benchmark, longer than fifty characters, of no value",
        "DATABASE_URL": database,
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "SLACK_SIGNING_SECRET": "of no value",
        "GATEWAY_SERVICE_TOKEN": TOKEN,
    }

    with ExitStack() as stack:
        stack.enter_context(
            postgres_server(scratch / "postgres", postgres_port) if on_postgresql else nullcontext()
        )
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
                "1000000000",
                "--json",
            )
        )
        web = stack.enter_context(
            processes.running(
                [
                    *(str(PYTHON.with_name(WEB[0])), *WEB[1:]),
                    "--port",
                    str(web_port),
                ],
                scratch / "web.log",
                lambda: answers(f"http://127.0.0.1:{web_port}/_health"),
                cores=SERVED,
                environment=environment,
            )
        )
        yield Site(web_port, web.pid, environment, made)


def deliver(port: int, project: dict[str, str], seconds: float) -> Seen:
    """Return the results of posting batches over several connections until the time is over."""
    seen, lock = Seen(), threading.Lock()
    template = event_template(project)
    deadline = time.perf_counter() + seconds

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.perf_counter() < deadline:
            body = batch(template)
            began = time.perf_counter()
            connection.request(
                "POST",
                "/api/usage_events/",
                body,
                {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"},
            )
            answer = connection.getresponse()
            text = answer.read()
            with lock:
                if answer.status == 200 and text.count(b'"accepted"') == BATCH:
                    seen.events += BATCH
                    seen.times.append((time.perf_counter() - began) * 1e3)
                else:
                    seen.failures.append(f"{answer.status} {text[:200]!r}")
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def event_template(project: dict[str, str]) -> str:
    """Return an event as the gateway sends it, with placeholders for its uuid and time."""
    organization = project["organization_id"]
    event = {
        "uuid": "UUID",
        "event": "$ai_generation",
        "timestamp": "TIME",
        "distinct_id": "slack:T012ABCDE:U012ABCDE",
        "account": f"{organization}:ai_credits",
        "group": "gateway:7d3b5c52-92d3-4a0e-8b3a-1c5b3b3b9f54",
        "hold_id": "UUID",
        "debited_micro": 1_236_000,
        "properties": {
            "$ai_billable": True,
            "ai_product": "slack_app",
            "$ai_model": "claude-sonnet-4-5-20250929",
            "$ai_provider": "anthropic",
            "$ai_stream": True,
            "$ai_trace_id": "c9c4e0b1-3f38-4d5d-9b6a-6a1c0f1f6b52",
            "organization_id": organization,
            "project_id": project["project_id"],
            "task_run_id": "c9c4e0b1-3f38-4d5d-9b6a-6a1c0f1f6b52",
            "$ai_input_tokens": 1200,
            "$ai_output_tokens": 300,
            "$ai_cache_read_input_tokens": 18_000,
            "$ai_cache_creation_input_tokens": 400,
            "$ai_cache_creation_5m_input_tokens": 400,
            "$ai_cache_creation_1h_input_tokens": 0,
            "$ai_web_search_count": 0,
            "$ai_total_cost_usd": "0.0103",
            "$ai_latency": 3.172,
            "$ai_is_error": False,
            "$ai_http_status": 200,
            "$ai_usage_estimated": False,
            "$ai_service_tier": "standard",
            "price_version": "genai-prices 0.0.40",
        },
    }
    return json.dumps(event)


def batch(template: str) -> bytes:
    """Return a batch of new events."""
    timed = template.replace("TIME", datetime.now(UTC).isoformat())
    events = (timed.replace("UUID", str(uuid.uuid4())) for _ in range(BATCH))
    return f'{{"batch": [{",".join(events)}]}}'.encode()


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))
