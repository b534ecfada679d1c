"""Sentry gets the type and the position of an error, and nothing that anybody wrote."""

import logging
import logging.config
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from config.celery import Task, app
from config.error_reports import ErrorReports
from config.outage_lines import tone_down
from tests.fake_sentry import FakeSentry, functions, position

ROOT = Path(__file__).resolve().parents[2]
SECRET = "somebody-wrote-this"


@pytest.fixture
def sentry() -> Iterator[FakeSentry]:
    """A Sentry that gets the errors of this process."""
    with FakeSentry() as server:
        handler = ErrorReports(server.dsn, "a-test")
        handler.addFilter(tone_down)
        logging.getLogger().addHandler(handler)
        yield server
        logging.getLogger().removeHandler(handler)
        handler.close()
        assert SECRET.encode() not in server.raw


@app.task(base=Task)
def fail(text: str) -> None:
    raise LookupError(f"no answer to {text}")


def fail_in_a_chain(text: str) -> None:
    variable = text
    try:
        raise KeyError(variable)
    except KeyError as error:
        raise LookupError(f"no {variable}") from error


def failing_view(request: HttpRequest, name: str) -> HttpResponse:
    body, headers = request.body, dict(request.headers)
    raise LookupError(f"{name} {request.get_full_path()}: {body!r} {headers} {request.COOKIES}")


urlpatterns = [path("failing/<name>/", failing_view)]


@pytest.mark.urls(__name__)
def test_a_view_that_fails_is_reported_without_its_request(sentry):
    client = Client(raise_request_exception=False)
    client.cookies["sessionid"] = SECRET
    answer = client.post(
        f"/failing/{SECRET}/?token={SECRET}",
        {"text": SECRET},
        headers={"authorization": f"Bearer {SECRET}", "referer": f"https://x/{SECRET}"},
    )
    assert answer.status_code == 500
    [report] = sentry.wait_for(1)
    assert report["logger"] == "django.request"
    assert report["environment"] == "a-test"
    assert report["exception"]["values"][-1]["type"] == "LookupError"
    assert functions(report)[-1] == "failing_view"


def test_a_celery_task_that_fails_is_reported_without_its_arguments(sentry):
    fail.apply([SECRET])
    [report] = sentry.wait_for(1)
    assert report["logger"] == "celery.app.trace"
    assert functions(report)[-1] == "fail"


def test_an_error_of_structlog_is_reported_with_the_errors_that_led_to_it(sentry):
    log = structlog.get_logger("workflows.temporal.interceptors")
    try:
        fail_in_a_chain(SECRET)
    except LookupError as error:
        log.error(f"an activity failed: {SECRET}", text=SECRET, exc_info=error)
        log.exception(f"an activity failed: {SECRET}", text=SECRET)
    for report in sentry.wait_for(2):
        assert [each["type"] for each in report["exception"]["values"]] == [
            "KeyError",
            "LookupError",
        ]
        assert functions(report)[-1] == "fail_in_a_chain"


def test_an_error_without_an_exception_is_reported_with_its_position(sentry):
    logging.getLogger("billing.sweep").error("account %s is published again", SECRET)
    structlog.get_logger("billing.sweep").error(SECRET, text=SECRET)
    for report in sentry.wait_for(2):
        assert position(report) == __file__
        assert report["logger"] == "billing.sweep"


def test_a_store_that_is_down_and_a_warning_are_not_reported(sentry):
    try:
        raise OperationalError("server closed the connection")
    except OperationalError:
        logging.getLogger("django.request").exception("Internal Server Error: /slack/events/")
    logging.getLogger("billing").warning("it is late")
    logging.getLogger("billing").error("it is wrong")
    assert len(sentry.wait_for(1)) == 1


def test_a_sentry_that_is_down_changes_nothing():
    with FakeSentry() as server:
        dsn = server.dsn
    reports = ErrorReports(dsn, "a-test")
    reports.emit(logging.makeLogRecord({"name": "billing", "levelno": logging.ERROR}))
    reports.close()


PROGRAM = """
import django, logging, logging.config, sys
django.setup()
from django.conf import settings
logging.config.dictConfig(settings.LOGGING)  # as Celery does, once more
logging.getLogger("billing").error("somebody-wrote-this")
print("sentry_sdk" in sys.modules)
"""


def run(**environment: str) -> str:
    """Run a process of Django that logs an error and ends; return what it prints."""
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SECRET_KEY": "x" * 50,
        **environment,
    }
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert SECRET in ran.stderr
    return ran.stdout.strip()


def test_the_setting_switches_reports_on_and_an_ending_process_still_sends_them():
    with FakeSentry() as server:
        assert run(SENTRY_DSN=server.dsn, SENTRY_ENVIRONMENT="staging") == "True"
        [report] = server.wait_for(1)
    assert report["environment"] == "staging"
    assert SECRET.encode() not in server.raw


def test_without_the_setting_the_sdk_is_not_imported():
    assert run() == "False"
