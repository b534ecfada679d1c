"""Fixtures for the tests of every folder: the real servers, started once per test process."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from django.db import connection
from hypothesis import HealthCheck, settings

from devstack.servers import Program, redis_server, temporal_server
from projects import credential_cache
from quota.published import redis_client as quota_redis
from tests import settings as suite
from tests.database_cleanup import use_fast_cleanup
from tests.migrated_database import start_from_copy
from tests.redis_timeouts import long_timeouts

# On a busy machine, the time of an example means nothing.
settings.register_profile(
    "patient", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
)
settings.load_profile("patient")

LONGEST = [
    "devstack/test_whole_stack.py",
    "devstack/test_demo.py",
    "workflows/test_worker_killed.py",
    "gateway/test_crashes.py",
    "gateway/test_failure_policy.py",
    "slack_bot/test_concurrency.py",
    "workflows/test_conversation.py",
    "workflows/test_mention.py",
    "workflows/test_run_worker.py",
    "workflows/test_long_conversations.py",
]
"""The slowest files. They run first, so that no process ends with one of them."""

DAY = 24 * 3600
END_OF_DAY = 10
"""Seconds; hardly any test takes longer."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest files first; the others keep their random order."""
    rank = {file: number for number, file in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get("/".join(item.path.parts[-2:]), len(rank)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Wait for midnight UTC if it is near, because a billing period can end with the day.

    A test must see its own usage in the same period.
    """
    while (left := DAY - time.time() % DAY) < END_OF_DAY:
        time.sleep(left)


def wait_until(condition, timeout: float = 60.0, what: str = "the condition") -> None:
    """Poll until `condition()` is true. Fail with a sentence if that takes too long.

    The longer it has waited, the less often it asks, so a long wait leaves the processor to whatever
    it waits for. It returns at most a tenth later than it could.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > timeout:
            pytest.fail(f"{what} did not happen within {timeout:g} s")
        time.sleep(min(max(waited / 10, 0.005), 0.2))


@contextmanager
def running(program: Program, log: Path) -> Iterator[subprocess.Popen]:
    """Run a program until the block ends. Its output goes to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            program.argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_until(
            lambda: process.poll() is not None or program.ready(),
            what=f"{program.name} being ready",
        )
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def servers() -> Iterator[ExitStack]:
    """The servers that the session's fixtures started; they stop at its end."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def _redis_server(servers: ExitStack) -> str:
    program = redis_server("redis", suite.DIRECTORY / "redis", suite.REDIS_PORT)
    servers.enter_context(running(program, suite.DIRECTORY / "redis.log"))
    servers.enter_context(long_timeouts())
    return f"redis://127.0.0.1:{suite.REDIS_PORT}/0"


@pytest.fixture
def redis_client(_redis_server: str) -> Iterator[redis.Redis]:
    """A client of Django's Redis, which is emptied before the test.

    An earlier test without Redis can have marked it as down, so that is forgotten too.
    """
    with redis.Redis.from_url(_redis_server, decode_responses=True) as client:
        client.flushall()
        quota_redis.health.__init__()
        credential_cache.forget_all()
        yield client


@pytest.fixture(scope="session")
def temporal_address(servers: ExitStack) -> str:
    """The address of a real Temporal server that keeps everything in memory."""
    program = temporal_server(None, suite.TEMPORAL_PORT, None)
    servers.enter_context(running(program, suite.DIRECTORY / "temporal.log"))
    return f"127.0.0.1:{suite.TEMPORAL_PORT}"


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """Have pytest-django use the database that `django_db_modify_db_settings` put there."""
    return True


@pytest.fixture(scope="session")
def django_db_modify_db_settings(servers: ExitStack, django_db_blocker) -> None:
    with django_db_blocker.unblock():
        start_from_copy(servers)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker) -> None:
    """Allow cleaning up after tests that commit.

    On SQLite the clean-up deletes rows, which the ledger's triggers refuse, so these triggers are
    dropped. The triggers against changes stay. The test of refused deletions puts them back.
    """
    use_fast_cleanup()
    if suite.ON_POSTGRES:
        return
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in cursor.fetchall():
            if name.endswith("_no_delete"):
                cursor.execute(f"DROP TRIGGER {name}")
