"""Expected failures are logged in one line, bugs as errors. Workers survive a broken broker."""

import io
import logging
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
import structlog
from django.db import OperationalError

from config.celery import Task, app
from config.logs import LOGGING
from devstack import commands
from devstack.servers import Program, free_port, redis_server
from tests.conftest import running, wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Return the lines that the configured log handler has written so far."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    formatter = LOGGING["formatters"]["text"] | {}
    handler.setFormatter(formatter.pop("()")(**formatter))
    handler.addFilter(LOGGING["filters"]["tone down"]["()"]())  # without the limit of a minute
    logging.getLogger().addHandler(handler)

    class Lines(list[str]):
        def __iter__(self) -> Iterator[str]:
            return iter(written.getvalue().splitlines())

    yield Lines()
    logging.getLogger().removeHandler(handler)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as same:
        return same


AWAY = [
    redis.BusyLoadingError("Redis is loading the dataset in memory"),
    redis.ConnectionError("Error 111"),
    redis.TimeoutError("Timeout reading from socket"),
    OperationalError("server closed the connection unexpectedly"),
]


@pytest.mark.parametrize("error", AWAY, ids=lambda error: type(error).__name__)
def test_an_unavailable_store_is_a_warning_of_one_line(lines, error):
    logging.getLogger("celery.worker.consumer.consumer").error(
        "consumer: Cannot connect to %s: %s.\n%s\n", "redis://:**@host/0", error, "Trying again"
    )
    try:
        raise RuntimeError("Couldn't apply scheduled task") from raised(error)
    except RuntimeError as scheduling:
        logging.getLogger("celery.beat").error(
            "Message Error: %s\n%s", scheduling, ["a stack"], exc_info=True
        )
    logging.getLogger("celery.worker.request").critical("Couldn't ack", exc_info=raised(error))
    logging.getLogger("billing.sweep").error("account %d", 5, exc_info=raised(error))
    written = list(lines)
    assert len(written) == 4
    for line in written:
        assert "level='warning'" in line
        assert "Traceback" not in line
        assert "a stack" not in line
    assert str(error) in written[3]
    assert "account 5" in written[3]


def test_a_mistake_stays_an_error_with_its_traceback(lines):
    logging.getLogger("celery.app.trace").error("failed", exc_info=raised(KeyError("a mistake")))
    try:
        raise AttributeError("a mistake") from raised(redis.ConnectionError("away"))
    except AttributeError:
        logging.getLogger("celery.worker").critical("Unrecoverable", exc_info=True)
    written = list(lines)
    assert ["level='error'" in written[0], "level='critical'" in written[1]] == [True, True]
    assert all("Traceback" in line for line in written)


def test_a_503_for_an_unavailable_store_is_not_an_error_but_a_crash_is(lines):
    log = logging.getLogger("django.request")
    log.error("Service Unavailable: /slack/events/", extra={"status_code": 503})
    log.error("Internal Server Error: /admin/", extra={"status_code": 500})
    first, second = lines
    assert "level='warning'" in first
    assert "level='error'" in second


def test_the_sdk_does_not_log_failed_activities_a_second_time(lines):
    extra = {"__temporal_error_identifier": "ActivityFailure"}
    logging.getLogger("temporalio.activity").warning("Completing activity as failed", extra=extra)
    logging.getLogger("temporalio.activity").warning("something else")
    [line] = lines
    assert "something else" in line


def test_bytes_are_written_as_text(lines):
    structlog.get_logger("tests").warning("booked", hold_id=b"a-hold", status=b"settled")
    [line] = lines
    assert "hold_id='a-hold' status='settled'" in line


def test_a_task_without_its_store_logs_a_line_and_other_failures_an_error(lines):
    @app.task(base=Task, name="tests.fail")
    def fail(kind: str) -> None:
        raise {"store": OperationalError("away"), "mistake": KeyError("ours")}[kind]

    fail.apply(["store"])
    [line] = lines
    assert "a task is left to the next sweep" in line
    assert "Traceback" not in line
    fail.apply(["mistake"])
    assert "level='error'" in list(lines)[-1]


@contextmanager
def celery(argv: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """Run one of Celery's processes as the stack starts it."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / argv[0]), *argv[1:]],
            cwd=ROOT, env=os.environ | environment, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_worker_and_beat_outlive_a_broker_that_is_killed_and_flushed(tmp_path):
    broker = redis_server("broker", tmp_path / "broker", free_port())
    environment = {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "REDIS_URL": f"redis://127.0.0.1:{broker.port}/0",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'none.sqlite3'}",  # every sweep fails
        "TEMPORAL_ADDRESS": "127.0.0.1:1",
    }
    log, broker_log = tmp_path / "celery.log", tmp_path / "broker.log"
    with (
        celery(commands.CELERY, environment, log) as worker,
        celery(commands.BEAT, environment, log) as beat,
    ):
        for _ in range(2):
            with running(broker, broker_log) as server:
                wait_until(lambda: serves(broker), what="the worker taking tasks")
                server.kill()
                server.wait()
        with running(broker, broker_log):
            wait_until(lambda: serves(broker), what="the worker after two kills")
            redis.Redis(port=broker.port).flushall()
            wait_until(lambda: serves(broker), what="the worker after a flush")
            assert (worker.poll(), beat.poll()) == (None, None), log.read_text()
    output = log.read_text()
    assert "Traceback" not in output
    assert not re.search(r"level='(error|critical)'", output)


def serves(broker: Program) -> bool:
    """Send a task; return whether the worker takes it soon."""
    task_id = str(uuid.uuid4())
    with (
        redis.Redis(port=broker.port) as client,
        app.connection_for_write(f"redis://127.0.0.1:{broker.port}/0") as connection,
    ):
        app.send_task(
            "workflows.tasks.deliver_notice", [task_id], task_id=task_id, connection=connection
        )
        try:
            wait_until(
                lambda: (
                    not any(task_id.encode() in each for each in client.lrange("celery", 0, -1))
                ),
                timeout=5,
            )
        except pytest.fail.Exception:
            return False
    return True


def test_workers_do_not_gossip_or_mingle():
    assert {"--without-gossip", "--without-mingle"} <= set(commands.CELERY)
    assert app.conf.broker_connection_max_retries is None
    assert app.conf.broker_channel_error_retry is True
