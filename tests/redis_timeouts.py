"""How long tests let the product wait for Django's Redis: longer than it does in production.

A machine that runs tests may be busy, and an answer that comes late is, to the product, a Redis
that hangs. Tests about one that does hang take the product's own times back.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from projects import hints, redis_connection
from quota.published import redis_client

_TIMES: list[tuple[dict, str]] = [
    (vars(redis_connection), "CONNECT_SECONDS"),
    (vars(redis_connection), "ANSWER_SECONDS"),
    (vars(redis_client), "CONNECT_SECONDS"),
    (vars(redis_client), "ANSWER_SECONDS"),
    (hints._IMPATIENT, "socket_connect_timeout"),
    (hints._IMPATIENT, "socket_timeout"),
]
_IN_PRODUCTION = [times[name] for times, name in _TIMES]
_PATIENT = 30.0


@contextmanager
def long_timeouts() -> Iterator[None]:
    """Let clients that are made in the block wait long for Redis."""
    with pytest.MonkeyPatch.context() as patch:
        for times, name in _TIMES:
            patch.setitem(times, name, _PATIENT)
        yield


def wait_as_in_production(patch: pytest.MonkeyPatch) -> None:
    """Let clients that are made from now on wait no longer than they do in production."""
    for (times, name), seconds in zip(_TIMES, _IN_PRODUCTION, strict=True):
        patch.setitem(times, name, seconds)
