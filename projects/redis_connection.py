"""Django's Redis: one client per process, with timeouts that a caller can wait for."""

from functools import cache

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

CONNECT_SECONDS = 0.25
ANSWER_SECONDS = 0.5


@cache
def redis_connection() -> redis.Redis:
    """Return the process's client; it connects when first used and is safe between threads.

    A connection that the server dropped meanwhile is made anew at once; nothing else is retried.
    Raises `redis.RedisError` on use when the server does not answer: each caller says what it
    does then.
    """
    return redis.Redis.from_url(
        settings.REDIS_URL,
        decode_responses=True,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), retries=1, supported_errors=(redis.ConnectionError,)),
    )
