"""The compose file and the images run what `make up` runs, with no secret that has a default."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from devstack import commands

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SECRETS = {
    "SECRET_KEY",
    "POSTGRES_PASSWORD",
    "GATEWAY_SERVICE_TOKEN",
    "METRICS_TOKEN",
    "SLACK_SIGNING_SECRET",
}


@pytest.mark.parametrize(
    ("service", "command"),
    [
        ("web", commands.WEB),
        ("worker", commands.WORKER),
        ("agents", commands.AGENT_WORKER),
        ("celery", commands.CELERY),
        ("beat", commands.BEAT),
        ("reconciler", commands.RECONCILER),
        ("sockets", commands.SOCKETS),
        ("gateway", commands.GATEWAY),
        ("migrate", commands.MIGRATE),
    ],
)
def test_a_service_is_started_as_make_up_starts_it(service: str, command: list[str]) -> None:
    assert COMPOSE["services"][service]["command"] == command


def test_the_images_start_the_same_commands() -> None:
    started = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert [yaml.safe_load(command) for command in started] == [commands.WEB, commands.GATEWAY]


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for name in SECRETS:
        uses = re.findall(rf"\$\{{{name}(?![A-Z_])([^}}]*)\}}", text)
        assert uses, name
        assert all(use.startswith(":?") for use in uses), name


def test_every_variable_is_documented() -> None:
    documented = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M))
    used = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))
    assert used <= documented


# Only an image or `make up` sets these: internal addresses, and a setting that shows source code.
_NOT_IN_ENV_FILE = {"DEBUG", "GATEWAY_HOST", "GATEWAY_PORT", "TEMPORAL_NAMESPACE"}
_NOT_IN_ENV_FILE |= {"METRICS_PORT"}  # set where a process has no other HTTP
_ONLY_WEB = {"NUM_PROXIES", "PROMETHEUS_MULTIPROC_DIR", "WEB_BODY_TIMEOUT"}
_ONLY_WEB |= {"METRICS_TOKEN", "SLACK_CLIENT_ID", "SLACK_CLIENT_SECRET"}
_ONLY_WEB |= {"SLACK_SIGNING_SECRET", "GATEWAY_SERVICE_TOKEN"}
_ONLY_SOCKETS = {"SLACK_APP_TOKEN"}
_SET_HERE = {
    "DATABASE_URL", "REDIS_URL", "GATEWAY_REDIS_URL", "TEMPORAL_ADDRESS", "TOLLGATE_URL",
    "GATEWAY_URL", "PROMETHEUS_MULTIPROC_DIR",
}  # fmt: skip


@pytest.mark.parametrize(
    ("service", "settings", "left_out"),
    [
        ("web", "config/settings.py", _NOT_IN_ENV_FILE | _ONLY_SOCKETS),
        ("sockets", "config/settings.py", _NOT_IN_ENV_FILE | _ONLY_WEB),
        *(
            (name, "config/settings.py", _NOT_IN_ENV_FILE | _ONLY_WEB | _ONLY_SOCKETS)
            for name in ("worker", "celery", "beat", "reconciler", "migrate")
        ),
        ("agents", "coding_tasks/agent_worker/settings.py", set()),
        ("gateway", "gateway/settings.py", _NOT_IN_ENV_FILE),
    ],
)
def test_a_variable_of_the_env_file_reaches_the_services_that_read_it(
    service: str, settings: str, left_out: set[str]
) -> None:
    call = r"(?:env\.\w+\(\s*|several\(env, )\"([A-Z_]+)\""
    read = set(re.findall(call, (ROOT / settings).read_text()))
    environment = COMPOSE["services"][service]["environment"]
    assert read - left_out <= environment.keys()
    for name in read - left_out - _SET_HERE:
        value = environment[name]
        assert value is None or f"${{{name}:" in value, name


def test_opentelemetrys_variables_reach_the_gateway() -> None:
    documented = set(re.findall(r"^#(OTEL_[A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M))
    environment = COMPOSE["services"]["gateway"]["environment"]
    assert {
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_SERVICE_NAME",
        "OTEL_RESOURCE_ATTRIBUTES",
    } <= documented
    assert documented == {name for name in environment if name.startswith("OTEL_")}


def test_a_secret_reaches_only_services_that_need_it() -> None:
    of_web = {"METRICS_TOKEN", "SLACK_CLIENT_SECRET"}
    of_web |= {"SLACK_SIGNING_SECRET", "GATEWAY_SERVICE_TOKEN"}
    of_gateway = {"ANTHROPIC_API_KEY", "OPENAI_API_KEY", "POSTHOG_API_KEY"}
    of_django = {"SECRET_KEY", "DATABASE_URL", "SLACK_SIGNING_SECRET"}
    holders = {
        name
        for name, one in COMPOSE["services"].items()
        if "SLACK_APP_TOKEN" in one.get("environment", {})
    }
    assert holders == {"sockets"}
    of_celery = {"SLACK_CLIENT_SECRET"}  # renews bot tokens that expire
    for name in ("worker", "celery", "beat", "reconciler", "migrate", "sockets"):
        others = (of_web | of_gateway) - (of_celery if name == "celery" else set())
        assert not others & COMPOSE["services"][name]["environment"].keys()
    assert not of_gateway & COMPOSE["services"]["web"]["environment"].keys()
    assert not of_django & COMPOSE["services"]["gateway"]["environment"].keys()


def test_the_agent_worker_reaches_no_store_and_holds_no_secret() -> None:
    services = COMPOSE["services"]
    assert services["agents"]["networks"] == ["agents"]
    reached = {name for name, service in services.items() if "agents" in service["networks"]}
    assert reached == {"agents", "temporal", "gateway"}
    environment = services["agents"]["environment"]
    assert not [name for name in environment if re.search("KEY|SECRET|TOKEN|PASSWORD|_URL", name)]


def test_services_that_die_are_restarted() -> None:
    """Docker waits ever longer between attempts, until a service has been up for ten seconds."""
    for name, service in COMPOSE["services"].items():
        once = name in {"migrate", "temporal-schema", "temporal-namespace"}
        assert service["restart"] == ("on-failure:5" if once else "unless-stopped"), name


def test_django_and_the_gateway_share_no_store() -> None:
    services = COMPOSE["services"]
    networks = {name: set(service["networks"]) for name, service in services.items()}
    assert networks["gateway"] & networks["redis"] == set()
    assert networks["gateway"] & networks["postgres"] == set()
    assert networks["web"] & networks["gateway-redis"] == set()
    assert networks["web"] & networks["gateway"] == {"http"}


def test_every_dependency_exists_and_has_a_health_check() -> None:
    services = COMPOSE["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for {other}"
            else:
                assert services[other]["restart"].startswith("on-failure"), other


def test_the_stores_keep_their_data_and_evict_nothing() -> None:
    for name in ("redis", "gateway-redis"):
        service = COMPOSE["services"][name]
        options = dict(zip(service["command"][1::2], service["command"][2::2], strict=True))
        assert options["--appendonly"] == "yes"
        assert options["--maxmemory-policy"] == "noeviction"
        assert service["volumes"] == [f"{name}:/data"]


def test_a_power_loss_loses_no_event_of_the_gateway() -> None:
    command = COMPOSE["services"]["gateway-redis"]["command"]
    assert command[command.index("--appendfsync") + 1] == "always"


def test_the_images_run_as_an_ordinary_user() -> None:
    stages = DOCKERFILE.split("\nFROM base")[1:]
    assert len(stages) == 2
    assert all("\nUSER tollgate\n" in stage for stage in stages)


def test_the_gateway_image_contains_no_django() -> None:
    names = _pins("requirements-gateway.lock")
    assert "django" not in names
    gateway = DOCKERFILE.split("AS gateway")[1]
    assert re.findall(r"^COPY (\w+) ", gateway, re.MULTILINE) == ["gateway"]


@pytest.mark.parametrize("lock", ["requirements-web.lock", "requirements-gateway.lock"])
def test_the_locks_of_the_images_pin_what_the_suite_runs_on(lock: str) -> None:
    assert _pins(lock).items() <= _pins("requirements.lock").items()


@pytest.mark.parametrize(
    "lock", ["requirements.lock", "requirements-web.lock", "requirements-gateway.lock"]
)
def test_a_lock_names_no_index_and_hashes_every_package(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    packages = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert packages
    assert all("--hash=sha256:" in package for package in packages)


def test_the_locks_cover_the_project_and_the_gateways_group() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for wanted, lock in (
        (project["project"]["dependencies"], "requirements-web.lock"),
        (project["dependency-groups"]["gateway"], "requirements-gateway.lock"),
    ):
        names = {re.split(r"[\[<>=]", requirement)[0] for requirement in wanted}
        assert names <= _pins(lock).keys(), lock


def _pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))
