"""The development stack's settings, read from the environment. `make up` needs none of them.

`read` turns the environment into a `Stack`: which servers to start, on which ports, and the
environment of every process. Missing addresses follow from the ports. Missing secrets are generated
and kept in `.devstack/env` from one run to the next.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from devstack.env_file import read_env_file
from devstack.servers import accepts_connections, port_is_free

ROOT = Path(__file__).resolve().parent.parent

PORTS = {
    "WEB_PORT": 8000,
    "GATEWAY_PORT": 8100,
    "DEMO_SLACK_PORT": 8200,
    "DEMO_MODEL_PORT": 8300,
    "TEMPORAL_PORT": 7233,
    "TEMPORAL_UI_PORT": 8233,
    "REDIS_PORT": 6380,
    "GATEWAY_REDIS_PORT": 6381,
}
PROVIDER_VARIABLES = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_UPSTREAM_URL",
    "OPENAI_API_KEY",
    "OPENAI_UPSTREAM_URL",
)
SHARED_WITH_COMMANDS = (
    "AGENT_COMMANDS",
    "AGENT_MODEL",
    "AGENT_OPENAI_MODEL",
    "AGENT_TURNS_AT_ONCE",
    "AGENT_TURNS_PER_PROJECT",
    "ALLOWED_HOSTS",
    "BILLING_URL",
    "BOT_NAME",
    "COMMIT_EMAIL",
    "COMMIT_NAME",
    "PROGRESS_AFTER_SECONDS",
    "PUBLISH_MOST_FILES",
    "ROUTING_MODEL",
    "SANDBOX",
    "SANDBOX_IMAGE",
    "SANDBOX_RUNTIME",
    "SANDBOX_UID",
    "SECRET_KEY_FALLBACKS",
    "SLACK_API_URL",
    "SLACK_CLIENT_ID",
    "SLACK_CLIENT_SECRET",
    "SLACK_SIGNING_SECRET",
    "START_CREDITS",
    "TASK_IDLE_MINUTES",
    "TEMPORAL_NAMESPACE",
)
"""Optional settings that Django's commands need too. They are written to `.devstack/env`, which is
all that other shells have. A provider's keys are for the gateway only and stay out of that file."""


class SettingsError(Exception):
    """Why a value in the environment cannot be used, in one sentence that says what to do."""


@dataclass(frozen=True)
class Stack:
    """One development stack: where it keeps its data, what it starts, and its settings."""

    directory: Path
    ports: dict[str, int]
    environment: dict[str, str]
    starts_redis: bool
    starts_gateway_redis: bool
    starts_temporal: bool
    starts_demo_slack: bool
    starts_demo_model: bool
    uses_socket_mode: bool

    def __getitem__(self, name: str) -> str:
        return self.environment[name]

    def ports_in_use(self) -> dict[str, int]:
        """Return the ports that this stack listens on, by the variable that sets each."""
        unused = set()
        if not self.starts_redis:
            unused.add("REDIS_PORT")
        if not self.starts_gateway_redis:
            unused.add("GATEWAY_REDIS_PORT")
        if not self.starts_temporal:
            unused |= {"TEMPORAL_PORT", "TEMPORAL_UI_PORT"}
        if not self.starts_demo_slack:
            unused.add("DEMO_SLACK_PORT")
        if not self.starts_demo_model:
            unused.add("DEMO_MODEL_PORT")
        return {name: port for name, port in self.ports.items() if name not in unused}


def refuse_taken_ports(stack: Stack) -> None:
    """Raise `SettingsError` if a port of the stack is in use; name the variable that changes it."""
    for name, port in stack.ports_in_use().items():
        if not port_is_free(port):
            raise SettingsError(
                f"port {port} is taken. Stop what listens there, or choose another:"
                f" {name}={port + 10_000 if port < 50_000 else port - 10_000} make up"
            )


def directory(environ: Mapping[str, str]) -> Path:
    """Return the folder that holds everything `make up` keeps (`DEVSTACK_DIR`)."""
    return Path(environ.get("DEVSTACK_DIR") or ROOT / ".devstack").resolve()


def agents_directory(environ: Mapping[str, str]) -> Path:
    """Return the folder of the agents that `make agents` installs (`AGENTS_DIRECTORY`)."""
    return Path(environ.get("AGENTS_DIRECTORY") or ROOT / ".agents").resolve()


def read(environ: Mapping[str, str]) -> Stack:
    """Return the stack that the environment asks for; raises `SettingsError`."""
    given = {name: value for name, value in environ.items() if value}
    folder = directory(given)
    kept = read_env_file(folder / "env")
    ports = {name: _port(given, name, default) for name, default in PORTS.items()}
    _refuse_equal_ports(ports)
    for name in ("WEB_PROCESSES", "GATEWAY_PROCESSES"):
        _number(given, name, 1, 1, 64)

    def secret(name: str, prefix: str = "", size: int = 32) -> str:
        return given.get(name) or kept.get(name) or prefix + secrets.token_urlsafe(size)

    def own(name: str, address: str, port: int) -> tuple[str, bool]:
        """Return the address to use, and whether to start a server there.

        Another server's address is used as given. Our own default address may come from a shell
        that has read `.devstack/env`, so it counts as given only if something listens there.
        """
        value = given.get(name, address)
        return value, name not in given or (value == address and not accepts_connections(port))

    redis, starts_redis = own(
        "REDIS_URL", f"redis://127.0.0.1:{ports['REDIS_PORT']}/0", ports["REDIS_PORT"]
    )
    gateway_redis, starts_gateway_redis = own(
        "GATEWAY_REDIS_URL",
        f"redis://127.0.0.1:{ports['GATEWAY_REDIS_PORT']}/0",
        ports["GATEWAY_REDIS_PORT"],
    )
    temporal, starts_temporal = own(
        "TEMPORAL_ADDRESS", f"127.0.0.1:{ports['TEMPORAL_PORT']}", ports["TEMPORAL_PORT"]
    )
    slack, starts_demo_slack = own(
        "SLACK_API_URL",
        f"http://127.0.0.1:{ports['DEMO_SLACK_PORT']}/api/",
        ports["DEMO_SLACK_PORT"],
    )
    is_real_slack = bool({"SLACK_CLIENT_ID", "SLACK_APP_TOKEN"} & given.keys())
    starts_demo_slack = starts_demo_slack and not is_real_slack
    model = f"http://127.0.0.1:{ports['DEMO_MODEL_PORT']}"
    starts_demo_model = all(given.get(name, model) == model for name in PROVIDER_VARIABLES)

    environment = {
        **{name: given[name] for name in SHARED_WITH_COMMANDS if name in given},
        "DEVSTACK_DIR": str(folder),
        **{name: str(port) for name, port in ports.items()},
        "DATABASE_URL": given.get("DATABASE_URL", f"sqlite:///{quote(str(folder))}/db.sqlite3"),
        "REDIS_URL": redis,
        "GATEWAY_REDIS_URL": gateway_redis,
        "TEMPORAL_ADDRESS": temporal,
        "TEMPORAL_UI_URL": given.get(
            "TEMPORAL_UI_URL", f"http://127.0.0.1:{ports['TEMPORAL_UI_PORT']}"
        ),
        "PUBLIC_URL": given.get("PUBLIC_URL", f"http://localhost:{ports['WEB_PORT']}"),
        "TOLLGATE_URL": given.get("TOLLGATE_URL", f"http://127.0.0.1:{ports['WEB_PORT']}"),
        "GATEWAY_URL": given.get("GATEWAY_URL", f"http://127.0.0.1:{ports['GATEWAY_PORT']}"),
        "GIT_ALLOWED_PROTOCOLS": given.get("GIT_ALLOWED_PROTOCOLS", "https,ssh,file"),
        "REPOSITORIES_DIRECTORY": given.get("REPOSITORIES_DIRECTORY", str(folder / "git")),
        "AGENTS_DIRECTORY": str(agents_directory(given)),
        "AGENT_EXCHANGE_DIRECTORY": given.get("AGENT_EXCHANGE_DIRECTORY", str(folder / "exchange")),
        "DEFAULT_AGENT": given.get("DEFAULT_AGENT", "reader"),
        "SECRET_KEY": secret("SECRET_KEY"),
        "GATEWAY_SERVICE_TOKEN": secret("GATEWAY_SERVICE_TOKEN"),
        "METRICS_TOKEN": secret("METRICS_TOKEN"),
        "ADMIN_PASSWORD": secret("ADMIN_PASSWORD", size=12),
        "GRANIAN_HOST": "127.0.0.1",
        "GRANIAN_PORT": str(ports["WEB_PORT"]),
        "GRANIAN_WORKERS": given.get("WEB_PROCESSES", "1"),
    }
    if "SLACK_CLIENT_ID" not in given:  # not the real Slack, which issues its own secret
        environment["SLACK_SIGNING_SECRET"] = secret("SLACK_SIGNING_SECRET")
    if starts_demo_slack:
        environment |= {
            "SLACK_API_URL": slack,
            "DEMO_SLACK_BOT_TOKEN": secret("DEMO_SLACK_BOT_TOKEN", "xoxb-demo-"),
        }
    if starts_demo_model:
        environment |= {
            "ANTHROPIC_UPSTREAM_URL": model,
            "OPENAI_UPSTREAM_URL": model,
        }
    return Stack(
        directory=folder,
        ports=ports,
        environment=environment,
        starts_redis=starts_redis,
        starts_gateway_redis=starts_gateway_redis,
        starts_temporal=starts_temporal,
        starts_demo_slack=starts_demo_slack,
        starts_demo_model=starts_demo_model,
        uses_socket_mode="SLACK_APP_TOKEN" in given,
    )


def _port(given: Mapping[str, str], name: str, default: int) -> int:
    return _number(given, name, default, 1, 65535)


def _number(given: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    value = given.get(name, str(default))
    if not value.isascii() or not value.isdigit() or not least <= int(value) <= most:
        raise SettingsError(f"{name} must be a number from {least} to {most}, not {value!r}.")
    return int(value)


def _refuse_equal_ports(ports: Mapping[str, int]) -> None:
    seen: dict[int, str] = {}
    for name, port in ports.items():
        if port in seen:
            raise SettingsError(f"{seen[port]} and {name} are both {port}; change one of them.")
        seen[port] = name


@dataclass(frozen=True)
class DemoSettings:
    """The settings of the demo Slack and the demo model, which are separate processes."""

    directory: Path
    slack_port: int
    model_port: int
    app_url: str
    signing_secret: str
    bot_token: str
    bot_name: str


def read_demo(environ: Mapping[str, str]) -> DemoSettings:
    """Return the demo servers' settings, from the environment or else from `.devstack/env`."""
    folder = directory(environ)
    given = read_env_file(folder / "env") | {n: value for n, value in environ.items() if value}
    return DemoSettings(
        directory=folder,
        slack_port=_port(given, "DEMO_SLACK_PORT", PORTS["DEMO_SLACK_PORT"]),
        model_port=_port(given, "DEMO_MODEL_PORT", PORTS["DEMO_MODEL_PORT"]),
        app_url=given.get("TOLLGATE_URL", f"http://127.0.0.1:{PORTS['WEB_PORT']}"),
        signing_secret=given.get("SLACK_SIGNING_SECRET", ""),
        bot_token=given.get("DEMO_SLACK_BOT_TOKEN", "xoxb-demo"),
        bot_name=given.get("BOT_NAME", "Tollgate"),
    )
