"""Following Django's change feed: one process of the group polls, all learn through Redis.

A good answer from the feed also confirms the stored verdicts that it doesn't mention. So the window
in which calls pass while Django doesn't answer starts at that answer.
"""

import asyncio
import time

import structlog

from gateway import keys
from gateway.network.redis_connection import Redis
from gateway.resolver.quota import QuotaResolver
from gateway.resolver.tollgate_api import (
    ChangesAnswer,
    TollgateApi,
    TollgateUnavailable,
    TollgateUnusable,
)
from gateway.telemetry import metrics

logger = structlog.get_logger("gateway.resolver.change_feed")

POLL_SECONDS = 0.25
LAST_RETRY = 2.0
REVOKED_KEPT_MS = 15 * 60 * 1000
KNOWN_FOR_MS = 24 * 3600 * 1000
AT_ONCE = 32


class ChangeFeed:
    """The leader's polling loop: mark and refresh changed projects, publish revoked credentials."""

    def __init__(self, redis: Redis, api: TollgateApi, resolver: QuotaResolver) -> None:
        self._redis = redis
        self._api = api
        self._resolver = resolver
        self._dirty: set[int] = set()
        self._retry_dirty_at = 0.0
        self._delay = POLL_SECONDS

    async def step(self) -> float:
        """Poll once and apply the answer; return how many seconds to wait before the next poll."""
        state = await self._redis.execute("HMGET", keys.FEED, "version", "feed")
        since = None if state[0] is None else int(state[0])
        asked_at = await self._redis.now_ms()
        try:
            answer = await self._api.changes(since, (state[1] or b"").decode())
        except (TollgateUnavailable, TollgateUnusable) as error:
            kind = "unusable" if isinstance(error, TollgateUnusable) else "unavailable"
            metrics.RESOLVER_FAILURES.labels("changes", kind).inc()
            if kind == "unusable":
                logger.error("the change feed is not usable", error=str(error))
            self._delay = min(self._delay * 2, LAST_RETRY)
            return self._delay
        self._delay = POLL_SECONDS
        await self._apply(answer, asked_at)
        await self._redis.execute(
            "HSET", keys.FEED, "confirmed_at", asked_at, "version", answer.version,
            "feed", answer.feed,
        )  # fmt: skip
        await self._ask_again()
        return POLL_SECONDS

    async def _apply(self, answer: ChangesAnswer, now_ms: int) -> None:
        """Write the changes to Redis before the version, so that a crash in between loses none."""
        if answer.revoked:
            pairs = [part for digest in answer.revoked for part in (now_ms, digest)]
            await self._redis.execute("ZADD", keys.REVOKED, *pairs)
            await self._redis.execute(
                "ZREMRANGEBYSCORE", keys.REVOKED, "-inf", now_ms - REVOKED_KEPT_MS
            )
        changed: set[int] = set()
        if answer.reset:
            await self._redis.execute("HINCRBY", keys.FEED, "resets", 1)
            changed = await self._known_projects(now_ms)
        elif answer.changes:
            known = await self._known_projects(now_ms)
            for change in answer.changes:
                if change.project_id is None:
                    changed = known
                    break
                if change.project_id in known:
                    changed.add(change.project_id)
        if changed:
            await self._resolver.mark_stale(sorted(changed))
            self._dirty |= changed

    async def _known_projects(self, now_ms: int) -> set[int]:
        known = await self._redis.execute(
            "ZRANGEBYSCORE", keys.PROJECTS, now_ms - KNOWN_FOR_MS, "+inf"
        )
        return {int(project_id) for project_id in known}

    async def _ask_again(self) -> None:
        """Refresh every changed project; keep those that got no answer for the next time."""
        if not self._dirty or time.monotonic() < self._retry_dirty_at:
            return
        semaphore = asyncio.Semaphore(AT_ONCE)

        async def ask(project_id: int) -> None:
            async with semaphore:
                await self._resolver.refresh(project_id)
                self._dirty.discard(project_id)

        results = await asyncio.gather(
            *(ask(project_id) for project_id in self._dirty), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException) and not isinstance(
                result, TollgateUnavailable | TollgateUnusable
            ):
                raise result
        self._retry_dirty_at = time.monotonic() + (1.0 if self._dirty else 0.0)
