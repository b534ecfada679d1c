"""An error that repeats is one line a minute; lines about single things are all written."""

import pytest
import structlog

from gateway.network.redis_connection import RedisError
from gateway.telemetry.repetitions import MOST_REMEMBERED, QUIET_SECONDS, OncePerMinute


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Log:
    def __init__(self) -> None:
        self.clock = Clock()
        self.lines: list[dict] = []
        self._processor = OncePerMinute(self.clock)

    def write(self, method: str, event: str, **fields: object) -> None:
        try:
            self.lines.append(self._processor(None, method, {"event": event, **fields}))
        except structlog.DropEvent:
            return


@pytest.fixture
def log() -> Log:
    return Log()


def fail(log: Log, error: Exception) -> None:
    try:
        raise error
    except type(error):
        log.write("exception", "a background step failed", exc_info=True)


def test_a_full_disk_is_one_line_a_minute_without_a_traceback(log: Log) -> None:
    for _ in range(100):
        fail(log, RedisError("MISCONF Errors writing to the AOF file: No space left on device"))
    [line] = log.lines
    assert line["error"].startswith("MISCONF")
    assert "exc_info" not in line
    log.clock.now += QUIET_SECONDS
    fail(log, RedisError("MISCONF Errors writing to the AOF file: No space left on device"))
    assert log.lines[1]["left_out"] == 99


def test_another_error_of_the_same_step_is_written(log: Log) -> None:
    fail(log, KeyError("one"))
    fail(log, ValueError("another"))
    fail(log, KeyError("one"))
    assert len(log.lines) == 2
    assert all(line["exc_info"] is True for line in log.lines)


def test_a_refused_poll_is_one_line_a_minute(log: Log) -> None:
    for _ in range(50):
        log.write("error", "the change feed is not usable", error="status 401")
    assert len(log.lines) == 1


def test_lines_without_an_error_are_all_written(log: Log) -> None:
    for uuid in "abc":
        log.write("error", "billing set an event aside", uuid=uuid, why="unknown_project")
        log.write("info", "again", error="status 401")
    assert len(log.lines) == 6


def test_it_remembers_a_bounded_number_of_errors(log: Log) -> None:
    for number in range(3 * MOST_REMEMBERED):
        log.write("error", f"event {number}", error="x")
    assert len(log._processor._quiet) <= MOST_REMEMBERED
