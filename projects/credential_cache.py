"""What a process remembers of credentials that it looked up, and when it may believe itself.

A remembered principal is used only together with the *generation*, a random text in Redis that
every revocation, rotation and change of membership replaces. A view reads it in the round trip it
makes anyway (`GENERATION_KEY`) and asks `CachedPrincipal.holds`. So a known credential costs no
database query, and a revoked one is refused by every process at its next request.

* The generation is missing (Redis was wiped) or Redis is silent: nothing remembered is used, the
  database answers.
* A revocation is committed but its process dies, or Redis refuses, before the generation is
  replaced; or Redis is restored to an earlier generation: nothing is remembered for longer than
  `LIFETIME_SECONDS` after the database was read, so that is how long a revoked credential can live.
* The generation is read *before* the database: what was looked up while a revocation was committed
  carries the older generation and is never used.
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
        """Return whether nothing was revoked since, given the generation just read from Redis."""
        return generation is not None and generation == self.generation


_remembered: dict[str, CachedPrincipal] = {}
_silent_until = 0.0  # a Redis that hangs costs one caller a second its timeout, not each of them


def recall(credential_sha256: str, now: datetime) -> CachedPrincipal | None:
    """Return what is remembered of a credential; unproven until its generation is compared."""
    found = _remembered.get(credential_sha256)
    if found is None or time.monotonic() >= found.forget_at:
        return None
    expires_at = found.principal.expires_at
    return None if expires_at is not None and expires_at <= now else found


def remember(principal: Principal, generation: str, read_at: float) -> None:
    """Keep a principal read from the database at `read_at` (monotonic seconds)."""
    if len(_remembered) >= CAPACITY:
        _remembered.clear()
    _remembered[principal.credential_sha256] = CachedPrincipal(
        principal, generation, read_at + LIFETIME_SECONDS
    )


def forget_all() -> None:
    """Forget everything in this process, also that Redis was silent."""
    global _silent_until  # noqa: PLW0603
    _remembered.clear()
    _silent_until = 0.0


def current_generation() -> str | None:
    """Return the generation, making one if there is none; None when Redis does not answer."""
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
    """Make every process forget what it remembers, once the surrounding transaction commits."""
    transaction.on_commit(_renew_generation)


def _renew_generation() -> None:
    forget_all()
    try:
        redis_connection().set(GENERATION_KEY, uuid.uuid4().hex)
    except redis.RedisError as error:
        logger.warning(
            "credential generation not renewed, processes forget within %g s: %s",
            LIFETIME_SECONDS,
            error,
        )
