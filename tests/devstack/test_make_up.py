"""What `make up` says, in one line, when it cannot start."""

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from devstack.isolation import throw_away_environment
from devstack.settings import PORTS, SettingsError, read, refuse_taken_ports
from devstack.temporal_file import reset_or_refuse_damaged
from tests.devstack.processes import listening, started


def said_by_make_up(directory: Path, **environment: str) -> str:
    """Run `make up`, expect it to end at once, and return its one line."""
    clean = throw_away_environment(os.environ, str(directory)) | environment
    with started(["devstack"], clean) as lines:
        assert lines.end() == 1
    [line] = lines.text.splitlines()
    return line


def test_a_taken_port_is_named_in_one_line(tmp_path: Path) -> None:
    with listening() as port:
        line = said_by_make_up(tmp_path, GATEWAY_PORT=str(port))
    assert line.startswith(
        f"tollgate: port {port} is taken. Stop what listens there, or choose another: GATEWAY_PORT="
    )
    assert line.endswith(" make up")


@pytest.mark.parametrize("variable", sorted(PORTS))
def test_each_port_has_a_variable_that_changes_it(tmp_path: Path, variable: str) -> None:
    with listening() as port:
        stack = read(throw_away_environment({}, str(tmp_path)) | {variable: str(port)})
        told = rf"^port {port} is taken\..* {variable}=\d+ make up$"
        with pytest.raises(SettingsError, match=told):
            refuse_taken_ports(stack)


def test_a_malformed_value_is_named(tmp_path: Path) -> None:
    line = said_by_make_up(tmp_path, REDIS_PORT="redis")
    assert line == "tollgate: REDIS_PORT must be a number from 1 to 65535, not 'redis'."


def test_a_second_stack_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = said_by_make_up(tmp_path)
    assert line.startswith("tollgate: it runs already (process 4711) with the data in ")


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = said_by_make_up(tmp_path / "file" / "below")
    assert line.startswith("tollgate: ")
    assert str(tmp_path / "file") in line


def test_secrets_that_the_web_server_needs_are_named(tmp_path: Path) -> None:
    """With a Slack app of one's own, nobody makes up its signing secret."""
    environment = throw_away_environment(os.environ, str(tmp_path))
    environment |= {"REDIS_URL": "redis://127.0.0.1:1/0", "TEMPORAL_ADDRESS": "127.0.0.1:1"}
    environment |= {"GATEWAY_REDIS_URL": "redis://127.0.0.1:1/0"}  # no server is started
    environment |= {"SLACK_CLIENT_ID": "1.2", "SLACK_CLIENT_SECRET": "x"}
    with started(["devstack"], environment) as lines:
        assert lines.end() == 1
    last = lines.text.splitlines()[-1]
    assert last.startswith("tollgate: check failed (exit 1): HINT: Set SLACK_SIGNING_SECRET ")


def test_a_temporal_file_that_was_not_finished_is_named_and_can_be_reset(tmp_path: Path) -> None:
    file = tmp_path / "temporal.sqlite3"
    stack = read(throw_away_environment({}, str(tmp_path)))
    for damaged in (b"", b"no database at all" * 100):
        file.write_bytes(damaged)
        line = said_by_make_up(tmp_path)
        assert line.startswith(f"tollgate: {file} is damaged. make up RESET=temporal deletes it")
    reset_or_refuse_damaged(stack, "temporal")
    assert not file.exists()


def test_a_good_temporal_file_is_kept(tmp_path: Path) -> None:
    stack = read(throw_away_environment({}, str(tmp_path)))
    with closing(sqlite3.connect(tmp_path / "temporal.sqlite3")) as database:
        database.execute("CREATE TABLE namespaces (id)")
        reset_or_refuse_damaged(stack, "")
    assert (tmp_path / "temporal.sqlite3").exists()


def test_an_unknown_reset_is_named(tmp_path: Path) -> None:
    line = said_by_make_up(tmp_path, RESET="redis")
    assert line == "tollgate: RESET=redis is unknown; it can be temporal."
