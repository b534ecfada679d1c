"""Hints to Celery: they arrive, and a broker that is away costs nobody anything."""

import json
from contextlib import contextmanager

import pytest
from celery import current_app
from structlog.testing import capture_logs

from projects.hints import run_soon
from tests.conftest import wait_until
from tests.stopwatch import Stopwatch

TASK = "workflows.tasks.deliver_notice"


@pytest.fixture
def arguments(redis_client):
    """Return the arguments of the hints that wait in the queue, oldest first."""

    def _arguments() -> list[str]:
        messages = map(json.loads, redis_client.lrange("celery", 0, -1))
        return [message["headers"]["argsrepr"] for message in reversed(list(messages))]

    redis_client.delete("celery")
    yield _arguments
    redis_client.delete("celery")


@contextmanager
def broker_at(url: str):
    before, current_app.conf.broker_url = current_app.conf.broker_url, url
    try:
        yield
    finally:
        current_app.conf.broker_url = before


def test_hints_arrive_over_one_connection(redis_client, arguments):
    run_soon(TASK, "first")
    opened = redis_client.info("stats")["total_connections_received"]
    for number in range(20):
        run_soon(TASK, str(number))
    assert len(arguments()) == 21
    assert redis_client.info("stats")["total_connections_received"] == opened


def test_a_hint_arrives_after_the_broker_closed_the_connection(redis_client, arguments):
    run_soon(TASK, "before")
    for each in redis_client.client_list():
        if int(each["id"]) != redis_client.client_id():
            redis_client.client_kill_filter(_id=each["id"])
    run_soon(TASK, "after")
    wait_until(lambda: len(arguments()) == 2, what="the hint")


def test_a_broker_that_is_away_costs_one_warning_and_no_time(redis_client, arguments):
    with broker_at("redis://127.0.0.1:1/0"), capture_logs() as said, Stopwatch() as waited:
        run_soon(TASK, "lost")
    assert [line["log_level"] for line in said] == ["warning"]
    assert waited.seconds < 2
    run_soon(TASK, "next")
    assert len(arguments()) == 1
