"""What is used and left, for the caller: `GET /v1/usage/<product>`."""

from typing import Any

import msgspec

from gateway import keys
from gateway.errors import unavailable
from gateway.products import Product
from gateway.quota_resolver import QuotaResolver
from gateway.redis_connection import Redis, RedisError, RedisUnavailable
from gateway.settings import MICRO
from gateway.tollgate_api import ResourceAnswer


async def usage_report(
    redis: Redis, resolver: QuotaResolver, product: Product, project_id: int, billing_url: str
) -> dict[str, Any]:
    """Return credits used, held by calls under way, and left. Raises a 503 `Refusal`."""
    if product.bucket is None:
        return {"product": product.name, "bucket": None, "limited": False}
    try:
        terms = await resolver.terms(project_id, product.bucket)
        answer = await redis.execute("HGET", keys.project(project_id, product.bucket), "answer")
        allotment, spent, held = await redis.execute(
            "HMGET", keys.account(terms.account), "allotment", "spent", "held"
        )
    except (RedisUnavailable, RedisError):
        raise unavailable("Usage cannot be told at the moment.", "store_unavailable") from None
    if answer is None:
        raise unavailable("Usage cannot be told at the moment.", "quota_unknown")
    found = msgspec.json.decode(answer, type=ResourceAnswer)
    held_micro = int(held or 0)
    # Since Django answered, this group alone has spent that much more; nobody was told.
    since_micro = int(spent or 0) - found.booked_micro
    usage = found.usage
    if usage is not None or since_micro > 0:
        usage = round((usage or 0) + max(since_micro, 0) / MICRO, 6)
    remaining = None
    if allotment:
        remaining = max(0, int(allotment) - int(spent or 0) - held_micro) / MICRO
    return {
        "product": product.name,
        "bucket": product.bucket,
        "project_id": project_id,
        "limited": found.limited,
        "state": found.state,
        "reason": found.reason,
        "usage": usage,
        "limit": found.limit,
        "held": held_micro / MICRO,
        "remaining": remaining,
        "resets_at": found.resets_at,
        "billing_url": billing_url,
    }
