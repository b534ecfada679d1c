"""What a process concludes from what it saw of Redis lately."""

import socket
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest
import redis

from quota.published import redis_client
from quota.published.redis_client import MARKER_SECONDS, SILENCE_SECONDS, Health


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(redis_client, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.mark.parametrize("began", [0.0, 1000.0])
def test_redis_is_trusted_and_asked_until_something_happens(clock, began):
    clock[0] = began
    health = Health()
    assert (health.is_trusted, health.is_silent, health.disruptions) == (True, False, 0)


def test_after_a_failure_redis_is_not_asked_for_a_while_and_not_trusted_for_longer(clock):
    health = Health()
    health.failed()
    assert (health.is_trusted, health.is_silent, health.disruptions) == (False, True, 1)
    clock[0] += SILENCE_SECONDS - 0.01
    assert health.is_silent
    clock[0] += 0.01
    assert (health.is_trusted, health.is_silent) == (False, False)
    clock[0] += MARKER_SECONDS - SILENCE_SECONDS - 0.01
    assert not health.is_trusted
    clock[0] += 0.02
    assert health.is_trusted


def test_a_command_that_fails_is_not_sent_again(settings):
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings.REDIS_URL = f"redis://127.0.0.1:{server.getsockname()[1]}"
        client = redis_client.client.__wrapped__()
        calls = []

        def hang_up():
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    calls.append(connection.close())

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(redis.RedisError):
            client.get("key")
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(calls) == 1


def test_after_a_reconnect_redis_is_asked_and_not_trusted(clock):
    health = Health()
    health.reconnected()
    health.reconnected()
    assert (health.is_trusted, health.is_silent, health.disruptions) == (False, False, 2)
