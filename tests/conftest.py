"""Fixtures for the tests of every folder: the real servers, started once per test process."""

import gc
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from django.db import connection
from hypothesis import HealthCheck, settings

from devstack.servers import Program, redis_server, temporal_server
from projects import credential_cache
from quota.published import redis_client as quota_redis
from tests import behaviours
from tests import settings as suite
from tests.compiled_together import compile_together
from tests.database_cleanup import use_fast_cleanup
from tests.examples import examples
from tests.migrated_database import start_from_copy
from tests.redis_timeouts import long_timeouts

# On a busy machine, the time of an example means nothing: only the test's timeout applies.
settings.register_profile(
    "patient",
    deadline=None,
    max_examples=examples(50),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("patient")

LONGEST = [
    "devstack/test_whole_stack.py",
    "workflows/agents/test_interruptions.py",
    "workflows/agents/test_agent_runs.py",
    "workflows/agents/test_refunds.py",
    "workflows/test_conversation.py",
    "coding_tasks/publishing/test_publication.py",
    "slack_bot/test_socket_mode.py",
    "workflows/activities/test_waits.py",
    "workflows/test_mention.py",
    "workflows/temporal/test_worker_killed.py",
    "config/test_web_server.py",
    "workflows/quotes/test_asking_first.py",
    "gateway/test_crashes.py",
]
"""The slowest files. They run first, so that no process ends with one of them."""

DAY = 24 * 3600
END_OF_DAY = 10
"""Seconds; hardly any test takes longer."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the number of each case as a marker, so that `-m S17` runs its tests."""
    for case, behaviour in behaviours.cases().items():
        config.addinivalue_line("markers", f"{case}: {behaviour}")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test with its cases. A number that the document doesn't have is an error."""
    for mark in item.iter_markers("case"):
        for case in mark.args:
            item.add_marker(case)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Keep the garbage collector away from the imported modules and the tests, which all stay."""
    gc.disable()
    try:
        if runs_whole_suite(session.config):
            compile_together(session.config)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the slowest files first. The others stay in random order, grouped by top folder.

    So each process starts a folder's servers once, and stops them after its last test. A
    run of the whole suite on PostgreSQL leaves out the tests that use no database.
    """
    if suite.ON_POSTGRES and runs_whole_suite(config):
        config.hook.pytest_deselected(items=[item for item in items if not uses_database(item)])
        items[:] = [item for item in items if uses_database(item)]
    tests = Path(__file__).parent
    rank = {tests / file: number for number, file in enumerate(LONGEST)}
    rooms: dict[str, int] = {}

    def place(item: pytest.Item) -> tuple[int, int]:
        room = item.path.relative_to(tests).parts[0]
        return rank.get(item.path, len(rank)), rooms.setdefault(room, len(rooms))

    items.sort(key=place)


def runs_whole_suite(config: pytest.Config) -> bool:
    """Return whether no files or folders were chosen."""
    return [Path(argument).resolve() for argument in config.args] == [Path(__file__).parent]


def uses_database(item: pytest.Item) -> bool:
    """Return whether a test uses the test database, or starts programs with a database."""
    marked = item.get_closest_marker("django_db") or item.get_closest_marker("database")
    return bool(marked) or "django_db_setup" in getattr(item, "fixturenames", ())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Wait for midnight UTC if it is near, because a billing period can end with the day.

    A test must see its own usage in the same period.
    """
    while (left := DAY - time.time() % DAY) < END_OF_DAY:
        time.sleep(left)


def wait_until(condition, timeout: float = 60.0, what: str = "the condition") -> None:
    """Poll until `condition()` is true. Fail with a sentence if that takes too long.

    The longer it has waited, the less often it asks, because most questions are queries. A wait
    costs little processor time, and takes at most a fifth longer than needed.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > timeout:
            pytest.fail(f"{what} did not happen within {timeout:g} s")
        time.sleep(min(max(waited / 5, 0.005), 0.2))


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


@pytest.fixture(scope="session")
def _redis_client(_redis_server: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(_redis_server, decode_responses=True) as client:
        yield client


@pytest.fixture
def redis_client(_redis_client: redis.Redis) -> redis.Redis:
    """A client of Django's Redis, which is emptied before the test.

    An earlier test without Redis can have marked it as down, so that is forgotten too.
    """
    _redis_client.flushall()
    quota_redis.health.__init__()
    credential_cache.forget_all()
    return _redis_client


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
