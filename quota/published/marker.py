"""The marker: proof that Redis holds everything that was published.

A nonce that lapses within `MARKER_SECONDS`. A tick of the reconciler lets it live on, if it is
still the same, after comparing; only a rebuild that nothing interrupted sets one. So a Redis that
was wiped, or restored from a copy older than that, has none, and whoever reads it knows.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from quota.published import redis_client
from quota.published.delta import RebuildLost
from quota.published.limited_set import MARKER
from quota.published.redis_client import MARKER_SECONDS

BUILDING_SECONDS = 60
_LIFETIME_MS = int(MARKER_SECONDS * 1000)


def current() -> str | None:
    """Return the marker's nonce, None when there is no marker."""
    nonce: str | None = redis_client.client().get(MARKER)  # type: ignore[assignment]
    return nonce


def renew(nonce: str) -> bool:
    """Let the marker live on; False when it is another one by now, or gone."""
    return bool(redis_client.script("renew_marker")(keys=[MARKER], args=[nonce, _LIFETIME_MS]))


def building_key(nonce: str) -> str:
    """Return the key that is there as long as the rebuild of that nonce has lost nothing."""
    return f"tollgate:quota:building:{nonce}"


@contextmanager
def rebuilding() -> Iterator[str]:
    """Set the marker if the block ends with the Redis that it began with.

    Yields the nonce that the marker will have. Every slice of the rebuild must find its
    `building_key` in place; the whole may take `BUILDING_SECONDS`. Raises `RebuildLost` at the end
    when the key is gone.
    """
    nonce = uuid.uuid4().hex
    building = building_key(nonce)
    redis_client.client().set(building, 1, ex=BUILDING_SECONDS)
    yield nonce
    if not redis_client.script("finish_rebuild")(
        keys=[MARKER, building], args=[nonce, _LIFETIME_MS]
    ):
        raise RebuildLost
