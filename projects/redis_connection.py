"""Django's Redis: one client per process, with short timeouts."""

from functools import cache

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

CONNECT_SECONDS = 0.25
ANSWER_SECONDS = 0.5


@cache
def redis_connection() -> redis.Redis:
    """Return the process's client. It connects on first use and may be shared between threads.

    It reconnects once if the server dropped the connection, and does not retry otherwise. Its
    commands raise `redis.RedisError` if the server does not answer; callers must handle that.
    """
    return redis.Redis.from_url(
        settings.REDIS_URL,
        decode_responses=True,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), retries=1, supported_errors=(redis.ConnectionError,)),
    )
