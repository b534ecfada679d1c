"""The development stack's settings follow from the environment."""

import stat
from pathlib import Path

import pytest

from devstack.env_file import read_env_file, write_env_file
from devstack.isolation import throw_away_environment
from devstack.servers import free_port
from devstack.settings import PORTS, SettingsError, Stack, read
from tests.devstack.processes import listening


def stack(directory: Path, **environment: str) -> Stack:
    return read({"DEVSTACK_DIR": str(directory), **environment})


def test_everything_is_started_without_settings(tmp_path: Path) -> None:
    made = stack(tmp_path)
    assert made.ports == PORTS
    assert made.ports_in_use() == PORTS
    assert made["DATABASE_URL"] == f"sqlite:///{tmp_path}/db.sqlite3"
    assert made["REDIS_URL"] == "redis://127.0.0.1:6380/0"
    assert made["SLACK_API_URL"] == "http://127.0.0.1:8200/api/"
    assert made["ANTHROPIC_UPSTREAM_URL"] == "http://127.0.0.1:8300"
    assert made["PUBLIC_URL"] == "http://localhost:8000"


@pytest.mark.parametrize(
    ("given", "not_started"),
    [
        ({"REDIS_URL": "redis://cache:6379/1"}, {"REDIS_PORT"}),
        ({"GATEWAY_REDIS_URL": "redis://cache:6379/2"}, {"GATEWAY_REDIS_PORT"}),
        ({"TEMPORAL_ADDRESS": "temporal:7233"}, {"TEMPORAL_PORT", "TEMPORAL_UI_PORT"}),
        ({"SLACK_API_URL": "https://slack.example/api/"}, {"DEMO_SLACK_PORT"}),
        ({"SLACK_CLIENT_ID": "1.2"}, {"DEMO_SLACK_PORT"}),
        ({"SLACK_APP_TOKEN": "xapp-1"}, {"DEMO_SLACK_PORT"}),
        ({"ANTHROPIC_API_KEY": "sk-ant"}, {"DEMO_MODEL_PORT"}),
        ({"OPENAI_API_KEY": "sk"}, {"DEMO_MODEL_PORT"}),
        ({"OPENAI_UPSTREAM_URL": "https://models.example"}, {"DEMO_MODEL_PORT"}),
    ],
)
def test_a_server_that_is_given_is_used_and_not_started(
    tmp_path: Path, given: dict[str, str], not_started: set[str]
) -> None:
    made = stack(tmp_path, **given)
    assert PORTS.keys() - made.ports_in_use().keys() == not_started
    for name, value in given.items():
        assert made.environment.get(name, value) == value


def test_no_signing_secret_is_generated_for_the_real_slack(tmp_path: Path) -> None:
    made = stack(tmp_path, SLACK_CLIENT_ID="1.2")
    assert "SLACK_SIGNING_SECRET" not in made.environment
    assert "SLACK_API_URL" not in made.environment


def test_the_env_file_has_the_settings_that_commands_need(tmp_path: Path) -> None:
    given = {
        "SLACK_API_URL": "https://slack.example/api/",
        "SLACK_SIGNING_SECRET": "new,old",
        "BOT_NAME": "Robo & Co",
        "ANTHROPIC_API_KEY": "sk-ant",
    }
    write_env_file(tmp_path / "env", stack(tmp_path, **given).environment)
    told = read_env_file(tmp_path / "env")
    assert told.items() >= {n: v for n, v in given.items() if n != "ANTHROPIC_API_KEY"}.items()
    assert "ANTHROPIC_API_KEY" not in told


def test_a_replacement_for_slack_finds_a_signing_secret_in_the_env_file(tmp_path: Path) -> None:
    made = stack(tmp_path, SLACK_API_URL="http://127.0.0.1:9/api/")
    assert made["SLACK_SIGNING_SECRET"]


def test_an_empty_value_counts_as_unset(tmp_path: Path) -> None:
    assert stack(tmp_path, SLACK_API_URL="", REDIS_URL="").starts_redis


def test_a_shell_that_has_read_the_env_file_starts_the_same_stack(tmp_path: Path) -> None:
    ports = {name: str(free_port()) for name in PORTS}
    first = stack(tmp_path, **ports)
    assert read(ports | first.environment) == first


def test_our_own_address_is_used_if_something_listens_there(tmp_path: Path) -> None:
    with listening() as port:
        url = f"redis://127.0.0.1:{port}/0"
        made = stack(tmp_path, REDIS_PORT=str(port), REDIS_URL=url)
    assert not made.starts_redis
    assert made["REDIS_URL"] == url


def test_secrets_are_generated_once_and_kept(tmp_path: Path) -> None:
    first = stack(tmp_path)
    write_env_file(tmp_path / "env", first.environment)
    second = stack(tmp_path)
    names = ["SECRET_KEY", "SLACK_SIGNING_SECRET", "GATEWAY_SERVICE_TOKEN", "METRICS_TOKEN"]
    for name in [*names, "ADMIN_PASSWORD", "DEMO_SLACK_BOT_TOKEN"]:
        assert first[name] == second[name], name
        assert len(first[name]) >= 16, name
    assert len({first[name] for name in names}) == len(names)
    assert stack(tmp_path, SECRET_KEY="given")["SECRET_KEY"] == "given"


def test_two_stacks_share_no_secret(tmp_path: Path) -> None:
    assert stack(tmp_path / "a")["SECRET_KEY"] != stack(tmp_path / "b")["SECRET_KEY"]


@pytest.mark.parametrize("value", ["abc", "0", "65536", "-1", "80.5", "٣٠٠٠"])
def test_an_invalid_port_is_named(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingsError, match=r"^WEB_PORT must be a number from 1 to 65535, not "):
        stack(tmp_path, WEB_PORT=value)


def test_an_invalid_number_of_processes_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^GATEWAY_PROCESSES must be a number from 1 to 64"):
        stack(tmp_path, GATEWAY_PROCESSES="many")


def test_two_servers_on_one_port_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^WEB_PORT and GATEWAY_PORT are both 8100"):
        stack(tmp_path, WEB_PORT="8100")


def test_the_env_file_keeps_its_values_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    file = tmp_path / "env"
    values = {"PLAIN": "redis://127.0.0.1:6380/0", "ODD": "a b'c\"d$e#f", "EMPTY": ""}
    write_env_file(file, values)
    assert read_env_file(file) == values
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    write_env_file(file, {"NEW": "1"})
    assert read_env_file(file) == {"NEW": "1"}
    assert read_env_file(tmp_path / "none") == {}


def test_a_throw_away_stack_inherits_no_key_and_no_address(tmp_path: Path) -> None:
    inherited = {
        "PATH": "/bin",
        "ANTHROPIC_API_KEY": "sk-ant",
        "OPENAI_API_KEY": "sk",
        "SLACK_CLIENT_ID": "1.2",
        "SLACK_SIGNING_SECRET": "s",
        "DATABASE_URL": "postgres://production",
        "REDIS_URL": "redis://production",
        "SECRET_KEY": "production",
        "WEB_PORT": "8000",
    }
    environment = throw_away_environment(inherited, str(tmp_path))
    assert environment.keys() == {"PATH", "DEVSTACK_DIR", *PORTS}
    assert len({environment[name] for name in PORTS}) == len(PORTS)
    assert environment["WEB_PORT"] != "8000"
    made = read(environment)
    assert made.starts_demo_slack
    assert made.starts_demo_model
