"""Checks before a call that are not part of its hold.

The hold script checks everything in Redis that concerns a call that costs credits, in one step:
credits, the cap of a run, requests per minute.
"""

import msgspec

from gateway import keys
from gateway.errors import Refusal, forbidden
from gateway.network.incoming import BodyBudget
from gateway.network.redis_connection import Redis, RedisError, RedisUnavailable, Script
from gateway.products import Product, is_small
from gateway.telemetry import metrics

RATE = Script("rate")


def check_model(product: Product, model: str, small_models: list[str]) -> None:
    """Raise a 403 `Refusal` if the product does not allow the model."""
    if product.small_models_only and not is_small(model, small_models):
        raise forbidden(
            f"The product {product.name} is for small models only, not for {model[:100]}.",
            "model_not_allowed",
        )


class _UnderWay(msgspec.Struct, gc=False):
    bodies: BodyBudget
    calls: int = 0


class Concurrency:
    """Limits each credential's calls under way in this process, and the bytes of their bodies."""

    def __init__(self, most: int, most_body_bytes: int) -> None:
        self._most = most
        self._most_body_bytes = most_body_bytes
        self._under_way: dict[str, _UnderWay] = {}

    def enter(self, credential_sha256: str) -> BodyBudget:
        """Count one more call; return the budget for its body. Raises a 429 `Refusal`."""
        under_way = self._under_way.get(credential_sha256)
        if under_way is None:
            under_way = _UnderWay(BodyBudget(self._most_body_bytes))
            self._under_way[credential_sha256] = under_way
        if under_way.calls >= self._most:
            raise Refusal(
                429,
                "too_many_concurrent_requests",
                f"At most {self._most} requests of one token may be under way at once.",
                retry_after=1,
            )
        under_way.calls += 1
        return under_way.bodies

    def leave(self, credential_sha256: str) -> None:
        """Count one call less."""
        under_way = self._under_way[credential_sha256]
        under_way.calls -= 1
        if not under_way.calls:
            del self._under_way[credential_sha256]


class UnpaidRequests:
    """Limits each credential's requests per minute that cost nothing, over all processes.

    They have their own budget, so that counting tokens leaves room for calls.
    """

    def __init__(self, redis: Redis, per_minute: int) -> None:
        self._redis = redis
        self._per_minute = per_minute

    async def count(self, credential_sha256: str) -> None:
        """Count one more request. Raises a 429 `Refusal` after too many, unless Redis is down."""
        if self._per_minute <= 0:
            return
        try:
            wait_ms = await self._redis.run(
                RATE, [keys.rate_unpaid(credential_sha256)], self._per_minute
            )
        except (RedisUnavailable, RedisError):
            metrics.REDIS_FAILURES.labels("rate").inc()
            return
        if wait_ms:
            raise too_many_requests(wait_ms)


def too_many_requests(retry_after_ms: int) -> Refusal:
    """Return the 429 for a credential that used up its requests per minute."""
    return Refusal(
        429,
        "requests_per_minute",
        "This token has made too many requests in the last minute.",
        retry_after=max(1, -(-retry_after_ms // 1000)),
    )
