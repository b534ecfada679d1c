"""System checks that find configurations that are well formed but wrong.

`manage.py check` and every command that talks to the database run the first group and refuse to go
on after an error. The web server runs the second when it starts, because only that process is given
the secrets. `manage.py check --deploy` runs all groups.
"""

from collections.abc import Iterator
from typing import Any

import redis
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from coding_tasks.turns.agent_readiness import agent_workers
from projects.redis_connection import redis_connection

WEB = "web"
LEAST_SECRET = 32
"""A secret with fewer characters could be guessed."""


@register("tollgate")
def check_settings(**_kwargs: Any) -> list[CheckMessage]:
    """Return an error for each setting whose value is dangerous or has no effect."""
    return list(_settings())


@register(WEB, deploy=True)
def check_web(**_kwargs: Any) -> list[CheckMessage]:
    """Return an error for each missing secret without which the web server refuses callers."""
    return list(_web())


@register(Tags.security, deploy=True)
def check_deployment(**_kwargs: Any) -> list[CheckMessage]:
    """Return a message about each setting that is tolerable only on one's own machine."""
    return [*_secrets(), *_redis(), *_agent_workers()]


def _web() -> Iterator[CheckMessage]:
    if not settings.SLACK_SIGNING_SECRETS:
        yield Error(
            "There is no Slack signing secret, so every request from Slack is refused.",
            hint="Set SLACK_SIGNING_SECRET to the app's signing secret (Basic Information).",
            id="tollgate.E001",
        )
    if not settings.GATEWAY_SERVICE_TOKENS:
        yield Error(
            "There is no service token, so the gateway is refused: no call is let through.",
            hint="Set GATEWAY_SERVICE_TOKEN to one long random text, here and at the gateway.",
            id="tollgate.E002",
        )
    if bool(settings.SLACK_CLIENT_ID) != bool(settings.SLACK_CLIENT_SECRET):
        yield Error(
            "Only one of SLACK_CLIENT_ID and SLACK_CLIENT_SECRET is set, so the app cannot be "
            "installed.",
            hint="Set both, from the app's Basic Information, or neither.",
            id="tollgate.E004",
        )


def _settings() -> Iterator[CheckMessage]:
    if settings.START_CREDITS < 0:
        yield Error(
            "START_CREDITS is negative, so it keeps no mention from starting work.",
            hint="Set START_CREDITS to the credits that must be left to start work, 0 or more.",
            id="tollgate.E003",
        )
    if unsafe := {"ext", "fd"}.intersection(settings.GIT_ALLOWED_PROTOCOLS):
        yield Error(
            f"GIT_ALLOWED_PROTOCOLS allows {', '.join(sorted(unsafe))}, so anybody who can name a "
            "repository could run commands here.",
            hint="Allow https and ssh.",
            id="tollgate.E005",
        )


def _secrets() -> Iterator[CheckMessage]:
    if len(settings.SECRET_KEY) < LEAST_SECRET or len(set(settings.SECRET_KEY)) < 5:
        yield Error(
            "SECRET_KEY can be guessed; it signs sessions and encrypts Slack's bot tokens and git "
            "credentials.",
            hint="Set it to 50 random characters; see docs/operations.md for how to change it.",
            id="tollgate.E006",
        )
    tokens = [*settings.GATEWAY_SERVICE_TOKENS, *settings.METRICS_TOKENS]
    if any(len(token) < LEAST_SECRET for token in tokens):
        yield Error(
            f"GATEWAY_SERVICE_TOKEN or METRICS_TOKEN is shorter than {LEAST_SECRET} characters.",
            hint="Set each to a long random text of its own.",
            id="tollgate.E007",
        )
    if not settings.PUBLIC_URL.startswith("https://"):
        yield Warning(
            "PUBLIC_URL is not https, so session cookies and credentials travel unprotected.",
            hint="Put a TLS proxy in front and set PUBLIC_URL to its address.",
            id="tollgate.W001",
        )
    if not settings.METRICS_TOKENS:
        yield Warning(
            "There is no METRICS_TOKEN, so /metrics refuses everybody.",
            hint="Set METRICS_TOKEN and give it to Prometheus as its bearer token.",
            id="tollgate.W002",
        )


def _redis() -> Iterator[CheckMessage]:
    """Check Redis if it can be reached. If it can't, the readiness probe says so."""
    try:
        memory: Any = redis_connection().info("memory")
    except redis.RedisError:
        return
    policy = memory.get("maxmemory_policy")
    if policy not in (None, "noeviction"):
        yield Warning(
            f"Redis evicts keys when its memory is full (maxmemory-policy {policy}): limits would "
            "be lost without a trace.",
            hint="Set maxmemory-policy to noeviction.",
            id="tollgate.W003",
        )


def _agent_workers() -> Iterator[CheckMessage]:
    """Check the reports of the agent workers. Workers that aren't running have no report."""
    for worker in agent_workers():
        if worker.sandbox:
            yield Warning(
                f"The agent worker {worker.worker} has no sandbox ({worker.sandbox}), so it "
                "refuses every task that changes code.",
                hint="See docs/operations.md for what the sandbox needs, or stop this worker.",
                id="tollgate.W004",
            )
