"""The gates' connection to Django's Redis: short timeouts, and honest about reconnecting.

A marker that a process reads right after it reconnected may come from a replica that was promoted
with older data. Such a marker lapses within `MARKER_SECONDS` unless the reconciler, which compares
before it renews, has seen that server too; so for that long after a reconnect the process answers
from the database.
"""

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

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
        """Redis did not answer: leave it alone for a second, and distrust it for longer."""
        self._silent_until = time.monotonic() + SILENCE_SECONDS
        self.reconnected()

    def reconnected(self) -> None:
        """A connection was made anew: the server may be another one."""
        self.disruptions += 1
        self._distrusted_until = time.monotonic() + MARKER_SECONDS

    @property
    def is_silent(self) -> bool:
        """Whether asking again now would most likely cost the caller a timeout."""
        return time.monotonic() < self._silent_until

    @property
    def is_trusted(self) -> bool:
        """Whether a marker read now says anything about the data beside it."""
        return time.monotonic() >= self._distrusted_until


health = Health()


def _connected(connection: AbstractConnection) -> None:
    """Greet the server; a second greeting by one connection object is a reconnect."""
    if getattr(connection, "tollgate_connected", False):
        health.reconnected()
    connection.tollgate_connected = True  # type: ignore[attr-defined]
    connection.on_connect()


@cache
def client() -> redis.Redis:
    """Return the process's client, safe between threads and after a fork.

    Nothing is retried: every caller has a better answer than a longer wait. Raises
    `redis.RedisError` on use when the server does not answer in time.
    """
    return redis.Redis.from_url(
        settings.REDIS_URL,
        decode_responses=True,
        encoding_errors="replace",  # members that somebody wrote by hand may be anything
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), retries=0),
        redis_connect_func=_connected,
    )


@cache
def script(name: str) -> Script:
    """Return the Lua script of that name, to be called with keys and arguments."""
    return client().register_script((Path(__file__).parent / "lua" / f"{name}.lua").read_text())


def call(name: str, keys: Sequence[str], *args: str) -> Any:
    """Run a script as `script(name)` does, at half the CPU: for the one call of the warm path.

    redis-py's own dispatch (retries, metrics, callbacks by command) costs as much as the call.
    """
    known = script(name)
    pool = client().connection_pool
    connection = pool.get_connection()
    try:
        command = connection.pack_command("EVALSHA", known.sha, len(keys), *keys, *args)
        connection.send_packed_command(command)
        return connection.read_response()
    except redis.exceptions.NoScriptError:  # the server is new, or was restarted
        return known(keys=keys, args=args)
    finally:
        pool.release(connection)
