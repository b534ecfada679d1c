"""The doctor's checks of the database, Django's Redis, and what waits in them."""

import time
from collections.abc import Iterator
from typing import Any

import redis
from celery import current_app
from django.conf import settings
from django.core.checks import ERROR, WARNING, run_checks
from django.db import Error as DatabaseFailure
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Max
from django.utils import timezone

from console import backlog
from console.doctor.findings import Finding, Level, brief, clock_finding
from projects.change_feed import Change, ChangeCursor
from projects.redis_connection import redis_connection
from quota.published import marker

LEAST_REDIS = (6, 2)
LONGEST = {
    "mentions": 60,
    "follow_ups": 300,
    "thread_replies": 300,
    "api_runs": 300,
    "decisions": 60,
    "notices": 900,
}
"""Seconds that the oldest row of a queue may wait. Alerts have the same limits or longer ones."""
START = "Start Celery, beat and the reconciler, and see the logs of those that run."


def settings_findings() -> Iterator[Finding]:
    """Check the settings with Django's system checks, including those for deployments."""
    found = run_checks(include_deployment_checks=True)
    for message in found:
        if message.is_silenced() or message.level < WARNING:
            continue
        level: Level = "error" if message.level >= ERROR else "warning"
        yield Finding(message.id or "settings", level, message.msg, message.hint or "")
    if not found:
        yield Finding("settings", "ok", "the system checks find nothing")


def database_findings() -> Iterator[Finding]:
    """Check that the database answers, is migrated, and has the right time."""
    began = time.perf_counter()
    try:
        connection.ensure_connection()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseFailure as error:
        yield Finding(
            "database",
            "error",
            f"it does not answer ({brief(error)}), so nothing is decided or booked",
            "Start it, or correct DATABASE_URL. Usage events wait in the gateway's Redis.",
        )
        return
    took = (time.perf_counter() - began) * 1000
    version = ".".join(map(str, connection.get_database_version()))
    yield Finding("database", "ok", f"{connection.display_name} {version} answers in {took:.0f} ms")
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
            [(now,)] = cursor.fetchall()
        yield clock_finding("database clock", float(now) - time.time())
    executor = MigrationExecutor(connection)
    pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if pending:
        names = ", ".join(f"{one.app_label}.{one.name}" for one, _ in pending[:3])
        yield Finding(
            "migrations",
            "error",
            f"{len(pending)} were not run ({names}{', …' if len(pending) > 3 else ''})",
            "Run python manage.py migrate.",
        )
        return
    yield Finding("migrations", "ok", "all were run")
    yield from _change_feed()
    yield from _queues()


def _change_feed() -> Iterator[Finding]:
    cursor = ChangeCursor.objects.first()
    newest = Change.objects.aggregate(newest=Max("version"))["newest"] or 0
    version = 0 if cursor is None else cursor.version
    if newest > version:
        yield Finding(
            "change feed",
            "error",
            f"it has version {newest}, but its cursor is at {version}: the gateway misses changes",
            "Run python manage.py rotate_change_feed; followers then start afresh.",
        )
    else:
        yield Finding("change feed", "ok", f"at version {version}")


def _queues() -> Iterator[Finding]:
    now = timezone.now()
    for queue in backlog.queues(now):
        name, age = queue.name.replace("_", " "), int(queue.age(now))
        waits = f"{queue.waiting} wait, the oldest for {age} s" if queue.waiting else "none wait"
        longest = LONGEST.get(queue.name)
        if queue.name == "quarantine" and queue.waiting:
            do = "Book or discard them in the admin, under Quarantined events."
            yield Finding(name, "warning", f"{queue.waiting} events could not be booked", do)
        elif longest is not None and age > longest:
            level: Level = "error" if queue.name == "mentions" else "warning"
            yield Finding(name, level, waits, START)
        else:
            yield Finding(name, "ok", waits)


def redis_findings() -> Iterator[Finding]:
    """Check that Django's Redis answers, keeps what it has, and holds the published limits."""
    try:
        client = redis_connection()
        info: Any = client.info()
        now: Any = client.time()
        nonce = marker.current()
        hints: Any = client.llen(settings.CELERY_TASK_DEFAULT_QUEUE)
    except redis.RedisError as error:
        yield Finding(
            "redis",
            "error",
            f"it does not answer ({brief(error)}), so the database answers every gate",
            "Start it, or correct REDIS_URL. Nothing has to be restored.",
        )
        return
    yield from _server(info)
    yield clock_finding("redis clock", now[0] + now[1] / 1e6 - time.time())
    if nonce is None:
        yield Finding(
            "marker",
            "error",
            "Redis has no marker, so the database answers every gate",
            "Start the reconciler (manage.py run_reconciler), or see its log.",
        )
    else:
        yield Finding("marker", "ok", "the reconciler has confirmed what Redis holds")
    yield from _celery(hints)


def _server(info: dict[str, Any]) -> Iterator[Finding]:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < LEAST_REDIS:
        do = "Upgrade to Redis 6.2 or newer, or to Valkey."
        yield Finding("redis", "error", f"{name} {version} is too old", do)
    else:
        yield Finding("redis", "ok", f"{name} {version} answers")
    if not int(info.get("aof_enabled", 0)):
        yield Finding(
            "redis data",
            "warning",
            "its append-only file is off: a restart loses limits set by hand",
            "Set appendonly to yes.",
        )
    elif info.get("aof_last_write_status", "ok") != "ok":
        do = "Make room on its disk."
        yield Finding("redis data", "error", "its last write to disk failed", do)
    else:
        yield Finding("redis data", "ok", "the append-only file is on")


def _celery(hints: int) -> Iterator[Finding]:
    answers = current_app.control.ping(timeout=1.0)
    if answers:
        yield Finding("celery", "ok", f"{len(answers)} workers answer, {hints} messages wait")
    else:
        yield Finding(
            "celery",
            "error",
            f"no worker answers, {hints} messages wait: nothing is swept or sent",
            "Start a Celery worker, and beat.",
        )
