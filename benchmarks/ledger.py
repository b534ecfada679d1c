"""The growing ledger: `python -m benchmarks.ledger [EVENTS]`.

This books shuffled events of one organization, then all of them again in another order. After that
it measures a decision and a rebuild. It runs on the embedded default and on PostgreSQL, each in a
separate process. README.billing.md has the method and the figures.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.load.table import Table
from devstack.servers import free_port
from tests.postgres import postgres_server

EVENTS = 1_000_000
FEW_EVENTS = 10_000
BATCH = 1_000
DECISIONS = 60
MOST_GROWTH = 1.2
MOST_REBUILD_SECONDS_PER_MILLION = 180


def main(events: int) -> int:
    """Print the table; return 1 if a figure was missed."""
    table = Table()
    for name in ("embedded default", "PostgreSQL"):
        with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as scratch:
            Path(scratch).chmod(0o755)  # PostgreSQL's own user passes through
            port = free_port()
            on_postgresql = name == "PostgreSQL"
            server = postgres_server(Path(scratch) / "postgres", port)
            with server if on_postgresql else nullcontext():
                database = (
                    f"postgres://postgres@127.0.0.1:{port}/postgres"
                    if on_postgresql
                    else f"sqlite:///{scratch}/db.sqlite3"
                )
                show(table, name, events, measure_in_subprocess(database, events))
    table.show()
    return 1 if table.missed else 0


def measure_in_subprocess(database: str, events: int) -> dict[str, Any]:
    """Measure on a database, without Redis; publications wait for it."""
    environment = {
        "PATH": os.environ["PATH"],
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SECRET_KEY": "a secret of the benchmark, longer than fifty characters, of no value",
        "DATABASE_URL": database,
        "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "SLACK_SIGNING_SECRET": "of no value",
        "GATEWAY_SERVICE_TOKEN": "of-no-value",
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ledger", "measure", str(events)],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def show(table: Table, name: str, events: int, seen: dict[str, Any]) -> None:
    """Add the rows of one database."""
    load = f"load {os.getloadavg()[0]:.1f}"
    table.add(
        f"{name}: {events:,} events booked shuffled, then all again in another order",
        f"{seen['booked']:,.0f} and {seen['again']:,.0f} events/s",
        "same balances",
        seen["balances"],
        note=load,
        exactness=True,
    )
    few, many = seen["decisions"]
    growth = many / few
    table.add(
        f"{name}: one decision, of {FEW_EVENTS:,} and of {events:,} events in the period, in turn",
        f"{few:.2f} and {many:.2f} ms, ×{growth:.2f} ({seen['first']:.2f} ms with few in all)",
        f"≤ {MOST_GROWTH}×",
        growth <= MOST_GROWTH,
        note=load,
    )
    table.add(
        f"{name}: disk for a million events, with their indexes and totals",
        f"{seen['bytes'] / events / 1000:.2f} GB",
        note=load,
    )
    most = MOST_REBUILD_SECONDS_PER_MILLION * events / 1_000_000
    table.add(
        f"{name}: rebuild of all projections from {events:,} events",
        f"{seen['rebuild']:.1f} s",
        f"≤ {most:.0f} s",
        seen["rebuild"] <= most,
        note=load,
    )


def measure(events: int) -> dict[str, Any]:
    """Return the figures: rates per second, a rebuild in seconds, and decisions in milliseconds."""
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import transaction
    from django.utils import timezone

    from billing.account_locks import lock_accounts
    from billing.allowances.grants import grant_credits
    from billing.allowances.limits import set_limit
    from billing.decisions.enforcement import enforce
    from billing.ingestion.ledger import book
    from billing.models import Account
    from billing.organizations import create_organization, create_project
    from quota.models import QuotaState
    from quota.resources import AI_CREDITS

    call_command("migrate", verbosity=0)
    projects = [create_project(create_organization(name), "Bench") for name in ("Many", "Few")]
    for project in projects:
        set_limit(project.organization, AI_CREDITS, 10**15)
        grant_credits(project.organization, AI_CREDITS, 10**15)
    organization = projects[0].organization
    history = [_event(projects[0], number) for number in range(events)]
    expected = sum(number % 9 * 1_200_000 for number in range(events))

    def deliver(order: list[dict[str, Any]]) -> None:
        for at in range(0, len(order), BATCH):
            book(order[at : at + BATCH])

    def decisions() -> list[float]:
        """Return the fastest decision about each account, timed in turn.

        If the machine gets slower, it gets slower for both.
        """
        accounts = [
            Account.objects.get(organization=project.organization, resource=AI_CREDITS).pk
            for project in (projects[1], projects[0])
        ]
        times: dict[int, list[float]] = {account: [] for account in accounts}
        for account in accounts * DECISIONS:
            with transaction.atomic():
                began = time.perf_counter()
                enforce(lock_accounts([account]), timezone.now(), republish=True)
                times[account].append((time.perf_counter() - began) * 1e3)
        return [min(times[account]) for account in accounts]

    def used() -> int | None:
        state = QuotaState.objects.get(organization=organization, resource=AI_CREDITS)
        return state.published.usage_micro

    deliver([_event(projects[1], events + number) for number in range(FEW_EVENTS)])
    seen: dict[str, Any] = {"first": decisions()[0]}
    random.Random(1).shuffle(history)
    empty = _database_size()
    began = time.perf_counter()
    deliver(history)
    seen["booked"] = events / (time.perf_counter() - began)
    seen["bytes"] = _database_size() - empty
    seen["decisions"] = decisions()
    balances = [used()]

    random.Random(2).shuffle(history)
    began = time.perf_counter()
    deliver(history)
    seen["again"] = events / (time.perf_counter() - began)
    balances.append(used())

    began = time.perf_counter()
    call_command("rebuild_quota", stdout=sys.stderr)
    seen["rebuild"] = time.perf_counter() - began
    balances.append(used())
    seen["balances"] = balances == [expected] * 3
    return seen


def _database_size() -> int:
    """Return the bytes of the database's files, without the write-ahead log."""
    from django.db import connection

    question = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    if connection.vendor == "postgresql":
        question = "SELECT pg_database_size(current_database())"
    with connection.cursor() as cursor:
        cursor.execute(question)
        return int(cursor.fetchone()[0])


def _event(project: Any, number: int) -> dict[str, Any]:
    """Return one event of the current period."""
    return {
        "uuid": str(uuid.UUID(int=random.Random(number).getrandbits(128))),
        "timestamp": (datetime.now(UTC) - timedelta(microseconds=number)).isoformat(),
        "distinct_id": f"slack:T1:U{number % 50}",
        "properties": {
            "ai_product": "slack_app",
            "$ai_model": "claude-sonnet-4-5",
            "$ai_total_cost_usd": f"0.0{number % 9}",
            "organization_id": str(project.organization_id),
            "project_id": project.pk,
        },
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(int(sys.argv[2]))))
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS))
