"""A world to look at."""

import pytest
from django.utils import timezone

from projects.redis_connection import redis_connection
from tests.config.busy_month import BusyMonth, Clock


@pytest.fixture
def dead_redis(settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    redis_connection.cache_clear()
    yield
    redis_connection.cache_clear()


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """A clock that stands still until a test moves it."""
    clock = Clock()
    monkeypatch.setattr(timezone, "now", clock)
    return clock


@pytest.fixture
def busy_month(db, redis_client, clock) -> BusyMonth:
    """Two months of work, seen on 23 November 2026."""
    return BusyMonth(clock)
