"""Mistakes that `manage.py check` finds, each with its identifier and a hint."""

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from django.contrib.admin import site
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from billing.models import Limit
from coding_tasks.agent_worker.exchange import Exchange
from projects.redis_connection import redis_connection

ROOT = Path(__file__).resolve().parents[2]
SOUND = {
    "SECRET_KEY": "a secret of the test suite, longer than fifty characters, and of no value",
    "PUBLIC_URL": "https://tollgate.example.com",
    "GATEWAY_SERVICE_TOKENS": ["s" * 40],
    "METRICS_TOKENS": ["m" * 40],
}


@pytest.fixture
def found(settings):
    """Return a function that lists the ids of Tollgate's own findings, each of which has a hint."""
    for name, value in SOUND.items():
        setattr(settings, name, value)

    def _found(deploy=False):
        ours = [
            message
            for message in run_checks(include_deployment_checks=deploy)
            if message.id.startswith("tollgate.")
        ]
        assert all(message.hint for message in ours)
        return [message.id for message in ours]

    return _found


@pytest.mark.parametrize("deploy", [False, True])
def test_a_sound_configuration_has_no_findings(found, redis_client, deploy):
    assert found(deploy) == []


def test_a_sound_deployment_has_no_warnings(found, redis_client, settings, capsys):
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    call_command("check", deploy=True, fail_level="WARNING")


@pytest.mark.parametrize(
    ("setting", "value", "identifier"),
    [
        ("START_CREDITS", Decimal("-1"), "tollgate.E003"),
        ("GIT_ALLOWED_PROTOCOLS", ["https", "ext"], "tollgate.E005"),
    ],
)
def test_what_makes_a_part_refuse_everything_is_an_error_at_once(
    found, settings, setting, value, identifier
):
    setattr(settings, setting, value)
    assert found() == [identifier]
    with pytest.raises(SystemCheckError, match=identifier):
        call_command("check")


@pytest.mark.case("S6")
@pytest.mark.parametrize(
    ("setting", "value", "identifier"),
    [
        ("SLACK_SIGNING_SECRETS", [], "tollgate.E001"),
        ("GATEWAY_SERVICE_TOKENS", [], "tollgate.E002"),
        ("SLACK_CLIENT_ID", "123.456", "tollgate.E004"),
        ("SLACK_CLIENT_SECRET", "secret", "tollgate.E004"),
        ("SECRET_KEY", "x", "tollgate.E006"),
        ("SECRET_KEY", "x" * 60, "tollgate.E006"),
        ("GATEWAY_SERVICE_TOKENS", ["s" * 40, "short"], "tollgate.E007"),
        ("METRICS_TOKENS", ["short"], "tollgate.E007"),
        ("PUBLIC_URL", "http://tollgate.example.com", "tollgate.W001"),
        ("METRICS_TOKENS", [], "tollgate.W002"),
    ],
)
def test_what_only_a_deployment_must_not_have_is_found_for_a_deployment(
    found, settings, redis_client, setting, value, identifier
):
    setattr(settings, setting, value)
    assert found() == []
    assert found(deploy=True) == [identifier]


def test_only_the_web_server_does_not_start_without_its_secrets():
    """With them it starts in the tests of the web server."""
    environment = {
        "PATH": os.environ["PATH"],
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SECRET_KEY": "x",
    }
    started = run_python(environment, "-c", "import config.asgi")
    assert started.returncode == 1
    assert "SLACK_SIGNING_SECRET" in started.stderr
    assert "GATEWAY_SERVICE_TOKEN" in started.stderr
    assert run_python(environment, "manage.py", "check").returncode == 0


def run_python(environment, *arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_redis_that_evicts_keys_is_found(found, redis_client):
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert found(deploy=True) == ["tollgate.W003"]
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")


def test_a_redis_that_cannot_be_reached_is_not_judged(found, settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    redis_connection.cache_clear()
    try:
        assert found(deploy=True) == []
    finally:
        redis_connection.cache_clear()


def test_an_agent_worker_without_a_sandbox_causes_a_warning(
    found, redis_client, settings, tmp_path
):
    settings.AGENT_EXCHANGE_DIRECTORY = str(tmp_path)
    exchange = Exchange(tmp_path)
    exchange.put_report("sound", {"sandbox": "", "agents": {}})
    assert found(deploy=True) == []
    exchange.put_report("bare", {"sandbox": "user namespaces are forbidden", "agents": {}})
    assert found(deploy=True) == ["tollgate.W004"]


def test_a_mistake_in_a_page_of_the_admin_is_found(monkeypatch):
    call_command("check", tags=["admin"])
    monkeypatch.setattr(type(site.get_model_admin(Limit)), "list_display", ["nobody knows this"])
    with pytest.raises(SystemCheckError, match="nobody knows this"):
        call_command("check", tags=["admin"])
