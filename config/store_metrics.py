"""Metrics that are counted in the stores when Prometheus asks, so they cover every process."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import redis
from django.conf import settings
from django.db import Error as DatabaseFailure
from django.utils import timezone
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from coding_tasks.turns.agent_readiness import agent_workers
from console import backlog
from projects.redis_connection import redis_connection


@dataclass(frozen=True)
class Family:
    """One gauge: its name, its help text and its labels."""

    name: str
    text: str
    labels: tuple[str, ...] = ()

    def of(self, values: Mapping[tuple[str, ...], int | float]) -> Metric:
        """Return the gauge with these values, by its labels."""
        metric = GaugeMetricFamily(self.name, self.text, labels=self.labels)
        for labels, value in values.items():
            metric.add_metric(labels, value)
        return metric


UP = Family("tollgate_store_up", "Whether a store of Django answers (1) or not (0).", ("store",))
WAITING = Family("tollgate_waiting", "Rows that wait to be handled.", ("queue",))
OLDEST = Family(
    "tollgate_waiting_oldest_seconds",
    "For how long the oldest of these rows has been waiting.",
    ("queue",),
)
ACCOUNTS = Family("tollgate_accounts", "Accounts by published state.", ("resource", "state"))
CELERY_MESSAGES = Family("tollgate_celery_messages", "Messages in Celery's queue.")
AGENT_WORKERS = Family(
    "tollgate_agent_workers", "Agent workers that reported lately.", ("sandbox",)
)
FAMILIES = (UP, WAITING, OLDEST, ACCOUNTS, CELERY_MESSAGES, AGENT_WORKERS)


class StoreMetrics(Collector):
    """Counts what waits. If a store does not answer, the metrics from it are left out."""

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering this asks no store."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of every store that answers."""
        up: dict[tuple[str, ...], float] = {}
        for store, ask in (("database", _from_database), ("redis", _from_redis)):
            try:
                found = ask()
            except (DatabaseFailure, redis.RedisError):
                up[store,] = 0
            else:
                up[store,] = 1
                yield from found
        yield UP.of(up)
        reports = agent_workers()
        missing = sum(1 for report in reports if report.sandbox)
        yield AGENT_WORKERS.of({("works",): len(reports) - missing, ("missing",): missing})


def _from_database() -> list[Metric]:
    now = timezone.now()
    queues = backlog.queues(now)
    return [
        WAITING.of({(queue.name,): queue.waiting for queue in queues}),
        OLDEST.of({(queue.name,): queue.age(now) for queue in queues}),
        ACCOUNTS.of(backlog.accounts_by_state()),
    ]


def _from_redis() -> list[Metric]:
    messages = redis_connection().llen(settings.CELERY_TASK_DEFAULT_QUEUE)
    return [CELERY_MESSAGES.of({(): messages})]
