"""The gateway's errors at Sentry: type and position, and nothing that anybody wrote."""

import asyncio
import logging
from collections.abc import Iterator

import pytest
import structlog

from gateway.telemetry.error_reports import ErrorReports
from tests.fake_sentry import FakeSentry, functions, position
from tests.gateway.conftest import messages_body, world_of
from tests.gateway.fake_provider import json_script, message, messages_usage

SECRET = "somebody-wrote-this"


@pytest.fixture
def sentry() -> Iterator[FakeSentry]:
    """A Sentry server."""
    with FakeSentry() as server:
        yield server
        assert SECRET.encode() not in server.raw


@pytest.fixture
def reports(sentry: FakeSentry) -> Iterator[ErrorReports]:
    """The reports of this process."""
    reports = ErrorReports(sentry.dsn, "a-test")
    yield reports
    for name in (None, "uvicorn"):
        logging.getLogger(name).removeHandler(reports)


def fail(text: str) -> None:
    variable = text
    try:
        raise KeyError(variable)
    except KeyError as error:
        raise LookupError(f"no {variable}") from error


def test_an_error_is_reported_with_the_errors_that_led_to_it(sentry, reports):
    written: list[str] = []
    log = structlog.wrap_logger(
        structlog.WriteLogger(),
        processors=[reports, lambda _log, _name, event: written.append(event["event"]) or "x"],
    )
    try:
        fail(SECRET)
    except LookupError as error:
        log.exception(f"a call failed: {SECRET}", call_id=SECRET)
        log.error("a request could not be parsed", exc_info=error)
    log.warning("redis is away")
    log.error(f"cost exceeds its bound: {SECRET}", model=SECRET)
    first, second, third = sentry.wait_for(3)
    for report in (first, second):
        kinds = [each["type"] for each in report["exception"]["values"]]
        assert kinds == ["KeyError", "LookupError"]
        assert functions(report)[-1] == "fail"
        assert report["environment"] == "a-test"
    assert position(third) == __file__
    assert len(written) == 4


def test_a_task_of_the_event_loop_that_nobody_awaited_is_reported(sentry, reports):
    async def abandon() -> None:
        asyncio.get_running_loop().call_soon(fail, SECRET)
        await asyncio.sleep(0)

    asyncio.run(abandon())
    [report] = sentry.wait_for(1)
    assert functions(report)[-1] == "fail"


def test_a_gateway_reports_its_errors_without_the_call(sentry: FakeSentry) -> None:
    with world_of(SENTRY_DSN=sentry.dsn, SENTRY_ENVIRONMENT="staging") as world:
        answer = message(messages_usage(output_tokens=10_000))
        world.provider.script = lambda _: json_script(answer)
        token = world.tollgate.token(world.tollgate.project(credits=100))
        prompt = [{"role": "user", "content": SECRET}]
        body = messages_body(messages=prompt, metadata={"user_id": SECRET})
        headers = {"x-secret": SECRET, "cookie": SECRET}
        assert world.post(token, body=body, headers=headers).status_code == 200
        [report] = sentry.wait_for(1)
    assert report["environment"] == "staging"
    assert position(report).endswith("gateway/booking.py")
    assert report["message"] == "booking: Settler.settle"
    assert token.encode() not in sentry.raw
