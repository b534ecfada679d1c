"""Each process's cache of credentials that it looked up, and the check that they are current.

A cached principal is used only if the *generation* is unchanged: a random text in Redis that every
revocation, rotation and change of membership replaces. A view reads it in a round trip that it
makes anyway (`GENERATION_KEY`) and asks `CachedPrincipal.is_current`. So a known credential costs
no database query, and every process refuses a revoked credential at its next request.

* If the generation is missing (Redis was wiped) or Redis does not answer, the cache isn't used and
  the database answers.
* A revocation can fail to replace the generation: the process dies, Redis refuses, or Redis is
  restored to an earlier generation. A cached principal expires `LIFETIME_SECONDS` after it was
  read from the database, so a revoked credential works no longer than that.
* The generation is read *before* the database. A lookup that races with the commit of a revocation
  therefore carries the older generation and is never used.
"""

import logging
import time
import uuid
from dataclasses import dataclass
from datetime import datetime

import redis
from django.db import transaction

from projects.principal import Principal
from projects.redis_connection import redis_connection

GENERATION_KEY = "tollgate:credentials:generation"
LIFETIME_SECONDS = 10.0
SILENCE_SECONDS = 1.0
CAPACITY = 10_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CachedPrincipal:
    """A principal as it was when the generation was `generation`."""

    principal: Principal
    generation: str
    forget_at: float

    def is_current(self, generation: str | None) -> bool:
        """Return whether nothing was revoked, given the generation just read from Redis."""
        return generation is not None and generation == self.generation


_remembered: dict[str, CachedPrincipal] = {}
_silent_until = 0.0  # when Redis hangs, only one caller a second waits for the timeout


def recall(credential_sha256: str, now: datetime) -> CachedPrincipal | None:
    """Return the cached principal of a credential. Call `is_current` before using it."""
    found = _remembered.get(credential_sha256)
    if found is None or time.monotonic() >= found.forget_at:
        return None
    expires_at = found.principal.expires_at
    return None if expires_at is not None and expires_at <= now else found


def remember(principal: Principal, generation: str, read_at: float) -> None:
    """Cache a principal that was read from the database at `read_at` (monotonic seconds)."""
    if len(_remembered) >= CAPACITY:
        _remembered.clear()
    _remembered[principal.credential_sha256] = CachedPrincipal(
        principal, generation, read_at + LIFETIME_SECONDS
    )


def forget_all() -> None:
    """Empty this process's cache, and forget that Redis did not answer."""
    global _silent_until  # noqa: PLW0603
    _remembered.clear()
    _silent_until = 0.0


def current_generation() -> str | None:
    """Return the generation, creating it if needed, or None if Redis does not answer."""
    global _silent_until  # noqa: PLW0603
    if time.monotonic() < _silent_until:
        return None
    try:
        with redis_connection().pipeline(transaction=False) as pipeline:
            pipeline.set(GENERATION_KEY, uuid.uuid4().hex, nx=True)
            pipeline.get(GENERATION_KEY)
            generation: str | None = pipeline.execute()[1]
    except redis.RedisError:
        _silent_until = time.monotonic() + SILENCE_SECONDS
        return None
    return generation


def renew_generation_on_commit() -> None:
    """Invalidate the cache of every process when the surrounding transaction commits."""
    transaction.on_commit(_renew_generation)


def _renew_generation() -> None:
    forget_all()
    try:
        redis_connection().set(GENERATION_KEY, uuid.uuid4().hex)
    except redis.RedisError as error:
        logger.warning(
            "credential generation not renewed; caches expire within %g s: %s",
            LIFETIME_SECONDS,
            error,
        )
