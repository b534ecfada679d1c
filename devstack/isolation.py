"""An environment for a throw-away stack, without the keys and addresses of the user."""

from collections.abc import Mapping

from devstack.servers import free_port
from devstack.settings import PORTS, SHARED_WITH_COMMANDS

_PREFIXES = (
    "SLACK_",
    "ANTHROPIC_",
    "OPENAI_",
    "GATEWAY_",
    "TEMPORAL_",
    "GRANIAN_",
    "DJANGO_",
    "POSTHOG_",
    "OTEL_",
    "SENTRY_",
)
_NAMES = {
    *SHARED_WITH_COMMANDS,
    "DATABASE_URL",
    "REDIS_URL",
    "TOLLGATE_URL",
    "PUBLIC_URL",
    "GIT_ALLOWED_PROTOCOLS",
    "SECRET_KEY",
    "METRICS_TOKEN",
    "ADMIN_PASSWORD",
    "DEMO_SLACK_BOT_TOKEN",
    "DEBUG",
    "NUM_PROXIES",
    "WEB_PROCESSES",
    "PROMETHEUS_MULTIPROC_DIR",
    "DEVSTACK_DIR",
}


def throw_away_environment(environ: Mapping[str, str], directory: str) -> dict[str, str]:
    """Return the environment of a separate stack: its folder, free ports, no inherited settings."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(_PREFIXES) and name not in _NAMES
    }
    return kept | {"DEVSTACK_DIR": directory} | free_ports()


def free_ports() -> dict[str, str]:
    """Return a free port for each server of a stack, all different."""
    ports: set[int] = set()
    while len(ports) < len(PORTS):
        ports.add(free_port())
    return dict(zip(PORTS, map(str, ports), strict=True))
