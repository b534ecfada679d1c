"""A world to look at."""

import pytest
from django.utils import timezone

from tests.console.busy_month import BusyMonth, Clock


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
