"""An outage is one line a minute for each cause, whatever notices it; a bug is always written."""

import errno
import io
import logging
import os
from collections.abc import Iterator

import pytest
import redis
import structlog
from django.db import OperationalError

from config import outage_lines
from config.logs import LOGGING, with_error_reports
from config.outage_lines import OncePerMinute, tone_down

REDIS_AWAY = redis.ConnectionError("Error 111 connecting")
DATABASE_AWAY = OperationalError("server closed the connection unexpectedly")
FULL = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    OperationalError("database or disk is full"),
    OperationalError("could not extend file: No space left on device"),
    redis.ResponseError("MISCONF Redis is configured to save, but cannot persist to disk."),
    redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Log:
    """The lines of a process, and its clock."""

    def __init__(self, written: io.StringIO, clock: Clock) -> None:
        self._written, self.clock = written, clock

    @property
    def lines(self) -> list[str]:
        return self._written.getvalue().splitlines()


@pytest.fixture
def log() -> Iterator[Log]:
    """Two handlers with the configured filters, as with Sentry, instead of this process's own."""
    written, clock = io.StringIO(), Clock()
    options = dict(LOGGING["formatters"]["text"])
    formatter = options.pop("()")(**options)
    once = OncePerMinute(clock)
    handlers = [logging.StreamHandler(written), logging.StreamHandler(io.StringIO())]
    for handler in handlers:
        handler.setFormatter(formatter)
        handler.addFilter(tone_down)
        handler.addFilter(once)
    root = logging.getLogger()
    before, root.handlers[:] = list(root.handlers), handlers
    yield Log(written, clock)
    root.handlers[:] = before


def fail(error: Exception, event: str = "a sweep failed") -> None:
    """Log an unexpected error as an activity or a sweep does."""
    try:
        raise error
    except type(error):
        structlog.get_logger("tests").exception(event)


def test_a_cause_is_one_line_a_minute_whatever_notices_it(log: Log) -> None:
    fail(REDIS_AWAY)
    logging.getLogger("quota").warning("the reconciler tries again: %r", REDIS_AWAY)
    logging.getLogger("celery.worker").critical("no broker", exc_info=REDIS_AWAY)
    fail(DATABASE_AWAY)
    structlog.get_logger("tests").warning("a row waits", error="OperationalError: gone")
    structlog.get_logger("tests").warning("temporal is unavailable", error="timed out")
    structlog.get_logger("tests").warning("temporal is unavailable", error="timed out")
    assert len(log.lines) == 3
    assert all("level='warning'" in line for line in log.lines)
    log.clock.now += outage_lines.QUIET_SECONDS - 1
    fail(REDIS_AWAY)
    assert len(log.lines) == 3
    log.clock.now += 1
    fail(REDIS_AWAY)
    assert "left_out=3" in log.lines[3]
    log.clock.now += outage_lines.QUIET_SECONDS
    logging.getLogger("quota").warning("the reconciler tries again: %r", REDIS_AWAY)
    assert len(log.lines) == 5
    assert "left out" not in log.lines[4]


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_a_full_disk_is_one_error_without_a_traceback(log: Log, error: Exception) -> None:
    for _ in range(100):
        fail(error)
        logging.getLogger("billing").error("account %d", 5, exc_info=error)
    [line] = log.lines
    assert "level='error'" in line
    assert str(error.args[-1])[:20] in line
    assert "Traceback" not in line


def test_a_full_disk_in_the_text_of_a_line_is_an_error(log: Log) -> None:
    structlog.get_logger("t").warning("a row waits", error="OperationalError: disk is full")
    [line] = log.lines
    assert "level='error'" in line


def test_a_bug_is_written_each_time_with_its_traceback(log: Log) -> None:
    for _ in range(3):
        fail(KeyError("ours"))
    assert len(log.lines) == 3
    assert all("Traceback" in line and "level='error'" in line for line in log.lines)


def test_lines_about_single_things_are_all_written(log: Log) -> None:
    for number in range(3):
        structlog.get_logger("t").warning("a notice was given up", notice=number, error="no_text")
    structlog.get_logger("t").warning("refused", error="Unusable: it said ConnectionError")
    assert len(log.lines) == 4


def test_refused_requests_are_one_line_a_minute(log: Log) -> None:
    for _ in range(5):
        logging.getLogger("django.request").error("Unavailable", extra={"status_code": 503})
    [line] = log.lines
    assert "level='warning'" in line


def test_every_handler_has_the_filters_in_their_order() -> None:
    configured = with_error_reports(LOGGING, "https://key@sentry.example.com/1", "test")
    for handler in configured["handlers"].values():
        assert handler["filters"] == ["tone down", "once per minute"]
