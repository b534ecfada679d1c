"""The gates' connection to Django's Redis: short timeouts, and a record of every reconnect.

After a reconnect the server may be a replica that was promoted with older data, and its marker may
be an old one. Such a marker expires within `MARKER_SECONDS`, unless the reconciler has compared
that server and renewed it. So for that long after a reconnect the process answers from the
database.
"""

import time
from functools import cache
from pathlib import Path

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.connection import AbstractConnection
from redis.retry import Retry

CONNECT_SECONDS = 0.25
ANSWER_SECONDS = 0.5
MARKER_SECONDS = 5.0
SILENCE_SECONDS = 1.0


class Health:
    """What this process saw of Redis lately, in monotonic seconds."""

    def __init__(self) -> None:
        self.disruptions = 0
        self._distrusted_until = 0.0
        self._silent_until = 0.0

    def failed(self) -> None:
        """Note that Redis did not answer: don't ask for a second, and don't trust it for longer."""
        self._silent_until = time.monotonic() + SILENCE_SECONDS
        self.reconnected()

    def reconnected(self) -> None:
        """Note that a connection was replaced: the server may be another one."""
        self.disruptions += 1
        self._distrusted_until = time.monotonic() + MARKER_SECONDS

    @property
    def is_silent(self) -> bool:
        """Whether Redis failed to answer a moment ago, so that asking would cost a timeout."""
        return time.monotonic() < self._silent_until

    @property
    def is_trusted(self) -> bool:
        """Whether a marker read now proves that the data beside it is complete."""
        return time.monotonic() >= self._distrusted_until


health = Health()


def _connected(connection: AbstractConnection) -> None:
    """Greet the server. A second greeting by the same connection object is a reconnect."""
    if getattr(connection, "tollgate_connected", False):
        health.reconnected()
    connection.tollgate_connected = True  # type: ignore[attr-defined]
    connection.on_connect()


@cache
def client() -> redis.Redis:
    """Return the process's client. It may be shared between threads and used after a fork.

    It does not retry, because every caller has a better answer than a longer wait. Its commands
    raise `redis.RedisError` if the server does not answer in time.
    """
    return redis.Redis.from_url(
        settings.REDIS_URL,
        decode_responses=True,
        encoding_errors="replace",  # members written by hand may be any bytes
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), retries=0),
        redis_connect_func=_connected,
    )


@cache
def script(name: str) -> Script:
    """Return the Lua script of that name."""
    return client().register_script((Path(__file__).parent / "lua" / f"{name}.lua").read_text())
