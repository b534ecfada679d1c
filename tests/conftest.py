"""Fixtures that every folder's tests share: the real servers, started once per test process."""

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
from tests.postgres import postgres_server
from tests.redis_timeouts import long_timeouts

# How long an example takes says nothing on a machine that is busy.
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
"""The files that take longest: they come first, so that no process ends with one of them."""

DAY = 24 * 3600
END_OF_DAY = 10
"""Seconds; hardly a test takes longer."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; the others stay in their random order."""
    rank = {file: number for number, file in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get("/".join(item.path.parts[-2:]), len(rank)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin no test in the last seconds of a day in UTC, with which a billing period may end.

    What is used in a test and what is asked about it belong to one day.
    """
    while (left := DAY - time.time() % DAY) < END_OF_DAY:
        time.sleep(left)


def wait_until(condition, timeout: float = 60.0, what: str = "the condition") -> None:
    """Poll until `condition()` is true; fail with a sentence when it is not in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come about within {timeout:g} s")
        time.sleep(0.01)


@contextmanager
def running(program: Program, log: Path) -> Iterator[subprocess.Popen]:
    """Run a program until the block ends; its output goes to `log`."""
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
    """Whatever servers the session's fixtures started, stopped at its end."""
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
    """A client of Django's Redis, emptied before the test, and of which nothing bad is known.

    A test before this one may have done without Redis, and so seen it refuse connections.
    """
    with redis.Redis.from_url(_redis_server, decode_responses=True) as client:
        client.flushall()
        quota_redis.health.__init__()
        credential_cache.forget_all()
        yield client


@pytest.fixture(scope="session")
def temporal_address(servers: ExitStack) -> str:
    """The address of a real Temporal server that keeps all in memory."""
    program = temporal_server(None, suite.TEMPORAL_PORT, None)
    servers.enter_context(running(program, suite.DIRECTORY / "temporal.log"))
    return f"127.0.0.1:{suite.TEMPORAL_PORT}"


@pytest.fixture(scope="session")
def django_db_modify_db_settings(servers: ExitStack) -> None:
    """Start PostgreSQL before pytest-django makes the test database, when the suite runs on it."""
    if suite.ON_POSTGRES:
        servers.enter_context(postgres_server(suite.DIRECTORY / "postgres", suite.POSTGRES_PORT))


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker) -> None:
    """Let a test that commits be cleaned up: on SQLite that deletes rows, which the ledger refuses.

    Changing rows stays refused, and the refused deletion has a test that puts the triggers back.
    """
    use_fast_cleanup()
    if suite.ON_POSTGRES:
        return
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in cursor.fetchall():
            if name.endswith("_no_delete"):
                cursor.execute(f"DROP TRIGGER {name}")
