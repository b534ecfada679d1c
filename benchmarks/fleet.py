"""Ten thousand organizations: `python -m benchmarks.fleet [NUMBER [DATABASE]]`.

This measures the cost of comparing ledger, totals, states and Redis for all organizations, and of a
hundred groups of gateways that poll the change feed, on the embedded default and on PostgreSQL.
README.billing.md has the method and the figures.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.ingestion import HERE, TOKEN, Site, serving
from benchmarks.load import processes, wire
from benchmarks.load.table import Table

DATABASES = ("embedded default", "PostgreSQL")
ORGANIZATIONS = 10_000
LIMITED = 5
"""One in this many organizations has no credits."""

HISTORY = 200_000
USING = 200
"""The number of organizations with usage."""

FALSIFIED = 100
GROUPS = 100
POLL_SECONDS = 0.25
POLLED_SECONDS = 10.0
CHANGES_PER_SECOND = 40
MOST_SECONDS = 60.0
MOST_P99_MS = POLL_SECONDS * 1e3


def main(organizations: int, databases: Sequence[str]) -> int:
    """Print the table; return 1 if a figure was missed."""
    os.sched_setaffinity(0, HERE)
    table = Table()
    for name in databases:
        with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as scratch:
            Path(scratch).chmod(0o755)  # PostgreSQL's own user passes through
            with serving(Path(scratch), on_postgresql=name == "PostgreSQL") as site:
                with beside(site, "measure", str(organizations)) as measuring:
                    said = measuring.communicate()[0]
                show(table, name, json.loads(said.splitlines()[-1]))
                follow(table, f"{name}: change feed at rest", site)
                with beside(site, "change", str(POLLED_SECONDS)):
                    follow(table, f"{name}: change feed, {CHANGES_PER_SECOND} changes/s", site)
    table.show()
    return 1 if table.missed else 0


@contextmanager
def beside(site: Site, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a part of this module in a Tollgate process, with the site's stores."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fleet", *words],
        env={"PATH": os.environ["PATH"], **site.environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
        if process.wait(MOST_SECONDS):
            raise RuntimeError(f"{words[0]}: exit status {process.returncode}")
    finally:
        process.kill()
        process.wait()


def show(table: Table, name: str, seen: dict[str, Any]) -> None:
    """Add the rows about one fleet."""
    load = f"load {os.getloadavg()[0]:.1f}"
    accounts = f"{seen['accounts']:,} accounts, {seen['limited']:,} limited"
    table.add(
        f"{name}: {accounts}: first decided and published",
        f"{seen['first']:.1f} s",
        note=load,
    )
    table.add(
        f"{name}: everything decided again and compared with what is published, at rest",
        f"{seen['sweep']:.1f} s, {seen['sweep_cpu']:.1f} s of CPU",
        f"≤ {MOST_SECONDS:g} s",
        seen["sweep"] <= MOST_SECONDS,
        note=load,
    )
    table.add(
        f"{name}: of that, totals compared with the ledger: no events / {HISTORY:,}",
        f"{seen['drift_early']:.2f} / {seen['drift_late']:.2f} s",
        note=f"{load}; all of them added up: {seen['whole']:.2f} s",
    )
    table.add(
        f"{name}: Redis compared with what is published, a slice each second",
        f"{seen['ticks']} s, {seen['tick_cpu'] * 1e3:.0f} ms of CPU a tick, "
        f"the longest {seen['tick_most'] * 1e3:.0f} ms",
        f"≤ {MOST_SECONDS:g} s",
        seen["ticks"] <= MOST_SECONDS and seen["tick_most"] <= 1,
        note=load,
    )
    share = (seen["sweep_cpu"] + 60 * seen["tick_cpu"]) / 60
    table.add(f"{name}: all of it, continuously", f"{share:.0%} of a core", note=load)
    table.add(
        f"{name}: accounts read whole, in turns, 1 s a minute",
        f"{seen['verified']} a minute, all in {seen['accounts'] / seen['verified'] / 60:.1f} h",
        note=load,
    )
    table.add(
        f"{name}: {FALSIFIED} totals, {FALSIFIED} states and {FALSIFIED} scores in Redis falsified",
        f"{seen['totals']:.0f}, {seen['states']:.0f} and {seen['scores']:.0f} repaired at once",
        "all",
        (seen["totals"], seen["states"], seen["scores"]) == (FALSIFIED,) * 3,
        note=load,
        exactness=True,
    )


def follow(table: Table, what: str, site: Site) -> None:
    """Poll the change feed like `GROUPS` groups, and add the cost to the table."""
    with processes.costing(site.pid) as cost:
        latencies, late = asyncio.run(poll(f"http://127.0.0.1:{site.port}"))
    share = cost.cpu / POLLED_SECONDS
    p99 = statistics.quantiles(latencies, n=100)[98] * 1e3
    table.add(
        f"{what}, {GROUPS} groups every {POLL_SECONDS * 1e3:.0f} ms, p50 / p99 of a poll",
        f"{statistics.median(latencies) * 1e3:.1f} / {p99:.1f} ms",
        f"≤ {MOST_P99_MS:g} ms",
        p99 <= MOST_P99_MS,
        note=f"{len(latencies) / POLLED_SECONDS:.0f} polls/s, {late} begun late, {cost.note()}",
        noisy=cost.noisy,
    )
    table.add(
        f"{what}: share of one web process",
        f"{share:.0%} of a core, {cost.cpu / len(latencies) * 1e6:.0f} µs a poll",
        note=cost.note(),
        noisy=cost.noisy,
    )


async def poll(url: str) -> tuple[list[float], int]:
    """Return the latencies of all polls, and how many began later than they were due."""
    latencies: list[float] = []
    late = 0
    began = time.perf_counter()

    async def group(number: int) -> None:
        nonlocal late
        connection = await wire.connect(url)
        cursor = ""
        due = began + POLL_SECONDS * number / GROUPS
        while due < began + POLLED_SECONDS:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            request = (
                f"GET /api/quota_changes/?{cursor} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
                f"authorization: Bearer {TOKEN}\r\n\r\n"
            )
            reply = await connection.call(request.encode())
            if reply.status != 200:
                raise RuntimeError(f"answered {reply.status}: {reply.body[:300]!r}")
            latencies.append(reply.ended - due)
            said = json.loads(reply.body)
            cursor = f"since={said['version']}&feed={said['feed']}"
            due += POLL_SECONDS
            late += due < time.perf_counter()
        connection.close()

    await asyncio.gather(*(group(number) for number in range(GROUPS)))
    return latencies, late


# --- In a process of Tollgate ---------------------------------------------------------------------


def measure(organizations: int) -> dict[str, Any]:
    """Create the organizations, compare, falsify and repair them; return times in seconds."""
    import logging

    import django

    django.setup()
    logging.disable(logging.ERROR)  # each repair is logged as one
    import redis
    from django.conf import settings
    from django.utils import timezone

    from billing import metrics
    from billing.models import Account, UsageTotal
    from billing.sweep import sweep_all
    from billing.verification import rotation
    from billing.verification.drift import repair_drift
    from quota import metrics as quota_metrics
    from quota.models import QuotaState, SetMember
    from quota.published.reconciler import Reconciler
    from quota.resources import AI_CREDITS

    populate(organizations)
    seen: dict[str, Any] = {}
    seen["first"], _ = timed(sweep_all)
    seen["accounts"] = Account.objects.count()
    seen["limited"] = Account.objects.filter(state="limited").count()
    reconciler = Reconciler()
    reconciler.tick()

    seen["drift_early"], _ = timed(lambda: repair_drift(timezone.now()))
    add_history()
    sweep_all()
    seen["drift_late"], _ = timed(lambda: repair_drift(timezone.now()))
    seen["whole"], _ = timed(add_up)
    seen["sweep"], seen["sweep_cpu"] = timed(sweep_all)

    def round_of_ticks() -> Iterator[tuple[float, float]]:
        while True:
            yield timed(reconciler.tick)
            if reconciler._position == 0:
                return

    list(round_of_ticks())  # slices get their final size after the first round
    ticks = list(round_of_ticks())
    seen["ticks"] = len(ticks)
    seen["tick_cpu"] = sum(cpu for _, cpu in ticks) / len(ticks)
    seen["tick_most"] = max(took for took, _ in ticks)
    seen["verified"] = rotation.verify_some()

    repairs = metrics.REPAIRS._value
    wrong = UsageTotal.objects.filter(
        pk__in=list(UsageTotal.objects.values_list("pk", flat=True)[:FALSIFIED])
    )
    before = repairs.get()
    wrong.update(usage_micro=1)
    sweep_all()
    seen["totals"] = repairs.get() - before
    before = repairs.get()
    states = QuotaState.objects.order_by("-pk").values_list("pk", flat=True)[:FALSIFIED]
    QuotaState.objects.filter(pk__in=list(states)).update(state="ok", document="{}")
    sweep_all()
    seen["states"] = repairs.get() - before
    tokens = SetMember.objects.filter(limited_until__isnull=False, resource=AI_CREDITS)
    chosen = list(tokens.values_list("token", flat=True)[:FALSIFIED])
    reconciler.tick()  # nobody renewed the marker meanwhile
    store = redis.Redis.from_url(settings.REDIS_URL)
    store.zrem(f"@posthog/quota-limits/{AI_CREDITS}", *chosen)
    found = quota_metrics.REPAIRS.labels("blocks")._value
    before = found.get()
    reconciler.tick()
    seen["scores"] = found.get() - before
    return seen


def timed(work: Any) -> tuple[float, float]:
    """Return the wall-clock and the CPU seconds that some work took."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - cpu


def populate(organizations: int) -> None:
    """Create organizations with one project each; a fifth of them have no credits."""
    from django.utils import timezone

    from billing.account_locks import ensure_accounts
    from billing.models import Account, Limit
    from projects.models import Organization, Project
    from quota.resources import AI_CREDITS

    made = [Organization(name=f"Fleet {number}") for number in range(organizations)]
    Organization.objects.bulk_create(made, batch_size=500)
    Project.objects.bulk_create(
        (Project(organization=each, name="Main") for each in made), batch_size=500
    )
    for at in range(0, organizations, 500):
        ensure_accounts(each.pk for each in made[at : at + 500])
    accounts = Account.objects.filter(resource=AI_CREDITS).order_by("pk")
    now = timezone.now()
    Limit.objects.bulk_create(
        (
            Limit(account_id=pk, limit_micro=10**12 if number % LIMITED else 0, set_at=now)
            for number, pk in enumerate(accounts.values_list("pk", flat=True))
        ),
        batch_size=500,
    )


def add_history() -> None:
    """Write events of an hour ago into the ledger without billing; the next sweep finds them.

    The checkpoints are reset, because the sweep would find older events only in turn.
    """
    from django.db import transaction
    from django.utils import timezone

    from billing.ingestion.ledger_rows import LedgerRow, insert
    from billing.models import Account, CheckpointSum, LedgerCheckpoint
    from projects.models import Project
    from quota.resources import AI_CREDITS

    LedgerCheckpoint.objects.all().delete()
    CheckpointSum.objects.all().delete()
    users = Account.objects.filter(resource=AI_CREDITS, state="ok").order_by("pk")[:USING]
    chosen = users.values_list("pk", "organization_id")
    projects = dict(Project.objects.values_list("organization_id", "pk"))
    then = timezone.now() - timedelta(hours=1)
    rows = (
        LedgerRow(
            uuid=uuid.uuid4(),
            account_id=account,
            project_id=projects[organization],
            kind="usage",
            occurred_at=then,
            booked_at=then,
            credits_micro=1_200_000,
            cost_usd="0.01",
            billable=True,
            product="slack_app",
            payload_sha256="0" * 64,
        )
        for account, organization in chosen
        for _ in range(HISTORY // USING)
    )
    batch: list[LedgerRow] = []
    for row in rows:
        batch.append(row)
        if len(batch) == HISTORY // USING:
            with transaction.atomic():
                insert(batch)
            batch = []


def add_up() -> None:
    """Add up the whole ledger, to compare the cost."""
    from django.db.models import Sum

    from billing.models import UsageEvent

    rows = UsageEvent.objects.order_by().values("account")
    list(rows.annotate(credits=Sum("credits_micro"), debited=Sum("debited_micro")))


def change(seconds: float) -> None:
    """Set limits of different organizations at a steady rate."""
    import random

    import django

    django.setup()
    from billing.allowances.limits import set_limit
    from projects.models import Organization
    from quota.resources import AI_CREDITS

    chosen = list(Organization.objects.all()[:1000])
    began = time.perf_counter()
    for number in range(int(seconds * CHANGES_PER_SECOND)):
        time.sleep(max(0.0, began + number / CHANGES_PER_SECOND - time.perf_counter()))
        set_limit(random.choice(chosen), AI_CREDITS, random.choice((0, 10**12)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(int(sys.argv[2]))))
    elif sys.argv[1:2] == ["change"]:
        change(float(sys.argv[2]))
    else:
        number = int(sys.argv[1]) if len(sys.argv) > 1 else ORGANIZATIONS
        sys.exit(main(number, sys.argv[2:] or DATABASES))
