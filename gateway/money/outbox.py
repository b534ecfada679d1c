"""Delivering events to billing: in order, in batches, until each of them is acknowledged.

A batch is limited in events and in bytes. Billing refuses larger ones, and the events that wait
after an hour without billing must not be loaded into memory at once.
"""

import time
from typing import Any

import msgspec
import structlog

from gateway import keys
from gateway.network.redis_connection import Redis, Script
from gateway.resolver.quota import QuotaResolver
from gateway.resolver.tollgate_api import (
    BatchRefused,
    EventResult,
    TollgateApi,
    TollgateUnavailable,
    TollgateUnusable,
)
from gateway.telemetry import metrics

logger = structlog.get_logger("gateway.money.outbox")

ACKNOWLEDGE = Script("acknowledge")
OLDEST = Script("oldest")
RESYNC = Script("resync")
BATCH = 500
# Billing accepts 5,000,000 bytes; the difference is for the JSON around the events.
BATCH_BYTES = 4_900_000
POLL_SECONDS = 0.05
FIRST_RETRY = 0.25
LAST_RETRY = 15.0
BOOKED = frozenset({"accepted", "duplicate"})
SET_ASIDE = frozenset({"conflict", "quarantined"})


class Outbox:
    """The leader's delivery loop: read the stream, deliver to billing, trim."""

    def __init__(self, redis: Redis, api: TollgateApi, resolver: QuotaResolver) -> None:
        self._redis = redis
        self._api = api
        self._resolver = resolver
        self._delay = FIRST_RETRY  # after the next failure

    async def step(self) -> float:
        """Deliver one batch; return how many seconds to wait before the next."""
        entries = await self._redis.run(OLDEST, [keys.EVENTS], BATCH, BATCH_BYTES)
        more = await self._measure(entries) > len(entries)
        try:
            await self._resynchronise(int(entries[0][0].split(b"-")[0]) if entries else None)
            if not entries:
                return POLL_SECONDS
            await self._deliver([_Entry(entry_id, fields) for entry_id, fields in entries])
        except (TollgateUnavailable, TollgateUnusable) as error:
            delay, self._delay = self._delay, min(self._delay * 2, LAST_RETRY)
            logger.warning("events wait", error=str(error), waiting=len(entries), retry_in=delay)
            return delay
        self._delay = FIRST_RETRY
        return 0.0 if more else POLL_SECONDS

    async def _deliver(self, entries: "list[_Entry]") -> None:
        """Deliver. If billing refuses a whole batch, halve it until the culprit is alone."""
        try:
            if sum(len(entry.event) for entry in entries) > BATCH_BYTES:
                raise BatchRefused("larger than a batch may be")
            results = await self._api.deliver([entry.event for entry in entries])
        except BatchRefused as error:
            if len(entries) > 1:
                middle = len(entries) // 2
                await self._deliver(entries[:middle])
                await self._deliver(entries[middle:])
                return
            logger.error("billing refused an event", error=str(error))
            results = [EventResult("", "refused", str(error))]
        if len(results) != len(entries):
            raise TollgateUnusable("not one result for each event")
        arguments: list[Any] = []
        for entry, result in zip(entries, results, strict=True):
            if result.status not in BOOKED | SET_ASIDE | {"refused"}:
                continue  # an unknown status is no answer: the event stays in the stream
            metrics.EVENTS_DELIVERED.labels(result.status).inc()
            status = "booked"
            if result.status not in BOOKED:
                logger.error("billing set an event aside", uuid=result.uuid, why=result.reason)
                status = result.status
            arguments += [entry.id, entry.account, entry.debited, status]
        if arguments:
            await self._redis.run(ACKNOWLEDGE, [keys.EVENTS, keys.SET_ASIDE], *arguments)

    async def _measure(self, entries: list[Any]) -> int:
        """Export how many events wait, and the age of the oldest; return how many."""
        waiting: int = await self._redis.execute("XLEN", keys.EVENTS)
        metrics.EVENTS_WAITING.set(waiting)
        oldest = int(entries[0][0].split(b"-")[0]) / 1000 if entries else time.time()
        metrics.EVENTS_AGE.set(max(0.0, time.time() - oldest))
        return waiting

    async def _resynchronise(self, oldest_ms: int | None) -> None:
        """After data loss, take what was spent from the ledger.

        This first waits until all events that were waiting when the loss was noticed are delivered,
        because some of them may have been booked already. No delivery is under way here, so the
        pending amount is exactly what the ledger does not know yet.
        """
        for project_id in await self._resynchronisations(oldest_ms):
            answer = await self._resolver.refresh(project_id)
            for found in answer.limited.values():
                await self._redis.run(
                    RESYNC, [keys.account(found.account)], found.ledger_epoch, found.booked_micro
                )
            await self._redis.execute("ZREM", keys.RESYNC, project_id)

    async def _resynchronisations(self, oldest_ms: int | None) -> list[int]:
        """Return the projects whose loss was noticed before the oldest waiting event."""
        found = await self._redis.execute("ZRANGE", keys.RESYNC, 0, -1, "WITHSCORES")
        return [
            int(raw)
            for raw, noticed_ms in zip(found[::2], found[1::2], strict=True)
            if oldest_ms is None or float(noticed_ms) < oldest_ms
        ]


class _Entry:
    """One event of the stream."""

    __slots__ = ("account", "debited", "event", "id")

    def __init__(self, entry_id: bytes, fields: list[bytes]) -> None:
        named = dict(zip(fields[::2], fields[1::2], strict=True))
        self.id = entry_id
        self.event = msgspec.Raw(named[b"event"])
        self.account = named[b"account"]
        self.debited = named[b"debited"]
