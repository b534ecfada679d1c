"""How long the admin's pages take with much data: `python -m benchmarks.pages [EVENTS]`.

There are 300 organizations with ten projects each, and a million events in two months. An
administrator asks for each page several times; what counts is the time to the first byte.
README.console.md has the figures.
"""

import http.client
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from benchmarks.ingestion import HERE, Site, serving
from benchmarks.load.table import Table

EVENTS = 1_000_000
ORGANIZATIONS = 300
PROJECTS = 10
USERS = 20
EVENTS_PER_RUN = 20
MENTIONS = 30_000
DAYS = 60
LIMITED = 30
"""One in this many organizations has no credits left."""
BATCH = 5_000
TIMES = 5
MOST_MS = 300
MODELS = (
    ("anthropic", "claude-sonnet-4-5-20250929"),
    ("anthropic", "claude-haiku-4-5-20251001"),
    ("openai", "gpt-5.1-codex"),
    ("openai", "gpt-5-mini"),
)
PREPARING_SECONDS = 1800.0


def main(events: int) -> int:
    """Print the table; return 1 if a page is too slow."""
    os.sched_setaffinity(0, HERE)
    table = Table()
    with (
        tempfile.TemporaryDirectory(prefix="tollgate-bench-") as scratch,
        serving(Path(scratch), on_postgresql=False) as site,
    ):
        prepared = prepare(site, events)
        for name, path in prepared["pages"].items():
            add(table, name, times(site.port, prepared["session"], path))
    table.show()
    return 1 if table.missed else 0


def prepare(site: Site, events: int) -> dict[str, dict[str, str]]:
    """Fill the database in a Tollgate process; return a session and the pages."""
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks.pages", "fill", str(events)],
        env={"PATH": os.environ["PATH"], **site.environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=PREPARING_SECONDS,
    ).stdout
    prepared: dict[str, dict[str, str]] = json.loads(said.splitlines()[-1])
    return prepared


def times(port: int, session: dict[str, str], path: str) -> list[float]:
    """Return the milliseconds to the first byte of each answer."""
    seen = []
    for _ in range(TIMES):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        began = time.perf_counter()
        connection.request("GET", path, headers={"cookie": f"sessionid={session['key']}"})
        answer = connection.getresponse()
        seen.append((time.perf_counter() - began) * 1e3)
        body = answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:300]!r}")
    return seen


def add(table: Table, name: str, seen: list[float]) -> None:
    """Add the row of one page. The first look fills caches and counts."""
    table.add(
        f"{name}: first byte, p50 / slowest",
        f"{statistics.median(seen):.0f} / {max(seen):.0f} ms",
        f"≤ {MOST_MS} ms",
        max(seen) <= MOST_MS,
        note=f"load {os.getloadavg()[0]:.1f}",
    )


# --- In a process of Tollgate ---------------------------------------------------------------------


def fill(events: int) -> dict[str, dict[str, str]]:
    """Write everything, bring the reports up to date, and return a session and the pages."""
    import logging

    import django

    django.setup()
    logging.disable(logging.ERROR)  # the sweep rebuilds the totals, which are new to it
    from django.contrib.admin import autodiscover
    from django.contrib.auth import get_user_model
    from django.test import Client
    from django.utils import timezone

    from billing.reports.daily_usage import report_what_was_booked
    from billing.reports.usage_sums import sum_what_was_booked
    from billing.sweep import sweep_all
    from quota.published.reconciler import Reconciler

    now = timezone.now()
    add_organizations(now)
    add_events(events, now)
    add_mentions(now)
    sweep_all()
    report_what_was_booked()
    sum_what_was_booked()
    Reconciler().tick()
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("carla"))
    autodiscover()
    return {"session": {"key": client.cookies["sessionid"].value}, "pages": pages()}


def add_organizations(now: datetime) -> None:
    """Create organizations with projects, workspaces and limits."""
    from billing.account_locks import ensure_accounts
    from billing.models import Account, Limit
    from projects.models import Organization, Project, SlackWorkspace
    from quota.resources import AI_CREDITS

    made = [Organization(name=f"Team {number}") for number in range(ORGANIZATIONS)]
    Organization.objects.bulk_create(made)
    Project.objects.bulk_create(
        Project(organization=team, name=f"Bot {number}")
        for team in made
        for number in range(PROJECTS)
    )
    SlackWorkspace.objects.bulk_create(
        SlackWorkspace(
            project=Project.objects.filter(organization=team).first(),
            team_id=f"T{number}",
            name=team.name,
            bot_user_id="UBOT",
            bot_token="xoxb-of-no-value",
        )
        for number, team in enumerate(made)
    )
    ensure_accounts(team.pk for team in made)
    accounts = Account.objects.filter(resource=AI_CREDITS).order_by("pk")
    Limit.objects.bulk_create(
        Limit(account_id=pk, limit_micro=10**12 if number % LIMITED else 10**6, set_at=now)
        for number, pk in enumerate(accounts.values_list("pk", flat=True))
    )


def add_events(count: int, now: datetime) -> None:
    """Write events into the ledger as billing does, in the order in which they happened."""
    from django.db import transaction

    from billing.ingestion.ledger_rows import LedgerRow, insert
    from billing.models import Account
    from projects.models import Project
    from quota.resources import AI_CREDITS

    chance = random.Random(1)
    accounts = Account.objects.filter(resource=AI_CREDITS).values_list("organization_id", "pk")
    of_organization = dict(accounts)
    projects = list(Project.objects.values_list("pk", "organization_id"))
    teams = {team: number for number, team in enumerate(of_organization)}

    def rows() -> Iterator[LedgerRow]:
        for number in range(count):
            if number % EVENTS_PER_RUN == 0:
                run = uuid.uuid4()
                project, organization = chance.choice(projects)
                provider, model = chance.choice(MODELS)
                user = f"slack:T{teams[organization]}:U{chance.randrange(USERS)}"
            at = now - timedelta(days=DAYS) * (1 - number / count)
            yield LedgerRow(
                uuid=uuid.uuid4(),
                account_id=of_organization[organization],
                project_id=project,
                kind="usage",
                occurred_at=at,
                booked_at=at,
                credits_micro=chance.randrange(10_000, 3_000_000),
                cost_usd="0.0103",
                billable=True,
                product="slack_app",
                payload_sha256="0" * 64,
                model=model,
                provider=provider,
                distinct_id=user,
                task_run_id=run,
                input_tokens=1200,
                output_tokens=300,
                cache_read_input_tokens=18_000,
                http_status=200,
            )

    written = rows()
    while batch := list(itertools.islice(written, BATCH)):
        with transaction.atomic():
            insert(batch)


def add_mentions(now: datetime) -> None:
    """Write mentions of the last two months, one in ten of them refused."""
    from projects.models import SlackWorkspace
    from workflows.models import Mention

    workspaces = list(SlackWorkspace.objects.all())
    Mention.objects.bulk_create(
        (
            Mention(
                workspace=(workspace := workspaces[number % len(workspaces)]),
                team_id=workspace.team_id,
                channel_id=f"C{number % 40}",
                ts=f"17{number:08}.000001",
                thread_ts=f"17{number:08}.000001",
                user_id=f"U{number % USERS}",
                text=f"<@UBOT> please fix number {number}",
                state="answered" if number % 10 else "refused",
                outcome="" if number % 10 else "out of credits: limit_reached",
                received_at=now - timedelta(days=DAYS) * (1 - number / MENTIONS),
            )
            for number in range(MENTIONS)
        ),
        batch_size=1000,
    )


def pages() -> dict[str, str]:
    """Return the path of each page by its name: every list, and the pages of one organization."""
    from django.contrib import admin
    from django.urls import reverse

    from console.usage.tables import TABLES
    from projects.models import Organization
    from workflows.models import Mention

    team = Organization.objects.get(name="Team 29").pk
    refused = Mention.objects.filter(state="refused").latest("received_at")
    thread = [refused.workspace_id, refused.channel_id, refused.thread_ts]
    found = {
        "first page": reverse("admin:index"),
        "all records": reverse("admin:records"),
        "usage of an organization": reverse("admin:projects_organization_usage", args=[team]),
        "backtest": reverse("admin:projects_organization_backtest", args=[team]) + "?limit=600",
        "search of threads": reverse("threads") + "?q=U7",
        "one thread": reverse("thread", args=thread),
        "organization": reverse("admin:projects_organization_change", args=[team]),
        "setup": reverse("setup"),
    }
    for name in TABLES:
        for suffix, what in (("", ""), ("_csv", " as CSV")):
            path = reverse(f"admin:projects_organization_table{suffix}", args=[team, name])
            found[f"table of {name}{what}"] = path
    for page in admin.site._registry.values():
        model = page.opts
        found[f"list of {model.verbose_name_plural}"] = reverse(
            f"admin:{model.app_label}_{model.model_name}_changelist"
        )
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["fill"]:
        print(json.dumps(fill(int(sys.argv[2]))))
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS))
