"""A second destination for the events: a PostHog project, for analysis, never for billing.

The script that settles a call appends its event to a separate stream for PostHog, so problems with
PostHog never affect billing. The stream is bounded: while it is full, new events are counted and
left out. PostHog recognises a repeated event by its uuid.
"""

import asyncio
from typing import Any

import msgspec
import structlog

from gateway import keys
from gateway.money.outbox import BATCH_BYTES, OLDEST
from gateway.network.client import ConnectFailed, ExchangeFailed, HttpClient, Origin
from gateway.network.dialing import EgressProxy
from gateway.network.redis_connection import Redis
from gateway.settings import PostHog
from gateway.telemetry import metrics

logger = structlog.get_logger("gateway.money.posthog")

BATCH = 200
POLL_SECONDS = 0.25
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 10.0
FIRST_RETRY = 0.5
LAST_RETRY = 60.0
MAX_ANSWER = 1 << 20
SET_ASIDE_KEPT = 1_000
_JSON = (b"content-type", b"application/json")


class _Unavailable(Exception):
    """PostHog cannot accept events now."""


class _Refused(Exception):
    """PostHog refuses this batch, however often it is sent."""


class _Event(msgspec.Struct):
    """What PostHog gets: the event without the fields that only billing needs."""

    uuid: str
    event: str
    timestamp: str
    distinct_id: str
    properties: dict[str, Any]


class PostHogOutbox:
    """The leader's delivery loop for PostHog: read its stream, deliver, trim."""

    def __init__(self, redis: Redis, posthog: PostHog, egress: EgressProxy | None = None) -> None:
        self._redis = redis
        self._origin = Origin.of(posthog.host)
        self._key = posthog.api_key
        self._client = HttpClient(CONNECT_SECONDS, egress)
        self._delay = FIRST_RETRY  # after the next failure

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def step(self) -> float:
        """Deliver one batch; return how many seconds to wait before the next."""
        entries = await self._redis.run(OLDEST, [keys.POSTHOG_EVENTS], BATCH, BATCH_BYTES)
        more = await self._measure() > len(entries)
        if not entries:
            return POLL_SECONDS
        try:
            await self._deliver([(entry_id, fields[1]) for entry_id, fields in entries])
        except _Unavailable as error:
            delay, self._delay = self._delay, min(self._delay * 2, LAST_RETRY)
            metrics.POSTHOG_FAILURES.inc()
            logger.warning("events wait for PostHog", error=str(error), retry_in=delay)
            return delay
        self._delay = FIRST_RETRY
        return 0.0 if more else POLL_SECONDS

    async def _measure(self) -> int:
        """Export how many events wait and how many were left out; return how many wait."""
        waiting: int = await self._redis.execute("XLEN", keys.POSTHOG_EVENTS)
        left_out = await self._redis.execute("GET", keys.POSTHOG_LEFT_OUT)
        metrics.POSTHOG_WAITING.set(waiting)
        metrics.POSTHOG_LEFT_OUT.set(int(left_out or 0))
        return waiting

    async def _deliver(self, entries: list[tuple[bytes, bytes]]) -> None:
        """Deliver. Halve a refused batch until the culprit is alone, and set that aside."""
        try:
            if sum(len(event) for _, event in entries) > BATCH_BYTES:
                raise _Refused("larger than a batch may be")
            await self._send([_for_posthog(event) for _, event in entries])
        except _Refused as error:
            if len(entries) > 1:
                middle = len(entries) // 2
                await self._deliver(entries[:middle])
                await self._deliver(entries[middle:])
                return
            [(_, event)] = entries
            logger.error("PostHog refused an event", error=str(error))
            await self._redis.execute(
                "XADD", keys.POSTHOG_SET_ASIDE, "MAXLEN", "~", SET_ASIDE_KEPT, "*", "event", event
            )
            metrics.POSTHOG_EVENTS.labels("set_aside").inc()
        else:
            metrics.POSTHOG_EVENTS.labels("delivered").inc(len(entries))
        await self._redis.execute("XDEL", keys.POSTHOG_EVENTS, *(entry for entry, _ in entries))

    async def _send(self, events: list[_Event]) -> None:
        """Post a batch (https://posthog.com/docs/api/capture#batch-events)."""
        body = msgspec.json.encode({"api_key": self._key, "batch": events})
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                status, _ = await self._client.fetch(
                    self._origin, "POST", "/batch/", [_JSON], body, MAX_ANSWER
                )
        except (ConnectFailed, ExchangeFailed, TimeoutError) as error:
            raise _Unavailable(str(error) or "timed out") from None
        if status in (400, 413, 422):
            raise _Refused(f"status {status}")
        if status >= 300:  # also 401: events wait until an operator fixes the key
            raise _Unavailable(f"status {status}")


def _for_posthog(event: bytes) -> _Event:
    shown = msgspec.json.decode(event, type=_Event)
    # PostHog needs a number to sum up. The digits are exactly those that billing gets.
    cost = shown.properties.get("$ai_total_cost_usd")
    if isinstance(cost, str):
        shown.properties["$ai_total_cost_usd"] = msgspec.Raw(cost.encode())
    return shown
