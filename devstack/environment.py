"""The environment variables that each program of the stack gets: only those that it reads.

The environment of `make up` can contain keys for a provider, a cloud or GitHub, so programs don't
inherit it. A name that ends in `*` matches every name that begins this way.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

Names = frozenset[str]

SYSTEM: Names = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "LC_*",
        "TZ",
        "TERM",
        "TMPDIR",
        "PYTHON*",
        "VIRTUAL_ENV",
        "LD_LIBRARY_PATH",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    }
)
"""What every process needs: paths, locale, certificates and proxies."""

DJANGO: Names = frozenset(
    {
        "SECRET_KEY",
        "SECRET_KEY_FALLBACKS",
        "DEBUG",
        "DJANGO_SETTINGS_MODULE",
        "PG*",
        "DATABASE_URL",
        "REDIS_URL",
        "PUBLIC_URL",
        "ALLOWED_HOSTS",
        "GATEWAY_URL",
        "SLACK_API_URL",
        "BOT_NAME",
        "TEMPORAL_ADDRESS",
        "TEMPORAL_NAMESPACE",
        "TEMPORAL_TASK_QUEUE",
        "TEMPORAL_UI_URL",
        "BILLING_URL",
        "START_CREDITS",
        "AGENT_COMMANDS",
        "AGENT_EXCHANGE_DIRECTORY",
        "AGENT_MODEL",
        "AGENT_OPENAI_MODEL",
        "DEFAULT_AGENT",
        "SANDBOX_UID",
        "ROUTING_MODEL",
        "GIT_ALLOWED_PROTOCOLS",
        "COMMIT_NAME",
        "COMMIT_EMAIL",
        "AGENT_TURNS_PER_PROJECT",
        "PROGRESS_AFTER_SECONDS",
        "PUBLISH_MOST_FILES",
        "REPOSITORIES_DIRECTORY",
        "TASK_IDLE_MINUTES",
        "SENTRY_*",
        "LOG_FORMAT",
    }
)
"""The settings of every Django process."""

TEMPORAL_CLIENT: Names = frozenset({"TEMPORAL_*"})
"""Temporal's TLS and API key, for processes that start, signal or run workflows."""

AGENT_WORKER: Names = TEMPORAL_CLIENT | {
    "AGENT_COMMANDS",
    "AGENT_EXCHANGE_DIRECTORY",
    "AGENT_TURNS_AT_ONCE",
    "AGENTS_DIRECTORY",
    "LOG_FORMAT",
    "SANDBOX",
    "SANDBOX_IMAGE",
    "SANDBOX_RUNTIME",
    "SANDBOX_UID",
    "DOCKER_*",
}
"""Without stores, Slack and providers, because this process runs what agents write."""

WEB: Names = (
    DJANGO
    | TEMPORAL_CLIENT
    | {
        "SLACK_SIGNING_SECRET",
        "SLACK_CLIENT_ID",
        "SLACK_CLIENT_SECRET",
        "GATEWAY_SERVICE_TOKEN",
        "METRICS_TOKEN",
        "NUM_PROXIES",
        "WEB_BODY_TIMEOUT",
        "PROMETHEUS_MULTIPROC_DIR",
        "GRANIAN_*",
    }
)

CELERY: Names = DJANGO | TEMPORAL_CLIENT | {"SLACK_CLIENT_ID", "SLACK_CLIENT_SECRET"}
"""Bot tokens that expire are renewed with the app's id and secret."""

SOCKETS: Names = DJANGO | TEMPORAL_CLIENT | {"SLACK_APP_TOKEN"}
"""Slack's events come here in Socket Mode, so this process starts workflows as web does."""

GATEWAY: Names = frozenset(
    {
        "GATEWAY_*",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_UPSTREAM_URL",
        "OPENAI_API_KEY",
        "OPENAI_UPSTREAM_URL",
        "TOLLGATE_URL",
        "METRICS_TOKEN",
        "BILLING_URL",
        "BOT_NAME",
        "POSTHOG_*",
        "OTEL_*",
        "SENTRY_*",
    }
)

DEMO: Names = frozenset({"DEVSTACK_DIR", "DEMO_*", "TOLLGATE_URL", "BOT_NAME"})
DEMO_SLACK: Names = DEMO | {"SLACK_SIGNING_SECRET"}


def filter_environment(environment: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the variables that match these names or `SYSTEM`."""
    patterns = [*SYSTEM, *names]
    return {
        name: value
        for name, value in environment.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
