"""Logs: one line per event, and never a secret."""

import io
import json
import logging
import logging.config
import os
import subprocess
import sys
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from django.conf import settings

from config import logs
from config.logs import LOGGING, mask_secrets, redact
from projects import tokens

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICE_TOKEN = "service-token-of-the-test-suite"
SIGNING_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"


@pytest.fixture(params=["text", "json"])
def log_format(request) -> str:
    return request.param


@pytest.fixture
def logged(log_format):
    """Yield a function that returns what the configured log handler wrote."""
    written = io.StringIO()
    configuration = LOGGING["formatters"][log_format] | {}
    factory = configuration.pop("()")
    handler = logging.StreamHandler(written)
    handler.setFormatter(factory(**configuration))
    root = logging.getLogger()
    root.addHandler(handler)
    yield written.getvalue
    root.removeHandler(handler)


@pytest.mark.parametrize(
    "secret",
    [
        tokens.generate_personal_api_key(),
        tokens.generate_access_token(),
        tokens.generate_refresh_token(),
        "xoxb-123-456-abcdef",
        "xoxe.xoxp-1-abcdefgh",
        "xapp-1-A012-345-abcdef",
        "sk-ant-api03-abcdefghijkl",
        SERVICE_TOKEN,
        SIGNING_SECRET,
        settings.SECRET_KEY,
        "metrics-token-of-the-test-suite",
    ],
    ids=lambda secret: secret[:4],
)
def test_no_secret_reaches_a_line_wherever_it_hides(logged, secret):
    log = structlog.get_logger("tests")
    log.info("in the event " + secret)
    log.info("in a value", value=secret)
    log.info("in a container", headers={"authorization": f"Bearer {secret}"}, several=[secret])
    plain = logging.getLogger("tests.plain")
    plain.info("as an argument: %s", secret)
    plain.info("in an object: %s", {"token": secret})
    try:
        raise ValueError(f"refused {secret}")
    except ValueError as error:
        plain.exception("it failed")
        log.exception("it failed", error=error)
        plain.error(error)
    assert logged().count("\n") == 8
    assert secret not in logged()


def test_a_bearer_token_of_any_kind_is_masked():
    assert redact(None, "", "Authorization: Bearer abcdef123456") == "Authorization: Bear…"


@pytest.mark.parametrize(
    "line",
    [
        "phc_ is public: phc_abcdefghijklmnop",
        "task-skipped because sk- is short",
        f"run {uuid.UUID(int=7)} took {timedelta(seconds=3)}",
        "the bearer of good news",
    ],
)
def test_text_without_secrets_stays_readable(line):
    assert redact(None, "", line) == line


@pytest.mark.parametrize("log_format", ["text"])
def test_an_event_is_one_line_with_its_time_level_and_origin(logged):
    structlog.get_logger("tests.origin").warning("it\nhappened", number=7)
    [line] = logged().splitlines()
    assert "level='warning' logger='tests.origin' event='it\\nhappened' number=7" in line
    assert line.startswith("timestamp='20")


@pytest.mark.parametrize("log_format", ["json"])
def test_a_line_of_json_has_the_same_fields(logged):
    structlog.get_logger("tests.origin").warning("it\nhappened", number=7, odd={1, "x"})
    fields = json.loads(logged())
    assert fields.pop("timestamp").startswith("20")
    assert fields.pop("odd") in ("{1, 'x'}", "{'x', 1}")
    assert fields == {
        "level": "warning",
        "logger": "tests.origin",
        "event": "it\nhappened",
        "number": 7,
    }


@pytest.mark.parametrize("secret", ['with "quotes" in it', "with \\ and 'both", "größer als alles"])
def test_a_secret_is_masked_however_it_is_written(logged, monkeypatch, secret):
    monkeypatch.setattr(logs, "_known", [])
    mask_secrets([secret])
    structlog.get_logger("tests").info(secret, value=[secret])
    assert "…" in logged()
    assert "with" not in logged()
    assert "als alles" not in logged()


def test_celery_logs_like_every_other_process():
    script = """
import logging
from config.celery import app
app.log.setup(loglevel="INFO")
logging.getLogger("celery.worker").warning("with pha_abcdefghijklmnop")
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "SECRET_KEY": "x",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = ran.stderr.splitlines()
    assert "event='with pha_…'" in line
