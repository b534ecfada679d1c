"""What the caller has used and has left: `GET /v1/usage/<product>`."""

from typing import Any

import msgspec

from gateway import keys
from gateway.errors import unavailable
from gateway.network.redis_connection import Redis, RedisError, RedisUnavailable
from gateway.products import Product
from gateway.resolver.credentials import Caller
from gateway.resolver.quota import QuotaResolver
from gateway.resolver.tollgate_api import Caps, ResourceAnswer
from gateway.settings import MICRO, Settings


async def usage_report(
    redis: Redis, resolver: QuotaResolver, settings: Settings, product: Product, caller: Caller
) -> dict[str, Any]:
    """Return the credits used, held by calls under way, and left. Raises a 503 `Refusal`.

    `caps` has the further caps on the caller: of the project, the user and the run.
    """
    if product.bucket is None:
        return {"product": product.name, "bucket": None, "limited": False}
    try:
        payer = await resolver.payer(caller.project_id, product.bucket)
        answer = await redis.execute(
            "HGET", keys.project(caller.project_id, product.bucket), "answer"
        )
        allotment, spent, held, epoch = await redis.execute(
            "HMGET", keys.account(payer.account), "allotment", "spent", "held", "epoch"
        )
        if answer is None:
            raise unavailable("Usage is not known at the moment.", "quota_unknown")
        found = msgspec.json.decode(answer, type=ResourceAnswer)
        caps = await _Shares(redis, resolver, payer.account, epoch, caller).read(
            found.caps, settings
        )
    except (RedisUnavailable, RedisError):
        raise unavailable("Usage is not known at the moment.", "store_unavailable") from None
    held_micro = int(held or 0)
    # What this group spent that Django's answer does not include.
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
        "project_id": caller.project_id,
        "limited": found.limited,
        "state": found.state,
        "reason": found.reason,
        "usage": usage,
        "limit": found.limit,
        "held": held_micro / MICRO,
        "remaining": remaining,
        "caps": caps,
        "resets_at": found.resets_at,
        "billing_url": settings.billing_url,
    }


class _Shares:
    """Reads the caps within one account that apply to a caller."""

    def __init__(
        self,
        redis: Redis,
        resolver: QuotaResolver,
        account: str,
        epoch: bytes | None,
        caller: Caller,
    ) -> None:
        self._redis = redis
        self._resolver = resolver
        self._account = account
        self._epoch = epoch
        self._caller = caller

    async def read(self, caps: Caps | None, settings: Settings) -> dict[str, dict[str, Any]]:
        """Return what is used and left of each cap."""
        found: dict[str, dict[str, Any]] = {}
        if caps is not None:
            if any(name.startswith("project:") for name in caps.scopes):
                found |= await self._of("project", str(self._caller.project_id), caps.version)
            if caps.users:
                found |= await self._of("user", self._caller.distinct_id, caps.version)
        of_a_run = [] if caps is None or caps.run_micro is None else [caps.run_micro]
        if settings.run_cap_credits is not None:
            of_a_run.append(int(settings.run_cap_credits * MICRO))
        if self._caller.accepted_micro is not None:
            of_a_run.append(self._caller.accepted_micro)
        if of_a_run and self._caller.task_run_id is not None:
            run = keys.run(self._caller.task_run_id)
            spent, held = await self._redis.execute("HMGET", run, "spent", "held")
            cap = min(of_a_run)
            found["run"] = _share(cap, cap, int(spent or 0), int(held or 0))
        return found

    async def _of(self, scope: str, subject: str, version: int) -> dict[str, dict[str, Any]]:
        key = keys.scope(self._account, f"{scope}:{subject}")
        fields = ("epoch", "version", "allotment", "cap", "spent", "held")
        values = await self._redis.execute("HMGET", key, *fields)
        if values[0] is None or values[0] != self._epoch or int(values[1]) < version:
            # As for a call: ask about a user that is not known yet, or again if Redis lost it.
            user = subject if scope == "user" else ""
            await self._resolver.ask(self._caller.project_id, user)
            values = await self._redis.execute("HMGET", key, *fields)
        _, _, allotment, cap, spent, held = values
        if not allotment:  # it has no cap
            return {}
        limit = int(cap) if cap else None
        return {scope: _share(limit, int(allotment), int(spent or 0), int(held or 0))}


def _share(cap: int | None, allotment: int, spent: int, held: int) -> dict[str, Any]:
    """Return one cap in credits. `allotment` is what was left plus all this group had booked."""
    left = allotment - spent
    return {
        "usage": None if cap is None else (cap - left) / MICRO,
        "limit": None if cap is None else cap / MICRO,
        "held": held / MICRO,
        "remaining": max(0, left - held) / MICRO,
    }
