"""Reading the sorted sets in Django's Redis and the private keys that make them trustworthy.

* `@posthog/quota-limits/<resource>`: project API token → unix seconds until which it is limited.
* `@posthog/quota-limiting-suspended/<resource>`: the same for the end of a grace.
* `tollgate:quota:published:<resource>`: project API token → `version limit suspended`, the newest
  publication and the scores that we wrote ourselves (`-`: none). A tombstone is an entry too.
* `tollgate:quota:states`: account → `version json`, the published state.
* `tollgate:quota:marker`: a nonce that says "everything published is here", see
  `quota.published.marker`.

People may write to a sorted set by hand. Our own writes all go through `quota.published.delta`.
"""

import logging
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import redis

from projects.credential_cache import GENERATION_KEY
from quota.account_state import FAR_FUTURE, AccountState, from_json
from quota.published import redis_client
from quota.resources import RESOURCES

logger = logging.getLogger(__name__)

Member = tuple[str, str]
"""A resource and a project API token."""

MARKER = "tollgate:quota:marker"
STATES = "tollgate:quota:states"


def limits_key(resource: str) -> str:
    """Return the sorted set of limited projects."""
    return f"@posthog/quota-limits/{resource}"


def suspended_key(resource: str) -> str:
    """Return the sorted set of projects whose limiting is suspended by a grace."""
    return f"@posthog/quota-limiting-suspended/{resource}"


def published_key(resource: str) -> str:
    """Return the hash of each member's newest publication."""
    return f"tollgate:quota:published:{resource}"


class RedisUnavailable(Exception):
    """Redis did not answer in time, or holds something that we never write."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The newest publication of a member, with the scores that were written for it."""

    version: int
    limited_until: float | None
    suspended_until: float | None

    @classmethod
    def parse(cls, text: str | None) -> "Entry | None":
        """Return the entry that `push.lua` wrote; raises `ValueError` for anything else."""
        if text is None:
            return None
        version, *scores = text.split(" ")
        limited, suspended = (None if score == "-" else float(score) for score in scores)
        return cls(int(version), limited, suspended)


@dataclass(frozen=True, slots=True)
class ResourceReading:
    """What Redis holds about one project and resource."""

    score: float | None
    suspended: float | None
    entry: Entry | None
    state: AccountState | None

    @property
    def is_by_hand(self) -> bool:
        """Whether the member has a score that we did not write."""
        return self.score is not None and (
            self.entry is None or self.entry.limited_until != self.score
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What one atomic read of Redis found.

    `is_complete` is True if an absent member is really not limited: the marker is there, and this
    process has not reconnected so recently that the marker could be an old one.
    """

    now: datetime
    is_complete: bool
    generation: str | None
    resources: dict[str, ResourceReading]


_KEYS = [MARKER, GENERATION_KEY, STATES] + [
    key(resource) for resource in RESOURCES for key in (limits_key, suspended_key, published_key)
]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read(organization_id: UUID, api_token: str) -> Reading:
    """Read everything about one project in one round trip.

    Raises `RedisUnavailable`. For a second after Redis failed to answer, it raises at once without
    asking again.
    """
    if redis_client.health.is_silent:
        raise RedisUnavailable
    accounts = [f"{organization_id}:{resource}" for resource in RESOURCES]
    try:
        return _parse(redis_client.script("read")(keys=_KEYS, args=[api_token, *accounts]))
    except redis.RedisError as error:
        redis_client.health.failed()
        logger.warning("Redis does not answer; using the database for a second: %r", error)
        raise RedisUnavailable from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        logger.error("Redis holds something we never write; using the database: %r", error)
        raise RedisUnavailable from error


def _parse(reply: list[Any]) -> Reading:
    (seconds, microseconds), marker, generation, *rest = reply
    resources = {}
    for at, resource in zip(range(0, len(rest), 4), RESOURCES, strict=True):
        score, suspended, entry, state = rest[at : at + 4]
        resources[resource] = ResourceReading(
            None if score is None else float(score),
            None if suspended is None else float(suspended),
            Entry.parse(entry),
            None if state is None else from_json(state.partition(" ")[2]),
        )
    return Reading(
        now=_EPOCH + timedelta(seconds=int(seconds), microseconds=int(microseconds)),
        is_complete=marker is not None and redis_client.health.is_trusted,
        generation=generation,
        resources=resources,
    )


def expires_at(score: float | None) -> datetime | None:
    """Return when a score expires; None if there is no score or it never expires."""
    if score is None or not 0 <= score < FAR_FUTURE:
        return None
    return _EPOCH + timedelta(seconds=math.ceil(score))
