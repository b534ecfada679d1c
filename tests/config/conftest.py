"""Redis, when it is away."""

import pytest

from projects.redis_connection import redis_connection


@pytest.fixture
def dead_redis(settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    redis_connection.cache_clear()
    yield
    redis_connection.cache_clear()
