"""Booking the calls of dead processes: each at the bound of its hold, marked as estimated."""

import structlog

from gateway import keys
from gateway.money.holds import LONGEST_MARK_MS, Settlement, run_settlement
from gateway.money.usage_events import CallRecord, estimated_event
from gateway.network.redis_connection import Redis
from gateway.telemetry import metrics

logger = structlog.get_logger("gateway.money.reaper")

TICK_SECONDS = 1.0


class Reaper:
    """The leader's reaping loop: book the holds of owners whose lease expired."""

    def __init__(self, redis: Redis, copies: int = 0) -> None:
        self._redis = redis
        self._copies = copies
        self.group = ""

    async def step(self) -> float:
        """Look once; return how many seconds to wait before the next time."""
        now_ms = await self._redis.now_ms()
        await self._redis.execute("ZREMRANGEBYSCORE", keys.REAPED, "-inf", now_ms)
        dead = await self._redis.execute("ZRANGEBYSCORE", keys.OWNERS, "-inf", now_ms)
        for owner in dead:
            await self._book_holds_of(owner.decode(), now_ms)
        return TICK_SECONDS

    async def _book_holds_of(self, owner: str, now_ms: int) -> None:
        holds = await self._redis.execute("HGETALL", keys.holds(owner))
        for hold_id, hold in zip(holds[::2], holds[1::2], strict=True):
            account, bound, _, record = hold.decode().split("\n")
            event = estimated_event(CallRecord.decode(record), int(bound), account, self.group)
            status, _ = await run_settlement(
                self._redis,
                owner,
                Settlement(hold_id.decode(), "reap", int(bound), event, account),
                self._copies,
            )
            metrics.ESTIMATED.labels("process_died").inc()
            logger.warning("booked a call of a dead process", hold_id=hold_id, status=status)
        # If the owner has come back meanwhile, its newer lease must stay.
        score = await self._redis.execute("ZSCORE", keys.OWNERS, owner)
        if score is not None and float(score) <= now_ms:
            await self._redis.execute("PEXPIRE", keys.settled(owner), LONGEST_MARK_MS)
            await self._redis.execute("ZREM", keys.OWNERS, owner)
