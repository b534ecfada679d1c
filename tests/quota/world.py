"""Helpers of the quota tests: an organization's accounts, and a Redis server that can break."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import redis
from django.db import connection
from django.test import TestCase
from django.utils import timezone

from devstack.servers import free_port, redis_server
from projects.models import Organization
from quota.account_state import AccountState
from quota.published.limited_set import limits_key, suspended_key
from quota.published.publication import publish
from quota.resources import AI_CREDITS, MICRO, RESOURCES
from tests.conftest import running

LIMITS = limits_key(AI_CREDITS)
SUSPENDED = suspended_key(AI_CREDITS)


def run_commit_hooks():
    """Run the block's on-commit hooks at its end, in a test that itself rolls back."""
    return TestCase.captureOnCommitCallbacks(execute=True)


@dataclass
class Accounts:
    """Publishes states of one organization, each newer than the last."""

    organization: Organization
    version: int = 0
    period_end: datetime = field(
        default_factory=lambda: timezone.now().replace(microsecond=0) + timedelta(days=7)
    )

    def state(self, resource: str = AI_CREDITS, **fields) -> AccountState:
        """Return the next state, by default not limited."""
        self.version += 1
        ordinary = {
            "organization_id": self.organization.pk,
            "resource": resource,
            "version": self.version,
            "state": "ok",
            "limited": False,
            "usage_micro": 1_250 * MICRO,
            "limit_micro": 2_000 * MICRO,
            "remaining_micro": 750 * MICRO,
            "resets_at": self.period_end,
            "valid_until": self.period_end,
            "allotment_micro": 750 * MICRO,
            "ledger_epoch": "0",
        }
        return AccountState(**ordinary | fields)

    def limited_state(self, resource: str = AI_CREDITS, **fields) -> AccountState:
        """Return the next state, limited to the end of the period."""
        state = self.state(resource)
        limited = {
            "state": "limited",
            "limited": True,
            "reason": "limit_reached",
            "usage_micro": 2_000 * MICRO,
            "remaining_micro": 0,
            "limited_until": int(state.resets_at.timestamp()),
            "allotment_micro": 0,
        }
        return replace(state, **limited | fields)

    def allow(self, **fields) -> AccountState:
        """Publish that enough is left of every resource."""
        return self._publish([self.state(resource, **fields) for resource in RESOURCES])

    def limit(self, **fields) -> AccountState:
        """Publish that every resource is used up."""
        return self._publish([self.limited_state(resource, **fields) for resource in RESOURCES])

    def _publish(self, states: list[AccountState]) -> AccountState:
        with run_commit_hooks():
            publish(states)
        return states[0]


class OwnRedis:
    """A Redis server that a test can kill, wipe and restore."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.directory = directory
        self._running = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True)

    def start(self) -> None:
        program = redis_server("own redis", self.directory / "data", self.port)
        self._running = running(program, self.directory / "redis.log")
        self._running.__enter__()

    def stop(self) -> None:
        if self._running:
            self._running.__exit__(None, None, None)
            self._running = None


class HeldCommits:
    """Holds back the block's on-commit hooks, to be run later and in any order."""

    def __enter__(self) -> "HeldCommits":
        self._start = len(connection.run_on_commit)
        return self

    def __exit__(self, *_error: object) -> None:
        self._kept = connection.run_on_commit[self._start :]
        del connection.run_on_commit[self._start :]

    def run(self) -> None:
        for _, callback, _ in self._kept:
            callback()
