"""Reading the environment. Each wrong value is reported in one line that says what to do."""

import re
from collections.abc import Mapping

import dj_database_url
from django.core.exceptions import ImproperlyConfigured
from environs import Env, EnvValidationError, ValidationError, validate

from coding_tasks.agent_worker.settings import commands_of
from coding_tasks.agents.registry import registry

HINT = "For the stack that `make up` runs: set -a; . .devstack/env; set +a"

not_empty = validate.Length(min=1, error="Is empty.")
web_address = validate.URL(
    schemes={"http", "https"},
    require_tld=False,
    error="Write an address such as https://tollgate.example.com.",
)
slack_api_address = validate.Regexp(
    r"https?://\S+/api/$", error="Write an address that ends in /api/."
)
slack_app_token = validate.Regexp(
    r"(xapp-\S+)?$", error="Give an app-level token, which begins with xapp-."
)
redis_address = validate.Regexp(
    r"(rediss?|unix)://\S+$", error="Write an address such as redis://127.0.0.1:6380/0."
)
sentry_dsn = validate.Regexp(
    r"(https?://[^@/\s]+@[^@\s]+/\d+)?$", error="Write a DSN such as https://key@sentry.io/7."
)
host_and_port = validate.Regexp(
    r"(\[[0-9a-fA-F:]+\]|[^\s:/]+):\d{1,5}$", error="Write host:port, such as 127.0.0.1:7233."
)


def database_address(value: str) -> None:
    """Validate a database URL. The error leaves the URL out, because it holds a password."""
    try:
        engine = dj_database_url.parse(value).get("ENGINE", "")
    except (KeyError, ValueError):
        engine = ""
    if not re.search(r"sqlite3|postgres", engine):
        raise ValidationError("Write an address such as postgres://user:password@host/database.")


def comma_separated(env: Env, name: str) -> list[str]:
    """Return the comma-separated values of a variable, without empty ones."""
    return [value.strip() for value in env.str(name, "").split(",") if value.strip()]


def agent_commands(value: object) -> None:
    """Validate the operator's own agents."""
    try:
        registry(commands_of(value))
    except ValueError as error:
        raise ValidationError(str(error)) from None


def seal(env: Env) -> None:
    """Raise `ImproperlyConfigured` with one line for each wrong variable, if there are any."""
    try:
        env.seal()
    except EnvValidationError as error:
        wrong = error.error_messages
        assert isinstance(wrong, Mapping), "several variables are validated, so they are named"
        lines = [f"{name}: {' '.join(map(str, wrong[name]))}" for name in sorted(wrong)]
        lines.append(f"({HINT}. Every variable is described in .env.example.)")
        raise ImproperlyConfigured("\n".join(lines)) from None
