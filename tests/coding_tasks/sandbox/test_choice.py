"""Agents get the sandbox that the operator chose, and no other one."""

import subprocess
import sys

import pytest
from environs import EnvError

from coding_tasks.sandbox import choice
from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from coding_tasks.sandbox.docker.sandbox import Docker
from coding_tasks.sandbox.gvisor.sandbox import GVisor

NAMES = ("SANDBOX", "SANDBOX_UID", "SANDBOX_IMAGE", "SANDBOX_RUNTIME")


@pytest.fixture(autouse=True)
def _unset(monkeypatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, Bubblewrap), ("bubblewrap", Bubblewrap), ("gvisor", GVisor), ("docker", Docker)],
)
def test_the_setting_chooses_the_sandbox(monkeypatch, value, kind):
    if value is not None:
        monkeypatch.setenv("SANDBOX", value)
    assert type(choice.from_environment().sandbox()) is kind


@pytest.mark.parametrize(
    ("name", "value"), [("SANDBOX", "podman"), ("SANDBOX", ""), ("SANDBOX_UID", "0")]
)
def test_a_wrong_value_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(EnvError, match=name):
        choice.from_environment()


@pytest.mark.parametrize(
    ("value", "reason"), [("gvisor", "gVisor is not installed"), ("docker", "SANDBOX_IMAGE")]
)
def test_no_other_sandbox_takes_the_place_of_a_missing_one(value, reason):
    environment = {"PATH": "/nowhere", "SANDBOX": value}
    command = [sys.executable, "-m", "coding_tasks.sandbox"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 1
    assert reason in ran.stdout
