"""A Celery worker keeps its database connections from task to task, as a web process does."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery.contrib.testing.worker import start_worker
from django.db import connection

from config.celery import app
from tests import settings as suite
from tests.conftest import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

TASK = "tests.look_at_the_connection"
QUEUE = "tests.connections"


@pytest.fixture
def connection_of_task(redis_client) -> Iterator[Callable[[], Any]]:
    """Run a task in a worker; return the driver's connection that it had."""
    seen: list[Any] = []

    def look() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        seen.append(connection.connection)

    def run() -> Any:
        before = len(seen)
        app.send_task(TASK, queue=QUEUE)
        wait_until(lambda: len(seen) > before, what="the task")
        return seen[-1]

    app.task(name=TASK)(look)
    worker = start_worker(
        app, pool="threads", concurrency=1, queues=[QUEUE], perform_ping_check=False
    )
    try:
        with worker:
            yield run
    finally:
        for each in seen:
            each.close()
        app.tasks.unregister(TASK)
        redis_client.delete(QUEUE)


def test_tasks_of_a_thread_share_a_connection(connection_of_task):
    assert connection_of_task() is connection_of_task()


@pytest.mark.skipif(not suite.ON_POSTGRES, reason="SQLite has no server to lose")
def test_a_connection_that_broke_is_replaced(connection_of_task):
    broken = connection_of_task()
    broken.close()
    assert connection_of_task() is not broken
