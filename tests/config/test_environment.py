"""The environment: all wrong variables are reported at once, and derived settings are right."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def settings_of(monkeypatch):
    """Return a function that runs the settings file with only the given environment variables."""

    def _settings_of(**environment):
        for name in list(os.environ):
            monkeypatch.delenv(name)
        for name, value in ({"SECRET_KEY": "x"} | environment).items():
            monkeypatch.setenv(name, value)
        return runpy.run_path(str(ROOT / "config" / "settings.py"))

    return _settings_of


def test_only_the_secret_key_has_no_default(settings_of):
    settings = settings_of()
    assert settings["BILLING_URL"] == "http://localhost:8000/admin/"
    assert settings["CSRF_TRUSTED_ORIGINS"] == ["http://localhost:8000"]
    assert settings["GATEWAY_SERVICE_TOKENS"] == settings["SLACK_SIGNING_SECRETS"] == []
    assert not settings["SESSION_COOKIE_SECURE"]


def test_derived_settings_follow_the_public_address(settings_of):
    settings = settings_of(PUBLIC_URL="https://tollgate.example.com/below/")
    assert settings["BILLING_URL"] == "https://tollgate.example.com/below/admin/"
    assert settings["CSRF_TRUSTED_ORIGINS"] == ["https://tollgate.example.com"]
    assert settings["SESSION_COOKIE_SECURE"]


def test_two_secrets_are_valid_during_a_rotation_and_blanks_are_ignored(settings_of):
    settings = settings_of(GATEWAY_SERVICE_TOKEN="new, old,,", SLACK_SIGNING_SECRET=" , ")
    assert settings["GATEWAY_SERVICE_TOKENS"] == ["new", "old"]
    assert settings["SLACK_SIGNING_SECRETS"] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", ""),
        ("DEBUG", "maybe"),
        ("PUBLIC_URL", "tollgate.example.com"),
        ("PUBLIC_URL", "javascript:alert(1)"),
        ("BILLING_URL", "nonsense"),
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "mysql://user:password@host/database"),
        ("DATABASE_URL", "postgres://user:password@host:port/database"),
        ("REDIS_URL", "localhost:6379"),
        ("TEMPORAL_ADDRESS", "localhost"),
        ("SLACK_API_URL", "https://slack.com/api"),
        ("START_CREDITS", "some"),
        ("START_CREDITS", "NaN"),
        ("PROGRESS_AFTER_SECONDS", "0"),
        ("TASK_IDLE_MINUTES", "0"),
        ("TASK_IDLE_MINUTES", "1.5"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_variable(settings_of, name, value):
    with pytest.raises(ImproperlyConfigured) as refused:
        settings_of(**{name: value})
    first, hint = str(refused.value).splitlines()
    assert first.startswith(f"{name}: ")
    assert ". .devstack/env" in hint
    assert "password@host:" not in first


def test_a_command_says_so_without_a_traceback():
    result = subprocess.run(
        [sys.executable, "manage.py", "create_project"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "START_CREDITS": "some"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == ["SECRET_KEY", "START_CREDITS"]


def test_a_command_whose_reader_leaves_ends_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    environment = {"PATH": os.environ["PATH"], "SECRET_KEY": "x"}
    with os.fdopen(writer, "wb") as output:
        ended = subprocess.run(
            [sys.executable, "manage.py", "help", "--commands"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (0, b"")
