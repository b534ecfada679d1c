"""Background work: the heartbeat of each process, and the loops of the group's one leader."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable

import structlog

from gateway import keys
from gateway.booking import Settler
from gateway.money.holds import Holds
from gateway.money.outbox import Outbox
from gateway.money.posthog import PostHogOutbox
from gateway.money.reaper import Reaper
from gateway.network.redis_connection import Redis, RedisError, RedisUnavailable, Script
from gateway.resolver.change_feed import ChangeFeed
from gateway.resolver.credentials import Credentials
from gateway.resolver.quota import QuotaResolver
from gateway.settings import Settings
from gateway.telemetry import metrics

logger = structlog.get_logger("gateway.background")

LEAD = Script("lead")
BEAT_SECONDS = 0.25
LEADER_LEASE_MS = 3_000
RETRY_SECONDS = 0.5
STOP_SECONDS = 2.0  # to settle what is left; the reaper books the rest


class Background:
    """Starts and stops the loops of one process."""

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        known: Credentials,
        resolver: QuotaResolver,
        holds: Holds,
        settler: Settler,
        feed: ChangeFeed,
        outbox: Outbox,
        reaper: Reaper,
        posthog: PostHogOutbox | None,
    ) -> None:
        self._name = settings.group
        self._redis = redis
        self._credentials = known
        self._resolver = resolver
        self._holds = holds
        self._settler = settler
        self._reaper = reaper
        self._leader_steps = [feed.step, outbox.step, reaper.step]
        if posthog is not None:
            self._leader_steps.append(posthog.step)
        self._leading = asyncio.Event()
        self._revoked_seen_ms = 0
        self._resets_seen: int | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.beat_at = float("-inf")

    @property
    def confirmed_at(self) -> float:
        """When Django was last known to answer, on the monotonic clock."""
        return self._credentials.confirmed_at

    def start(self) -> None:
        """Start the loops."""
        self._tasks = [asyncio.create_task(self._loop(self._beat))]
        for step in self._leader_steps:
            self._tasks.append(asyncio.create_task(self._loop(step, leader_only=True)))

    async def stop(self) -> None:
        """Stop the loops, settle what is left, and end the lease and the leadership."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        metrics.refresh()
        with contextlib.suppress(RedisUnavailable, RedisError, TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self._holds.retire()
                if await self._redis.execute("GET", keys.LEADER) == self._holds.owner.encode():
                    await self._redis.execute("DEL", keys.LEADER)

    async def _loop(
        self, step: Callable[[], Awaitable[float]], *, leader_only: bool = False
    ) -> None:
        while True:
            if leader_only:
                await self._leading.wait()
            try:
                pause = await step()
            except RedisUnavailable:
                metrics.REDIS_FAILURES.labels("background").inc()
                pause = RETRY_SECONDS
            except Exception:
                logger.exception("a background step failed")
                pause = RETRY_SECONDS
            await asyncio.sleep(pause)

    async def _beat(self) -> float:
        metrics.refresh()  # first, so that it happens even while Redis is down
        await self._learn_group()
        await self._holds.beat()
        await self._learn_from_feed()
        if await self._redis.run(LEAD, [keys.LEADER], self._holds.owner, LEADER_LEASE_MS):
            self._leading.set()
        else:
            self._leading.clear()
        self.beat_at = time.monotonic()
        return BEAT_SECONDS

    async def _learn_group(self) -> None:
        """Set the group: its name, and an epoch that is lost if Redis loses its data."""
        await self._redis.execute("SET", keys.GROUP_EPOCH, str(uuid.uuid4()), "NX")
        epoch = (await self._redis.execute("GET", keys.GROUP_EPOCH)).decode()
        group = f"{self._name}:{epoch}"
        for user in (self._credentials, self._resolver, self._settler, self._reaper):
            user.group = group

    async def _learn_from_feed(self) -> None:
        """Apply what the leader wrote: revoked credentials and when Django last answered."""
        now_ms = await self._redis.now_ms()
        raw_confirmed, raw_resets = await self._redis.execute(
            "HMGET", keys.FEED, "confirmed_at", "resets"
        )
        if raw_confirmed is not None:
            age = max(0, now_ms - int(raw_confirmed)) / 1000
            self._credentials.confirmed_at = time.monotonic() - age
        resets = int(raw_resets or 0)
        if self._resets_seen is not None and resets != self._resets_seen:
            self._credentials.forget_all()
        self._resets_seen = resets
        # Scores are readings of the leader's clock, so look back a little further than last time.
        revoked = await self._redis.execute(
            "ZRANGEBYSCORE", keys.REVOKED, self._revoked_seen_ms - 10_000, "+inf", "WITHSCORES"
        )
        for digest, at in zip(revoked[::2], revoked[1::2], strict=True):
            self._credentials.revoke(digest.decode(), int(float(at)))
        self._revoked_seen_ms = now_ms
