"""The metrics that are counted in the stores, and the port of the processes without HTTP."""

import socket
import urllib.request
from datetime import timedelta
from uuid import uuid4

import pytest
from celery.signals import worker_init
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client import CollectorRegistry, start_http_server

import config.celery
from billing.models import QuarantinedEvent
from config.store_metrics import StoreMetrics
from console import backlog
from projects import metrics_server
from projects.models import SlackWorkspace
from quota.management.commands import run_reconciler
from quota.models import QuotaState
from tests.ready_project import ready_project
from workflows import notices
from workflows.management.commands import run_worker
from workflows.models import Mention, Notice


def scraped() -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(StoreMetrics())
    return registry


def waiting(queue: str) -> tuple[float | None, float | None]:
    registry = scraped()
    labels = {"queue": queue}
    age = registry.get_sample_value("tollgate_waiting_oldest_seconds", labels)
    return registry.get_sample_value("tollgate_waiting", labels), age


@pytest.fixture
def workspace(db) -> SlackWorkspace:
    return SlackWorkspace.objects.create(
        project=ready_project("Acme", "Main"), team_id="T1", bot_user_id="UBOT", bot_token="xoxb-1"
    )


def mention(workspace: SlackWorkspace, ts: str, state: str, *, minutes: int = 0) -> Mention:
    made = Mention.objects.create(
        workspace=workspace, team_id="T1", channel_id="C1", ts=ts, thread_ts=ts, user_id="U1",
        text="fix it", state=state,
    )  # fmt: skip
    received_at = timezone.now() - timedelta(minutes=minutes)
    Mention.objects.filter(pk=made.pk).update(received_at=received_at)
    return made


def test_counts_what_waits_and_for_how_long(workspace, redis_client):
    mention(workspace, "1.1", Mention.State.RECEIVED, minutes=3)
    mention(workspace, "1.2", Mention.State.RECEIVED)
    done = mention(workspace, "1.3", Mention.State.REFUSED, minutes=90)
    number, age = waiting("mentions")
    assert number == 2
    assert 180 <= age < 240
    assert waiting("notices") == (0, 0)
    notices.claim("denial:1", Notice.Kind.DENIAL, done, "No credits.")
    assert waiting("notices")[0] == 1
    Notice.objects.update(state=Notice.State.SENT)
    assert waiting("notices")[0] == 0


@pytest.mark.django_db
def test_a_correction_that_awaits_its_event_waits_for_no_person(redis_client):
    for number, awaits in enumerate([None, uuid4()]):
        QuarantinedEvent.objects.create(
            reason="test", payload="{}", payload_sha256=f"{number}", received_at=timezone.now(),
            awaits=awaits,
        )  # fmt: skip
    assert waiting("quarantine")[0] == 1
    assert waiting("corrections")[0] == 1
    QuarantinedEvent.objects.update(state=QuarantinedEvent.State.DISCARDED)
    assert waiting("quarantine")[0] == waiting("corrections")[0] == 0


@pytest.mark.django_db
def test_counts_accounts_and_celerys_messages(redis_client, settings):
    ready_project("Acme", "Main")
    QuotaState.objects.filter(resource="ai_credits").update(state="limited")
    redis_client.rpush(settings.CELERY_TASK_DEFAULT_QUEUE, "one", "two")
    registry = scraped()
    labels = {"resource": "ai_credits", "state": "limited"}
    assert registry.get_sample_value("tollgate_accounts", labels) == 1
    assert registry.get_sample_value("tollgate_celery_messages") == 2


def up(registry: CollectorRegistry) -> dict[str, float | None]:
    stores = ("database", "redis")
    return {
        store: registry.get_sample_value("tollgate_store_up", {"store": store}) for store in stores
    }


@pytest.mark.django_db
def test_without_redis_the_database_is_still_counted(dead_redis):
    registry = scraped()
    assert up(registry) == {"database": 1, "redis": 0}
    assert registry.get_sample_value("tollgate_waiting", {"queue": "mentions"}) == 0


def test_without_the_database_it_says_so(monkeypatch, redis_client):
    def refuse():
        raise OperationalError("no database")

    monkeypatch.setattr(connection, "cursor", refuse)
    registry = scraped()
    assert up(registry) == {"database": 0, "redis": 1}
    assert registry.get_sample_value("tollgate_waiting", {"queue": "mentions"}) is None


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor != "sqlite", reason="reads the plan as SQLite writes it")
def test_counting_reads_only_indexes_of_what_waits():
    with CaptureQueriesContext(connection) as asked:
        backlog.queues(timezone.now())
    for query in asked:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {query['sql']}")
            plan = " ".join(row[-1] for row in cursor.fetchall())
        assert "USING INDEX" in plan or "USING COVERING INDEX" in plan, plan


# --- The port of the processes without HTTP ------------------------------------------------------
@pytest.fixture
def served(monkeypatch):
    """The servers that were started, which end with the test."""
    started = []

    def start(port):
        started.append(start_http_server(port, addr="127.0.0.1"))

    monkeypatch.setattr(metrics_server, "start_http_server", start)
    yield started
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_process_without_http_serves_its_metrics_on_its_port(settings, served):
    with socket.create_server(("127.0.0.1", 0)) as free:
        settings.METRICS_PORT = free.getsockname()[1]
    metrics_server.serve_metrics()
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.METRICS_PORT}/metrics") as answer:
        assert b"tollgate_quota_tick_failures_total" in answer.read()


def test_without_a_port_nothing_is_served(settings, served):
    settings.METRICS_PORT = 0
    metrics_server.serve_metrics()
    assert served == []


class Served(Exception):
    pass


def refuse_to_serve():
    raise Served


@pytest.mark.parametrize("command", [run_worker, run_reconciler])
def test_a_command_serves_its_metrics(command, monkeypatch):
    monkeypatch.setattr(command, "serve_metrics", refuse_to_serve)
    with pytest.raises(Served):
        command.Command().handle()


def test_a_celery_worker_serves_its_metrics(monkeypatch):
    monkeypatch.setattr(config.celery, "serve_metrics", refuse_to_serve)
    with pytest.raises(Served):
        config.celery.serve_worker_metrics()
    assert config.celery.serve_worker_metrics in [
        receiver() for _, receiver in worker_init.receivers
    ]
