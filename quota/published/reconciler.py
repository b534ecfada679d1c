"""The reconciler: once a second it makes Redis match what was published and renews the marker.

Any number of reconcilers may run at once: their writes are fenced by version, and each renews only
the marker that was there before it compared.
"""

import logging
import math
import threading
import time
from datetime import timedelta

import redis
from django.db import Error as DatabaseFailure
from django.db import close_old_connections
from django.db.models import Q
from django.utils import timezone

from quota import decider, metrics
from quota.account_state import Account
from quota.models import QuotaState, SetMember
from quota.published import comparison, manual_blocks, marker, redis_client, retention
from quota.published.delta import RebuildLost

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
MAX_PAUSE_SECONDS = 2.0
RECENT = timedelta(seconds=15)
UNDER_WAY = timedelta(seconds=1)
"""A publication committed just now is about to be pushed by the process that committed it."""

FLEET_TICKS = 45
MIN_SLICE = 200
DUE_PER_TICK = 500
DUE_SECONDS = 1.0
"""How long a tick may spend on decisions: the marker has to be renewed in time."""

DUE_AGAIN_SECONDS = 30.0
PRUNE_SECONDS = 60.0


class Reconciler:
    """Keeps Redis equal to what was published."""

    def __init__(self) -> None:
        self._disruptions: int | None = None  # None before the first rebuild
        self._position = 0
        self._slice = MIN_SLICE
        self._retry_at: dict[Account, float] = {}
        self._prune_at = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Tick once a second until `stop` is set. A tick that fails only delays the next one."""
        pause = TICK_SECONDS
        while not stop.is_set():
            started = time.monotonic()
            try:
                close_old_connections()
                self.tick()
                pause = TICK_SECONDS
            except Exception as error:
                if isinstance(error, redis.RedisError):
                    redis_client.health.failed()
                metrics.TICK_FAILURES.inc()
                pause = min(pause * 1.5, MAX_PAUSE_SECONDS)
                expected = isinstance(error, (redis.RedisError, DatabaseFailure, RebuildLost))
                logger.warning(
                    "the reconciler tries again in %.1f s: %r",
                    pause,
                    error,
                    exc_info=not expected,
                )
            took = time.monotonic() - started
            metrics.TICK_SECONDS.set(took)
            stop.wait(max(pause - took, 0.05))

    def tick(self) -> None:
        """Compare, repair and renew the marker; then record manual blocks, decide and prune.

        Raises `redis.RedisError`, `django.db.Error` or `RebuildLost`; the next tick carries on.
        """
        nonce = self._marker()
        repaired, blocks_by_hand = comparison.compare_blocks()
        marker.renew(nonce)
        _count("blocks", repaired)
        _count("recent", comparison.compare(_recent()))
        _count("fleet", comparison.compare(self._next_slice()))
        manual_blocks.record_seen(blocks_by_hand)
        self._decide_due()
        self._prune()

    def _marker(self) -> str:
        """Return the nonce of the marker to renew.

        Rebuilds first if there is no marker, at the start, and after every disruption of the
        connection, because Redis may be another server then.
        """
        disruptions = redis_client.health.disruptions
        nonce = marker.current()
        if nonce is not None and disruptions == self._disruptions:
            return nonce
        with marker.rebuilding() as nonce:
            accounts = list(QuotaState.objects.values_list("organization_id", "resource"))
            changed = comparison.push_accounts(accounts, building=marker.building_key(nonce))
        metrics.REBUILDS.inc()
        logger.info("rebuilt Redis from %d accounts, %d differences", len(accounts), changed)
        self._disruptions = disruptions
        return nonce

    def _next_slice(self) -> list[Account]:
        rows = list(
            QuotaState.objects.filter(pk__gt=self._position)
            .order_by("pk")
            .values_list("pk", "organization_id", "resource")[: self._slice]
        )
        if rows:
            self._position = rows[-1][0]
        else:
            self._position = 0
            self._slice = max(MIN_SLICE, math.ceil(QuotaState.objects.count() / FLEET_TICKS))
        return [(organization, resource) for _, organization, resource in rows]

    def _decide_due(self) -> None:
        """Ask billing to decide about states that are no longer valid, if nobody has asked yet."""
        started = time.monotonic()
        self._retry_at = {
            account: again for account, again in self._retry_at.items() if again > started
        }
        rows = QuotaState.objects.filter(valid_until__lte=timezone.now()).order_by("valid_until")
        accounts = rows.values_list("organization_id", "resource")
        for account in accounts[: DUE_PER_TICK + len(self._retry_at)]:
            if account in self._retry_at:
                continue
            if time.monotonic() - started > DUE_SECONDS:
                break
            try:
                decider.decide_again(*account)
            except Exception:
                logger.exception("account %s:%s could not be decided", *account)
                self._retry_at[account] = started + DUE_AGAIN_SECONDS

    def _prune(self) -> None:
        if time.monotonic() >= self._prune_at:
            retention.prune(timezone.now())
            self._prune_at = time.monotonic() + PRUNE_SECONDS


def _recent() -> set[Account]:
    """Return the accounts for which something was published a moment ago."""
    now = timezone.now()
    window = Q(changed_at__gt=now - RECENT, changed_at__lt=now - UNDER_WAY)
    members = SetMember.objects.filter(
        window, origin=SetMember.Origin.PUBLISHED, organization__isnull=False
    )
    return {
        *QuotaState.objects.filter(window).values_list("organization_id", "resource"),
        *members.values_list("organization_id", "resource"),
    }


def _count(found_by: str, repairs: int) -> None:
    if repairs:
        metrics.REPAIRS.labels(found_by).inc(repairs)
        logger.warning("repaired %d differences in Redis (%s)", repairs, found_by)
