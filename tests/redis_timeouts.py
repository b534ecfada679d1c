"""Longer timeouts for Django's Redis than in production.

On a busy test machine an answer can be late, and the product would take that for a Redis that
hangs. Tests about a hanging Redis restore the product's own timeouts.
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
    """Give Redis clients that are created in this block long timeouts."""
    with pytest.MonkeyPatch.context() as patch:
        for times, name in _TIMES:
            patch.setitem(times, name, _PATIENT)
        yield


def wait_as_in_production(patch: pytest.MonkeyPatch) -> None:
    """Give Redis clients that are created from now on the timeouts of production."""
    for (times, name), seconds in zip(_TIMES, _IN_PRODUCTION, strict=True):
        patch.setitem(times, name, seconds)
