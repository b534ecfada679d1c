"""The marker: proof that Redis holds everything that was published.

The marker is a nonce that expires after `MARKER_SECONDS`. The reconciler renews it after each
comparison if it is still the same, and only an uninterrupted rebuild sets a new one. So there is no
marker in a Redis that was wiped, or restored from an older copy, and every reader notices.
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
    """Return the marker's nonce, or None if there is no marker."""
    nonce: str | None = redis_client.client().get(MARKER)  # type: ignore[assignment]
    return nonce


def renew(nonce: str) -> bool:
    """Renew the marker; return False if it is gone or another one by now."""
    return bool(redis_client.script("renew_marker")(keys=[MARKER], args=[nonce, _LIFETIME_MS]))


def building_key(nonce: str) -> str:
    """Return the key that exists as long as the rebuild with this nonce has lost nothing."""
    return f"tollgate:quota:building:{nonce}"


@contextmanager
def rebuilding() -> Iterator[str]:
    """Set the marker at the end of the block, if Redis was not wiped in between.

    Yields the nonce that the marker will have. Every write of the rebuild must check that its
    `building_key` still exists. The rebuild may take at most `BUILDING_SECONDS`. Raises
    `RebuildLost` at the end if the key is gone.
    """
    nonce = uuid.uuid4().hex
    building = building_key(nonce)
    redis_client.client().set(building, "", ex=BUILDING_SECONDS)
    yield nonce
    if not redis_client.script("finish_rebuild")(
        keys=[MARKER, building], args=[nonce, _LIFETIME_MS]
    ):
        raise RebuildLost
