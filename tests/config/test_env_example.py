"""`.env.example` lists every variable that is read, each with a comment, and nothing else."""

import os
import re
import runpy
from itertools import pairwise
from pathlib import Path

from opentelemetry.sdk import environment_variables as opentelemetry

ROOT = Path(__file__).resolve().parent.parent.parent
LINES = (ROOT / ".env.example").read_text().splitlines()
VARIABLE = re.compile(r"#?(?P<name>[A-Z][A-Z0-9_]+)=(?P<value>.*)")
SET_FOR_OTHERS = {"GRANIAN_HOST", "GRANIAN_PORT", "GRANIAN_WORKERS"}
READ_BY_OPENTELEMETRY = {name for name in vars(opentelemetry) if name.startswith("OTEL_")}

CONTRACT = [
    "WEB_PORT",
    "GATEWAY_PORT",
    "DEMO_SLACK_PORT",
    "DEMO_MODEL_PORT",
    "TEMPORAL_PORT",
    "TEMPORAL_UI_PORT",
    "REDIS_PORT",
    "GATEWAY_REDIS_PORT",
    "DATABASE_URL",
    "REDIS_URL",
    "GATEWAY_REDIS_URL",
    "TEMPORAL_ADDRESS",
    "TEMPORAL_NAMESPACE",
    "SECRET_KEY",
    "SLACK_SIGNING_SECRET",
    "SLACK_CLIENT_ID",
    "SLACK_CLIENT_SECRET",
    "SLACK_API_URL",
    "GATEWAY_URL",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_UPSTREAM_URL",
    "OPENAI_API_KEY",
    "OPENAI_UPSTREAM_URL",
    "TOLLGATE_URL",
    "GATEWAY_SERVICE_TOKEN",
    "BILLING_URL",
    "BOT_NAME",
    "PUBLIC_URL",
    "ALLOWED_HOSTS",
    "METRICS_TOKEN",
    "START_CREDITS",
    "WEB_PROCESSES",
    "GATEWAY_PROCESSES",
    "DEVSTACK_DIR",
]


def documented() -> dict[str, str]:
    return {found["name"]: found["value"] for line in LINES if (found := VARIABLE.fullmatch(line))}


def read_by(path: str, pattern: str) -> set[str]:
    return set(re.findall(pattern, (ROOT / path).read_text()))


def read_by_compose() -> set[str]:
    """Return the variables that `docker-compose.yml` fills in. `$$` is left to a shell."""
    return read_by("docker-compose.yml", r"(?<!\$)\$\{?([A-Z][A-Z0-9_]+)")


def required_by_compose() -> set[str]:
    """Return the variables that it requires."""
    return read_by("docker-compose.yml", r"(?<!\$)\$\{([A-Z][A-Z0-9_]+):?\?")


def test_compose_needs_only_variables_that_it_lists():
    assert {"POSTGRES_PASSWORD", "SECRET_KEY"} <= required_by_compose()
    assert read_by_compose() <= set(documented())
    needed = {line.partition("=")[0] for line in LINES if not line.startswith("#")}
    assert required_by_compose() <= needed


def test_compose_says_where_its_variables_are_described():
    messages = re.findall(r"\$\{[A-Z_]+:\?([^}]*)\}", (ROOT / "docker-compose.yml").read_text())
    assert set(messages) == {"is not set, see .env.example"}


def test_it_lists_exactly_the_variables_that_are_read():
    read = (
        read_by("config/settings.py", r'(?:env\.\w+\(|several\(env,)\s*"([A-Z_]+)"')
        | read_by("gateway/settings.py", r'env\.\w+\(\s*"([A-Z_]+)"')
        | read_by("config/environment.py", r'env\.\w+\(\s*"([A-Z_]+)"')
        | read_by("coding_tasks/agent_worker/settings.py", r'env\.\w+\(\s*"([A-Z_]+)"')
        | read_by("coding_tasks/sandbox/choice.py", r'env\.\w+\(\s*"([A-Z_]+)"')
        | read_by("devstack/settings.py", r'"([A-Z][A-Z0-9]*_[A-Z0-9_]+)"')
    )
    assert read - SET_FOR_OTHERS <= set(documented())
    assert set(documented()) <= read | READ_BY_OPENTELEMETRY | read_by_compose()


def test_it_lists_what_others_rely_on():
    assert set(CONTRACT) <= set(documented())


def test_no_variable_is_listed_twice():
    names = [found["name"] for line in LINES if (found := VARIABLE.fullmatch(line))]
    assert len(names) == len(set(names))


def test_each_variable_has_its_comment():
    for above, line in pairwise(LINES):
        if VARIABLE.fullmatch(line):
            assert re.fullmatch(r"# \S.*\.", above), line


def test_no_secret_has_a_value():
    for name, value in documented().items():
        if re.search(r"KEY|SECRET|TOKEN$|PASSWORD", name):
            assert value == ""


def test_the_defaults_it_shows_are_those_of_the_settings(monkeypatch):
    for name in list(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("SECRET_KEY", "x")
    default = runpy.run_path(str(ROOT / "config" / "settings.py"))
    shown = documented()
    for name in ("REDIS_URL", "TEMPORAL_ADDRESS", "TEMPORAL_UI_URL", "SLACK_API_URL", "BOT_NAME"):
        assert shown[name] == default[name]
    for name in ("AGENT_MODEL", "AGENT_OPENAI_MODEL", "ROUTING_MODEL"):
        assert shown[name] == default[name]
    for name in ("GATEWAY_URL", "BILLING_URL", "PUBLIC_URL"):
        assert shown[name] == default[name]
    assert shown["START_CREDITS"] == str(default["START_CREDITS"])
    for name in ("TASK_IDLE_MINUTES", "PUBLISH_MOST_FILES"):
        assert shown[name] == str(default[name])
    assert shown["ALLOWED_HOSTS"] == ",".join(default["ALLOWED_HOSTS"])
    assert shown["GIT_ALLOWED_PROTOCOLS"] == ",".join(default["GIT_ALLOWED_PROTOCOLS"])
